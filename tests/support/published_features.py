"""The published DELF v1 features in ../shared/data as queries, an index and a ranking."""

import numpy as np

from delf_d2r.data.legacy import delf_files
from delf_d2r.structures import LocalFeatures
from support.published_files import PUBLISHED

FOLDER = PUBLISHED / 'delf_v1_features/data'


def load(part: str) -> dict[str, LocalFeatures]:
  """Returns the features of `query` or `train` by photo; the first letter is the landmark."""
  files = sorted((FOLDER / f'{part}_features').glob('*.delf'))
  return {file.stem: delf_files.decode(file.read_bytes()) for file in files}


def ranked(query: LocalFeatures, index: dict[str, LocalFeatures]) -> list[str]:
  """Returns the names by similarity: of each feature of the query the best one, to the third power."""
  similarity = {
    name: (np.maximum(query.descriptors @ features.descriptors.T, 0).max(axis=1) ** 3).sum()
    for name, features in index.items()
  }
  return sorted(index, key=lambda name: -similarity[name])
