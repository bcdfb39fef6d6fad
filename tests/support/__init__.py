"""Helpers for tests: small models, photos, files, servers and processes."""
