"""The binaries: each parses flags, loads a config, calls one stage and writes one artefact."""
