"""The version of the library; pyproject.toml reads it."""

VERSION = '0.1.0'
