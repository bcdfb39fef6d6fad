"""From scores to the first k images: the best entry of each image, and selection without a full sort."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.compiled import HAVE_NUMBA, njit

# As many images are ranked without numba, whose functions take a while to load.
FEW = 4096

_kept = threading.local()


def top_k(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
  """Returns the positions of the k largest scores, int64 [min(k, n)], equal scores in order of position.

  The result is the beginning of the full ranking for any k: of equal scores at the cut, too, the first
  positions are taken.

  Raises:
    ValueError: k is negative.

  The k-th largest of 4 k maxima over disjoint parts of the scores is a lower bound of the k-th largest
  score, and a close one, so that few scores exceed it and have to be sorted. This is ten times faster than a
  partition.
  """
  if k < 0:
    raise ValueError(f'k: expected at least 0, found {k}')
  columns = 4 * k
  rows = len(scores) // columns if k else 0
  if rows < 2:
    return descending(scores)[:k]
  maxima = scores[: rows * columns].reshape(rows, columns).max(axis=0)
  bound = np.partition(maxima, columns - k)[columns - k]
  candidates = np.flatnonzero(scores > bound)
  if len(candidates) < k:
    equal = np.flatnonzero(scores == bound)[: k - len(candidates)]
    candidates = np.concatenate([candidates, equal])
  return candidates[np.lexsort((candidates, -scores[candidates]))[:k]]


def descending(scores: npt.NDArray[Any], *, compiled: bool | None = None) -> npt.NDArray[np.int64]:
  """Returns the positions of all scores, the largest first: int64 [n] from floats [n].

  Equal scores, to which 0 and -0 belong, are in order of position; NaN is last. This is the order of
  `np.argsort(-scores, kind='stable')`, many times faster: the rank of a score and its position are packed
  into one integer, and integers are sorted by digits. Scores of more than 32 bits are sorted by their values
  rounded to float32, and the scores that this makes equal are put in order afterwards.

  Args:
    scores: floats [n], fewer than 2^32.
    compiled: take the path that numba compiles, by default for many scores; both give the same order.
  """
  with np.errstate(over='ignore', invalid='ignore'):  # to infinity, in order; signalling NaN
    rounded = np.ascontiguousarray(scores, np.float32)
  if HAVE_NUMBA and len(scores) > FEW if compiled is None else compiled:
    order = np.empty(len(scores), np.int64)
    _sort_by_digits(rounded.view(np.uint32), order.view(np.uint64), _scratch(len(scores)))
  else:
    order = _sort_integers(rounded)
  if scores.dtype.itemsize > 4:
    _order_equal_ones(order, rounded, scores)
  return order


def _scratch(count: int) -> npt.NDArray[np.uint64]:
  """Returns working space that the thread keeps: new pages for each query take as long as the sort."""
  space: npt.NDArray[np.uint64] | None = getattr(_kept, 'space', None)
  if space is None or len(space) < count:
    space = _kept.space = np.empty(count, np.uint64)
  return space


def _sort_integers(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
  """Returns `descending` of float32 scores by one sort, for which NumPy has vector instructions."""
  # 0 - x, unlike -x, makes 0 of both zeros.
  negated = np.float32(0) - scores
  negated[np.isnan(negated)] = np.nan  # all of the same bits
  bits = negated.view(np.int32)
  # The bits of negative floats fall as the floats rise.
  order = (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64)
  order <<= 32
  order |= np.arange(len(scores), dtype=np.int64)
  order.sort()
  order &= 0xFFFFFFFF
  return order


@njit
def _rank(bits: np.uint32) -> np.uint32:
  """Returns an integer that falls as the float32 of these bits rises: the largest one for NaN."""
  sign = np.uint32(0x80000000)
  if bits & ~sign > np.uint32(0x7F800000):
    return np.uint32(0xFFFFFFFF)
  if bits > sign:
    return bits
  return sign - np.uint32(1) - (bits & ~sign)


@njit
def _sort_by_digits(
  bits: npt.NDArray[np.uint32], order: npt.NDArray[np.uint64], scratch: npt.NDArray[np.uint64]
) -> None:
  """Writes the stable order of float32 values, descending: a radix sort of three digits of 11 bits.

  `scratch` has at least the length of the others.
  """
  digit, half = np.uint32(2047), np.uint64(32)
  cursors = np.zeros((3, 2048), np.int64)
  for i in range(bits.size):
    rank = _rank(bits[i])
    cursors[0, rank & digit] += 1
    cursors[1, (rank >> np.uint32(11)) & digit] += 1
    cursors[2, rank >> np.uint32(22)] += 1
  for which in range(3):
    total = 0
    for value in range(2048):
      count = cursors[which, value]
      cursors[which, value] = total
      total += count
  for i in range(bits.size):
    rank = _rank(bits[i])
    to = cursors[0, rank & digit]
    cursors[0, rank & digit] = to + 1
    order[np.uint64(to)] = np.uint64(rank) << half | np.uint64(i)
  for i in range(bits.size):
    item = order[i]
    value = (item >> np.uint64(43)) & np.uint64(2047)
    to = cursors[1, value]
    cursors[1, value] = to + 1
    scratch[np.uint64(to)] = item
  for i in range(bits.size):
    item = scratch[i]
    value = item >> np.uint64(54)
    to = cursors[2, value]
    cursors[2, value] = to + 1
    order[np.uint64(to)] = item & np.uint64(0xFFFFFFFF)


def _order_equal_ones(
  order: npt.NDArray[np.int64], rounded: npt.NDArray[np.float32], exact: npt.NDArray[Any]
) -> None:
  """Puts an order by rounded scores into that of the exact ones, in place; equal ones by position.

  Args:
    order: int64 [n], positions in descending order of `rounded`.
    rounded: float32 [n].
    exact: floats [n], of which `rounded` is rounded.
  """
  values = exact[order]
  rises = np.flatnonzero(values[1:] > values[:-1])
  if not len(rises):
    return
  runs = np.zeros(len(order), np.int64)  # the number of the run of equal rounded values that each is in
  np.cumsum(rounded[order[1:]] != rounded[order[:-1]], out=runs[1:])
  is_wrong = np.zeros(runs[-1] + 1, bool)
  is_wrong[runs[rises]] = True
  places = np.flatnonzero(is_wrong[runs])
  own = order[places]
  order[places] = own[np.lexsort((own, -exact[own], runs[places]))]


def best_scores(
  scores: npt.NDArray[np.float32], offsets: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float32]:
  """Returns the score of the best entry of each image.

  Args:
    scores: float32 [E].
    offsets: integer [M + 1]; image m owns entries `offsets[m]:offsets[m + 1]`.

  Returns:
    float32 [M], 0 for an image without entries.
  """
  best = np.zeros(len(offsets) - 1, np.float32)
  owning = np.flatnonzero(offsets[1:] > offsets[:-1])
  if len(owning):
    best[owning] = np.maximum.reduceat(scores, offsets[owning].astype(np.int64))
  return best


def best_entries(
  images: npt.NDArray[np.int64],
  best: npt.NDArray[np.float32],
  scores: npt.NDArray[np.float32],
  offsets: npt.NDArray[np.integer[Any]],
  *,
  compiled: bool | None = None,
) -> npt.NDArray[np.int64]:
  """Finds the entries that have the best scores.

  Args:
    images: int64 [k], ids of images.
    best: float32 [k], their `best_scores`.
    scores, offsets: those of `best_scores`.
    compiled: take the path that numba compiles, by default for many images; both find the same.

  Returns:
    int64 [k], the first entry of equal ones, -1 for an image without entries.
  """
  if HAVE_NUMBA and len(images) > FEW if compiled is None else compiled:
    return _best_entries(images, best, scores, offsets)
  starts = offsets[images].astype(np.int64)
  counts = offsets[images + 1].astype(np.int64) - starts
  askers = np.repeat(np.arange(len(images)), counts)
  entries = np.arange(len(askers)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
  hits = np.flatnonzero(scores[entries] == best[askers])
  # Written from the last to the first, so that the first stays.
  found = np.full(len(images), -1, np.int64)
  found[askers[hits[::-1]]] = entries[hits[::-1]]
  return found


@njit
def _best_entries(
  images: npt.NDArray[np.int64],
  best: npt.NDArray[np.float32],
  scores: npt.NDArray[np.float32],
  offsets: npt.NDArray[np.integer[Any]],
) -> npt.NDArray[np.int64]:
  found = np.full(images.size, -1, np.int64)
  for i in range(images.size):
    for entry in range(np.int64(offsets[images[i]]), np.int64(offsets[images[i] + 1])):
      if scores[entry] == best[i]:
        found[i] = entry
        break
  return found
