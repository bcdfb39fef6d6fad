"""Runs of all stages: one experiment, several compared with each other, a table of the paper."""
