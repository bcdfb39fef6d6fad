"""The commands: each parses flags, loads a config, calls one library function and writes one artefact."""
