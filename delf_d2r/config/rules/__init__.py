"""Rules of what a config may say, one module for each proto file."""
