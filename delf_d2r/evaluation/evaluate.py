"""Evaluates rankings from plain Python values: names or image ids in, mean average precision out."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from delf_d2r.data.ground_truth import ground_truth as ground_truths
from delf_d2r.data.ground_truth.ground_truth import GroundTruth, ResolvedQuery
from delf_d2r.data.photos import name_matching
from delf_d2r.evaluation import protocol
from delf_d2r.evaluation.protocol import KS, Metrics
from delf_d2r.structures import Ranking, require_several

# Names of index images, or their image ids.
Images = Sequence[str] | Sequence[int] | npt.NDArray[np.integer]


def evaluate(
  rankings: Mapping[str, Images | Ranking] | Sequence[Images | Ranking],
  ground_truth: Mapping[str, Images] | GroundTruth | str | os.PathLike[str],
  *,
  junk: Mapping[str, Images] | None = None,
  image_names: Sequence[str] | None = None,
  ks: Sequence[int] = KS,
) -> Metrics:
  """Computes mean average precision, precision and recall at k of one ranking for each query.

  Average precision is that of Oxford5k and Paris6k (see `average_precision`). Junk images are taken out of a
  ranking before anything is measured; an image without a label is wrong. A ground truth of the Revisited form
  is evaluated under its easy, medium and hard protocols (Radenovic et al., CVPR 2018, section 3). The
  positives of a plain mapping count as easy ones, so that the medium protocol, which
  `Metrics.mean_average_precision` reports, is the common evaluation of retrieval.

  Args:
    rankings: for each query the index images, best first, as names, as image ids or as a
      `structures.Ranking`: by query name, or in the order of the ground truth. A ranking may stop early; the
      positives that it lacks add 0 to the average precision.
    ground_truth: the positives of each query; or a `GroundTruth`; or the path of one (.json, or the .pkl or
      .mat of Revisited Oxford and Paris).
    junk: for a mapping of positives, the index images that count neither as right nor as wrong, such as the
      query image itself. Queries may be absent.
    image_names: the names of all index images in the order of their image ids, for example
      `InvertedIndex.image_names`. It is needed if rankings have image ids and the ground truth has names. By
      default the index images that the ground truth lists, if it lists any.
    ks: the ranks of precision and recall at k, from 1.

  Returns:
    The metrics as fractions, for each protocol and query.

  Raises:
    ValueError: a query has no ranking or a ranking no query, a ranking repeats an image, an image is both
      positive and junk, or a name cannot be found.
    UserError: the file cannot be read or is no ground truth.
  """
  if isinstance(ground_truth, str | os.PathLike):
    ground_truth = ground_truths.load(ground_truth)
  if isinstance(ground_truth, GroundTruth):
    if junk is not None:
      raise ValueError('junk: expected None beside a GroundTruth, which lists its junk itself')
    labels: dict[str, dict[str, Images]] = {
      query.name: {'easy': query.easy, 'hard': query.hard, 'junk': query.junk}
      for query in ground_truth.queries
    }
    image_names = image_names or ground_truth.index_images
  else:
    unknown = sorted(set(junk or {}) - set(ground_truth))
    if unknown:
      raise ValueError(f'junk: found {unknown[:5]}, which are not among the {len(ground_truth)} queries')
    labels = {
      name: {'easy': positives, 'hard': (), 'junk': (junk or {}).get(name, ())}
      for name, positives in ground_truth.items()
    }
  ranked = _by_query(rankings, list(labels))
  if isinstance(ground_truth, GroundTruth) and image_names:
    # Names of a ground truth may lack folder and extension.
    ids = _ImageIds(image_names)
    queries = ground_truths.resolve(ground_truth, image_names)
  else:
    ids = _ImageIds(image_names)
    queries = tuple(
      ResolvedQuery(name, *(ids.of(images, f'query {name!r}: {label}') for label, images in lists.items()))
      for name, lists in labels.items()
    )
  found = [ids.of(ranking, f'the ranking of query {name!r}') for name, ranking in ranked.items()]
  return protocol.evaluate(found, queries, ks)


def _by_query(
  rankings: Mapping[str, Images | Ranking] | Sequence[Images | Ranking], queries: Sequence[str]
) -> dict[str, Images]:
  """Returns the ranking of each query, in the order of the queries."""
  if not isinstance(rankings, Mapping):
    if len(rankings) != len(queries):
      raise ValueError(f'expected one ranking for each of the {len(queries)} queries, found {len(rankings)}')
    for name, ranking in zip(queries, rankings, strict=True):
      if isinstance(ranking, Ranking) and ranking.query not in ('', name):
        raise ValueError(
          f'expected the ranking of query {name!r}, found that of {ranking.query!r}; order rankings as the'
          ' ground truth orders its queries, or give them by query name'
        )
    rankings = dict(zip(queries, rankings, strict=True))
  for what, names in (
    ('queries without a ranking', set(queries) - set(rankings)),
    ('rankings without a query', set(rankings) - set(queries)),
  ):
    if names:
      raise ValueError(f'expected one ranking for each query, found {what}: {sorted(names)[:5]}')
  return {name: _images(rankings[name]) for name in queries}


def _images(ranking: Images | Ranking) -> Images:
  return ranking.image_ids if isinstance(ranking, Ranking) else ranking


class _ImageIds:
  """Numbers index images: by their position in a list, or in the order in which names come up."""

  def __init__(self, image_names: Sequence[str] | None):
    require_several(image_names, 'image_names')
    self._is_closed = bool(image_names)
    self._ids = {name_matching.nfc(name): position for position, name in enumerate(image_names or ())}
    self._kind: type | None = None

  def of(self, images: Images, where: str) -> npt.NDArray[np.int64]:
    """Returns int64 [L], the ids of images that are given by name or by id.

    Raises:
      ValueError: a name is unknown, or names and ids are mixed; the message begins with `where`.
    """
    if isinstance(images, str):
      raise ValueError(f'{where}: expected a list of images, found the text {images!r}')
    if not len(images):
      return np.zeros(0, np.int64)
    if not isinstance(images[0], str):
      self._require_kind(int, where)
      return np.asarray(images, np.int64)
    self._require_kind(str, where)
    ids = []
    for name in images:
      key = name_matching.nfc(str(name))
      if self._is_closed and key not in self._ids:
        raise ValueError(f'{where}: {name!r} is not among the {len(self._ids)} image names')
      ids.append(self._ids.setdefault(key, len(self._ids)))
    return np.array(ids, np.int64)

  def _require_kind(self, kind: type, where: str) -> None:
    if self._is_closed:
      return
    if self._kind not in (None, kind):
      kinds = {int: 'image ids', str: 'names'}
      raise ValueError(
        f'{where}: expected {kinds[int if kind is str else str]} as elsewhere, found {kinds[kind]}; give'
        ' image_names, the names of all index images in the order of their ids'
      )
    self._kind = kind
