"""The one place that knows the library's version; setup.py reads it too."""

VERSION = '0.1.0'
