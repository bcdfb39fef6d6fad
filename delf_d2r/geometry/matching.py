"""Putative matches: the pairs of local features of two images that look alike, whatever their places."""

import dataclasses

import numpy as np
import numpy.typing as npt

from delf_d2r.geometry import candidates
from delf_d2r.geometry.candidates import Neighbours, Rows
from delf_d2r.geometry.distances import Floats

# 8 MB of products: two images of a thousand features are one piece, which is multiplied fastest.
_PRODUCTS_AT_A_TIME = 2**21
# With fewer pairs of features, or shorter descriptors, all are compared: it takes no longer.
_FEWEST_PAIRS = 2**17
_FEWEST_DIMENSIONS = 64


@dataclasses.dataclass(frozen=True)
class PutativeMatches:
  """Pairs of features, nearest descriptors first, equal distances in order of the query's feature.

  Attributes:
    query: int64 [P], features of the query.
    index: int64 [P], features of the index image.
    distances: float32 [P], Euclidean, between their descriptors.
    credible: bool [P], the pairs to search a transform among. The others are as near, but another neighbour
      of either feature may be the right one as well.
    mutual: bool [P], the pairs that are nearest to each other, whether they pass the ratio test or not; None
      where that is not known.
  """

  query: npt.NDArray[np.int64]
  index: npt.NDArray[np.int64]
  distances: npt.NDArray[np.float32]
  credible: npt.NDArray[np.bool_]
  mutual: npt.NDArray[np.bool_] | None = None

  def __len__(self) -> int:
    return len(self.query)


def match(
  query: npt.NDArray[np.float32],
  index: npt.NDArray[np.float32],
  *,
  max_distance: float = np.inf,
  ratio: float = 1.0,
  mutual: bool = True,
  all_mutual: bool = True,
  origins: npt.NDArray[np.float32] | None = None,
) -> PutativeMatches:
  """Pairs each feature of the query with its nearest neighbour in the index image.

  Where features are many, neighbours are looked for among those with the nearest binary codes, which finds
  nearly all that are right (candidates.py); otherwise a product of matrices gives all N x M distances. Of
  equally near neighbours the first is taken. A descriptor that is not finite matches nothing. Credible
  matches are one-to-one, unless `mutual` is off.

  Two kinds of features that were joined (extractors/joined.py) are at least 2 apart, and distances within a
  kind are those of the kind alone: with a `max_distance` below 2, kinds never mix.

  Args:
    query: float32 [N, D].
    index: float32 [M, D].
    max_distance: the distance that pairs must be below.
    ratio: in a credible pair, the second nearest neighbour is farther by more than the factor 1 / ratio
      (Lowe, IJCV 2004, section 7.1). 1 or more switches the test off.
    mutual: in a credible pair, the feature of the query is also the nearest to its neighbour; False switches
      the test off.
    all_mutual: tell the mutual pairs that are not credible, too, which takes longer.
    origins: float32 [K, D], the points around which the descriptors of each kind are. Kinds that cannot mix
      are matched one after the other. None: one kind.

  Raises:
    ValueError: the dimensions of the two differ.
  """
  if query.ndim != 2 or index.ndim != 2 or query.shape[1] != index.shape[1]:
    raise ValueError(
      f'expected descriptors of one dimension, found {query.shape} and {index.shape};'
      ' extract both images with the same extractor'
    )
  parts = [
    _match_kind(query, index, *rows, ratio=ratio, mutual=mutual, all_mutual=all_mutual)
    for rows in _rows_of_kinds(query, index, origins, reach=max_distance / min(ratio, 1))
  ]
  chosen, partners, distances, credible, one_to_one = map(np.concatenate, zip(*parts, strict=True))
  near = np.flatnonzero(distances < max_distance)
  order = near[np.lexsort((chosen[near], distances[near]))]
  return PutativeMatches(
    chosen[order],
    partners[order],
    distances[order],
    credible[order],
    one_to_one[order] if mutual and all_mutual else None,
  )


def _rows_of_kinds(
  query: Floats, index: Floats, origins: Floats | None, *, reach: float
) -> list[tuple[Rows, Rows]]:
  """Returns the finite rows of both, int64, of all kinds together or of each kind apart.

  Kinds are unit vectors around origins. They stay together if some of two kinds may be within `reach`, and
  at least one pair is returned, which may be empty.
  """
  rows = _finite_rows(query), _finite_rows(index)
  if origins is None or len(origins) < 2:
    return [rows]
  apart = np.linalg.norm(origins[:, None] - origins, axis=2)
  if apart[apart > 0].min(initial=np.inf) - 2 < reach:
    return [rows]
  telling = np.flatnonzero(np.ptp(origins, axis=0))
  kinds = []
  for descriptors, own in zip((query, index), rows, strict=True):
    places = descriptors[:, telling][own]
    kinds.append(np.square(places[:, None] - origins[:, telling]).sum(axis=2).argmin(axis=1))
  return [(rows[0][kinds[0] == kind], rows[1][kinds[1] == kind]) for kind in range(len(origins))]


