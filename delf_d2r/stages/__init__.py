"""The stages of Detect-to-Retrieve, one module a verb, each with one `run` that makes one artefact."""
