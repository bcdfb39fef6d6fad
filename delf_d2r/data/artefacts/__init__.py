"""Artefacts of the stages: directories with records, side files and a manifest."""
