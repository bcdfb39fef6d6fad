"""A tiny benchmark of real photos and a config that runs on it in seconds."""

from support.tiny_benchmark import benchmark, config_path, dataset, finished, finished_dir, load, run

__all__ = ['benchmark', 'config_path', 'dataset', 'finished', 'finished_dir', 'load', 'run']
