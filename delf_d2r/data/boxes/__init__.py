"""Boxes in files of several formats."""
