"""The index of real photos that the servers' tests search, too."""

from support.served_index import engine, index_dir, photos, query_path

__all__ = ['engine', 'index_dir', 'photos', 'query_path']
