"""The search engine: three lines from a directory to results.

engine = SearchEngine.load('OUT')
answer = engine.search('photo.jpg', top_k=10)
"""

from delf_d2r.engine.answer import Answer, SearchResult
from delf_d2r.engine.search_engine import SearchEngine

__all__ = ['Answer', 'SearchEngine', 'SearchResult']
