"""Photos, folders and lists of them."""
