"""Training examples and their records."""
