"""Extractors: from pixels to local features or global descriptors.

One file for each extractor, found by `registry.record`; `region_extractor.build` makes the one of a config.
"""
