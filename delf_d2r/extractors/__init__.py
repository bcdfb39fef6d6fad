"""Extractors: from pixels to local features. `factory.build` makes one from a config."""
