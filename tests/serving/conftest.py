"""A server on loopback over a small index of real photos."""

from support.served_index import address, client, engine, index_dir, photos, query_path

__all__ = ['address', 'client', 'engine', 'index_dir', 'photos', 'query_path']
