"""HTML reports: pages of experiments, searches, comparisons and tables, each one self-contained file."""
