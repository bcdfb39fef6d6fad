"""Worker processes and progress."""
