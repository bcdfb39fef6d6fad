"""Whole runs: one experiment, several side by side, a paper's table."""
