"""Ground truth in several forms, and where published benchmarks keep it."""
