"""The search engine: from a photo to the index images that show the same object.

engine = SearchEngine.load('output')
answer = engine.search('photo.jpg', top_k=10)
"""

from delf_d2r.engine.search_engine import Answer, SearchEngine, SearchResult

__all__ = ['Answer', 'SearchEngine', 'SearchResult']