def _match_kind(
  query: Floats,
  index: Floats,
  query_rows: Rows,
  index_rows: Rows,
  *,
  ratio: float,
  mutual: bool,
  all_mutual: bool,
) -> tuple[Rows, Rows, Floats, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
  """Returns pairs of rows in order of the query, their distances, and which are credible and one-to-one."""
  pairs = len(query_rows) * len(index_rows)
  if not pairs:
    nothing = np.zeros(0, np.int64)
    return nothing, nothing, np.zeros(0, np.float32), *np.zeros((2, 0), bool)
  if is_large := pairs >= _FEWEST_PAIRS and query.shape[1] >= _FEWEST_DIMENSIONS:
    asked = np.inf if all_mutual else ratio
    found = candidates.neighbours(query, query_rows, index, index_rows, ratio=asked if mutual else 0)
  else:
    found = _neighbours_of_all(query, query_rows, index, index_rows)
  credible = np.isfinite(found.best)
  kept = np.flatnonzero(credible)
  if mutual:
    credible &= found.best == found.best_of_nearest
    # Of rows that are equally near to one column, the first gets it.
    rows = np.flatnonzero(credible)
    first = np.full(len(index_rows), len(query_rows))
    np.minimum.at(first, found.nearest[rows], rows)
    credible[rows] = first[found.nearest[rows]] == rows
  one_to_one = credible.copy()
  if ratio < 1:
    credible &= found.best < ratio**2 * found.second
  chosen, partners = query_rows[kept], index_rows[found.nearest[kept]]
  if is_large:
    distances = np.sqrt(found.best[kept])
  else:
    # The product cancels digits where descriptors are nearly equal, so distances are computed by definition.
    apart = query[chosen] - index[partners]
    distances = np.sqrt(np.einsum('nd,nd->n', apart, apart))
  return chosen, partners, distances, credible[kept], one_to_one[kept]


def _neighbours_of_all(query: Floats, query_rows: Rows, index: Floats, index_rows: Rows) -> Neighbours:
  """Returns the neighbours among all of some rows, see `candidates.neighbours`.

  The product is computed in pieces, so that images of many features take no more memory than others.
  """
  # -d^2 / 2 = q.x - |q|^2 / 2 - |x|^2 / 2: two more columns make it a single product.
  left = _with_columns(query, query_rows, -_half_norms(query)[query_rows], 1)
  right = _with_columns(index, index_rows, 1, -_half_norms(index)[index_rows])
  count = len(left)
  nearest = np.empty(count, np.int64)
  best, second = np.empty((2, count), np.float32)
  best_of_index = np.full(len(right), -np.inf, np.float32)
  for start in range(0, count, step := max(_PRODUCTS_AT_A_TIME // len(right), 1)):
    piece = slice(start, start + step)
    closeness = left[piece] @ right.T
    rows = np.arange(len(closeness))
    nearest[piece] = closeness.argmax(axis=1)
    best[piece] = closeness[rows, nearest[piece]]
    np.maximum(best_of_index, closeness.max(axis=0), out=best_of_index)
    closeness[rows, nearest[piece]] = -np.inf
    second[piece] = closeness.max(axis=1)
  # Doubling loses no digit.
  return Neighbours(nearest, -2 * best, -2 * second, -2 * best_of_index[nearest])


def _with_columns(
  descriptors: npt.NDArray[np.float32],
  rows: npt.NDArray[np.int64],
  *columns: float | npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
  """Returns some rows with two more columns: float32 [R, D + 2]."""
  joined = np.empty((len(rows), descriptors.shape[1] + 2), np.float32)
  joined[:, :-2] = descriptors if len(rows) == len(descriptors) else descriptors[rows]
  joined[:, -2], joined[:, -1] = columns
  return joined


def _half_norms(descriptors: Floats) -> Floats:
  """Returns half of the squared norm of each row, float32 [R]."""
  with np.errstate(over='ignore', invalid='ignore'):
    half: Floats = np.einsum('nd,nd->n', descriptors, descriptors) / 2
  return half.astype(np.float32)


def _finite_rows(descriptors: Floats) -> Rows:
  """Returns the rows without NaN and infinity whose squared norm is finite, too."""
  values = np.ascontiguousarray(descriptors).ravel()
  with np.errstate(over='ignore', invalid='ignore'):
    if np.isfinite(values @ values):
      return np.arange(len(descriptors))
  return np.flatnonzero(np.isfinite(_half_norms(descriptors)))
