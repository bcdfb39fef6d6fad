"""Rules of configs: one module for each proto file, `runs` for what depends on which stages are run."""
