"""Helpers of the tests: models, photos, files, servers and processes made for them."""
