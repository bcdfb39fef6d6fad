"""Detect-to-Retrieve landmark image search (Teichmann, Araujo, Zhu, Sim, CVPR 2019).

From a folder of photos to a search, with artefacts on disk:

    from delf_d2r import SearchEngine, run_experiment

    run_experiment('photos', 'output')
    answer = SearchEngine.load('output').search('photo.jpg', top_k=10)

From arrays to a ranking and its mean average precision, without files: `Codebook.train`, `aggregate` or
`aggregate_regions`, `InvertedIndex.build`, `InvertedIndex.search`, `evaluate`.

The names below are imported when they are first used, so importing this package imports neither NumPy nor
TensorFlow. The packages of each stage are described by their own pages.
"""

import importlib
from typing import TYPE_CHECKING

from delf_d2r.version import VERSION as __version__

if TYPE_CHECKING:
  from delf_d2r.codebook import Codebook
  from delf_d2r.config.loading import load as load_config
  from delf_d2r.data.photos.dataset import Dataset
  from delf_d2r.engine.search_engine import SearchEngine
  from delf_d2r.evaluation.evaluate import evaluate
  from delf_d2r.experiments.run_experiment import run_experiment
  from delf_d2r.index.inverted_index import InvertedIndex
  from delf_d2r.kernels.aggregation import Kernel, aggregate, aggregate_regions

__all__ = [
  'Codebook',
  'Dataset',
  'InvertedIndex',
  'Kernel',
  'SearchEngine',
  '__version__',
  'aggregate',
  'aggregate_regions',
  'evaluate',
  'load_config',
  'run_experiment',
]

# Module and name of each public name.
_ORIGINS = {
  'Codebook': ('delf_d2r.codebook', 'Codebook'),
  'Dataset': ('delf_d2r.data.photos.dataset', 'Dataset'),
  'InvertedIndex': ('delf_d2r.index.inverted_index', 'InvertedIndex'),
  'Kernel': ('delf_d2r.kernels.aggregation', 'Kernel'),
  'SearchEngine': ('delf_d2r.engine.search_engine', 'SearchEngine'),
  'aggregate': ('delf_d2r.kernels.aggregation', 'aggregate'),
  'aggregate_regions': ('delf_d2r.kernels.aggregation', 'aggregate_regions'),
  'evaluate': ('delf_d2r.evaluation.evaluate', 'evaluate'),
  'load_config': ('delf_d2r.config.loading', 'load'),
  'run_experiment': ('delf_d2r.experiments.run_experiment', 'run_experiment'),
}


def __getattr__(name: str) -> object:
  """Imports a public name when it is first used (PEP 562)."""
  if name not in _ORIGINS:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = _ORIGINS[name]
  value: object = getattr(importlib.import_module(module), attribute)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
