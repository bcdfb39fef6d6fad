"""Putative matches: the pairs of local features of two images that look alike, whatever their places."""

import dataclasses

import numpy as np
import numpy.typing as npt

# 8 MB of products: two images of a thousand features are one piece, which is multiplied fastest.
_PRODUCTS_AT_A_TIME = 2**21


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
) -> PutativeMatches:
  """Pairs each feature of the query with its nearest neighbour in the index image.

  A product of matrices gives all N x M distances. Of equally near neighbours the first is taken. A
  descriptor that is not finite matches nothing. Credible matches are one-to-one, unless `mutual` is off.

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

  Raises:
    ValueError: the dimensions of the two differ.
  """
  if query.ndim != 2 or index.ndim != 2 or query.shape[1] != index.shape[1]:
    raise ValueError(
      f'expected descriptors of one dimension, found {query.shape} and {index.shape};'
      ' extract both images with the same extractor'
    )
  query_rows, query_half = _finite_rows(query)
  index_rows, index_half = _finite_rows(index)
  if not len(query_rows) or not len(index_rows):
    nothing = np.zeros(0, np.int64)
    return PutativeMatches(nothing, nothing, np.zeros(0, np.float32), *np.zeros((2, 0), bool))
  # -d^2 / 2 = q.x - |q|^2 / 2 - |x|^2 / 2: two more columns make it a single product.
  left = _with_columns(query, query_rows, -query_half, 1)
  right = _with_columns(index, index_rows, 1, -index_half)
  nearest, best, second, best_of_index = _scan(left, right)
  kept = np.isfinite(best)
  credible = kept.copy()
  if mutual:
    credible &= best == best_of_index[nearest]
    # Of rows that are equally near to one column, the first gets it.
    rows = np.flatnonzero(credible)
    first = np.full(len(index_rows), len(query_rows))
    np.minimum.at(first, nearest[rows], rows)
    credible[rows] = first[nearest[rows]] == rows
  one_to_one = credible.copy() if mutual else None
  if ratio < 1:
    # Both sides are -d^2 / 2.
    credible &= best > ratio**2 * second
  chosen, partners = query_rows[kept], index_rows[nearest[kept]]
  # The product cancels digits where descriptors are nearly equal, so distances are computed by definition.
  apart = query[chosen] - index[partners]
  distances = np.sqrt(np.einsum('nd,nd->n', apart, apart))
  near = np.flatnonzero(distances < max_distance)
  order = near[np.argsort(distances[near], kind='stable')]
  return PutativeMatches(
    chosen[order],
    partners[order],
    distances[order],
    credible[kept][order],
    None if one_to_one is None else one_to_one[kept][order],
  )


def _scan(
  left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
  """Returns the position of the maximum of each row of `left` @ `right`.T [N, M], and the largest values.

  The values are the two largest of each row and the largest of each column. The product is computed in
  pieces, so that images of many features take no more memory than others.
  """
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
  return nearest, best, second, best_of_index


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


def _finite_rows(
  descriptors: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
  """Returns the rows without NaN and infinity, int64 [R], and half of their squared norms, float32 [R]."""
  with np.errstate(over='ignore', invalid='ignore'):
    half = np.einsum('nd,nd->n', descriptors, descriptors) / 2
  rows = np.flatnonzero(np.isfinite(half))
  return rows, half[rows].astype(np.float32)
