"""Rankings on disk: plain arrays with a row for each query.

queries.json, image_names.json   lists of names; ids in the rankings are positions in the latter
image_ids.npy                    int32 [Q, k]
scores.npy                       float32 [Q, k]
best_regions.npy                 int32 [Q, k], -1 without regional search or region masks
inliers.npy                      int32 [Q, k], only after spatial verification
local_scores.npy, global_scores.npy
                                 float32 [Q, k], only after fusion: the parts that the scores are the sums of
timing.json                      milliseconds of each query, by part
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from delf_d2r.data import files
from delf_d2r.errors import ArtefactError
from delf_d2r.structures import Ranking

_ARRAYS = {'image_ids': np.int32, 'scores': np.float32, 'best_regions': np.int32}
_OPTIONAL = {'inliers': np.int32, 'local_scores': np.float32, 'global_scores': np.float32}


@dataclasses.dataclass(frozen=True)
class Timing:
  """Milliseconds of each of Q queries.

  Attributes:
    describe: from features to aggregated descriptor, which is mostly the assignment of words.
    search: from aggregated descriptor to ranking.
    verify: from ranking to verified ranking; only of the queries of the last run of rerank_results, if an
      earlier run was killed.
  """

  describe: tuple[float, ...]
  search: tuple[float, ...]
  verify: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class StoredRankings:
  """The rankings of Q queries over M index images.

  Attributes:
    image_names: of the M images, by image id.
    rankings: of the queries.
    timing: of the queries.
  """

  image_names: tuple[str, ...]
  rankings: tuple[Ranking, ...]
  timing: Timing


def save(
  rankings: Sequence[Ranking], image_names: Sequence[str], timing: Timing, directory: pathlib.Path
) -> None:
  """Writes rankings of equal length."""
  _write_json(directory / 'queries.json', [ranking.query for ranking in rankings])
  _write_json(directory / 'image_names.json', list(image_names))
  _write_json(directory / 'timing.json', dataclasses.asdict(timing))
  optional = {
    name: dtype
    for name, dtype in _OPTIONAL.items()
    if any(getattr(ranking, name) is not None for ranking in rankings)
  }
  for name, dtype in (_ARRAYS | optional).items():
    length = len(rankings[0]) if rankings else 0
    table = np.array([getattr(ranking, name) for ranking in rankings], dtype).reshape(len(rankings), length)
    files.save_array(directory / f'{name}.npy', table)


def load(directory: pathlib.Path) -> StoredRankings:
  """Reads the files of `save`; raises ArtefactError if they are damaged."""
  try:
    queries, names, timing = (
      files.parse_json((directory / f'{name}.json').read_text(encoding='utf-8'))
      for name in ('queries', 'image_names', 'timing')
    )
    optional = [name for name in _OPTIONAL if (directory / f'{name}.npy').exists()]
    tables = {name: files.load_array(directory / f'{name}.npy') for name in (*_ARRAYS, *optional)}
    _check(tables, num_queries=len(queries), num_images=len(names))
    rankings = tuple(
      Ranking(query, **{name: table[row] for name, table in tables.items()})
      for row, query in enumerate(queries)
    )
    times = Timing(tuple(timing['describe']), tuple(timing['search']), tuple(timing.get('verify', ())))
    return StoredRankings(tuple(names), rankings, times)
  except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
    raise ArtefactError(
      f'{directory}: rankings are missing or damaged ({error}). Delete {directory} and run its stage again'
    ) from None


def _check(tables: Mapping[str, np.ndarray], *, num_queries: int, num_images: int) -> None:
  ids = tables['image_ids']
  shape = (num_queries, *ids.shape[1:2])
  for name, found in tables.items():
    dtype = (_ARRAYS | _OPTIONAL)[name]
    if found.shape != shape or found.dtype != dtype:
      raise ValueError(f'{name}: expected {np.dtype(dtype)} {shape}, found {found.dtype} {found.shape}')
  if ids.size and not 0 <= ids.min() <= ids.max() < num_images:
    raise ValueError(f'image ids beyond the {num_images} names')


def _write_json(path: pathlib.Path, document) -> None:
  files.write_atomically(path, json.dumps(document, ensure_ascii=False, indent=1) + '\n')
