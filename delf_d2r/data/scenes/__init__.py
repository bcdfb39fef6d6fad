"""Photos composed from others, with exact boxes."""
