"""The inverted index: build, add, remove, merge, save, load, search."""

from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.index.storage import IndexFormatError

__all__ = ['IndexFormatError', 'InvertedIndex']
