"""Boxes in files of several forms."""
