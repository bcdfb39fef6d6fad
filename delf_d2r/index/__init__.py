"""The inverted index: build, add, remove, merge, save, load, search."""

from delf_d2r.index.directory import IndexFormatError
from delf_d2r.index.inverted_index import InvertedIndex

__all__ = ['IndexFormatError', 'InvertedIndex']
