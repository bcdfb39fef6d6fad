"""The one place that knows the library's version; pyproject.toml reads it too."""

VERSION = '0.1.0'
