"""From scores to the first k images: best image of several entries, selection without a full sort."""

import numpy as np

from delf_d2r.kernels.compiled import HAVE_NUMBA, njit


def top_k(scores: np.ndarray, k: int, *, compiled: bool = HAVE_NUMBA) -> np.ndarray:
  """Positions of the k largest scores, int64 [min(k, n)]; equal scores stand in order of position.

  The result is the beginning of the full ranking for any k: position decides at the cut, too.
  """
  n = len(scores)
  if 2 * k >= n:
    return np.argsort(-scores, kind='stable')[:k]
  if k <= 0:
    return np.zeros(0, np.int64)
  if compiled:
    chosen = _heap_top_k(scores, k)
  else:
    cut = np.partition(scores, n - k)[n - k]
    above = np.flatnonzero(scores > cut)
    chosen = np.concatenate([above, np.flatnonzero(scores == cut)[: k - len(above)]])
  return chosen[np.lexsort((chosen, -scores[chosen]))]


def best_entries(scores: np.ndarray, image_offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The best entry of each image.

  Args:
    scores: float32 [E].
    image_offsets: integer [M + 1]; image m owns entries `image_offsets[m]:image_offsets[m + 1]`.

  Returns:
    float32 [M] the scores, 0 for an image without entries, and int64 [M] the entries, the first of
    equal ones, -1 for an image without entries.
  """
  offsets = np.asarray(image_offsets, np.int64)
  best = np.zeros(len(offsets) - 1, np.float32)
  entries = np.full(len(offsets) - 1, -1, np.int64)
  owning = np.flatnonzero(offsets[1:] > offsets[:-1])
  if len(owning):
    best[owning] = np.maximum.reduceat(scores, offsets[owning])
    owners = np.repeat(np.arange(len(best)), np.diff(offsets))
    winners = np.flatnonzero(scores == best[owners])
    images, first = np.unique(owners[winners], return_index=True)
    entries[images] = winners[first]
  return best, entries


@njit
def _heap_top_k(scores, k):
  """Positions of the k best scores in a heap whose root is the worst: lowest score, last position.

  Positions come in ascending order, so a later equal score never displaces an earlier one.
  """
  heap = np.empty(k, np.int64)
  size = 0
  for position in range(scores.size):
    score = scores[position]
    if size < k:
      child = size
      size += 1
      while child > 0:
        parent = (child - 1) // 2
        # A newcomer is the last position, so it rises past every parent of an equal score.
        if scores[heap[parent]] < score:
          break
        heap[child] = heap[parent]
        child = parent
      heap[child] = position
    elif score > scores[heap[0]]:
      # Sink the newcomer from the root to where no child is worse.
      at = 0
      while True:
        child = 2 * at + 1
        if child >= k:
          break
        if child + 1 < k:
          left, right = heap[child], heap[child + 1]
          if scores[right] < scores[left] or (scores[right] == scores[left] and right > left):
            child += 1
        # An equal child is the earlier position, hence the better one: it stays below.
        if scores[heap[child]] >= score:
          break
        heap[at] = heap[child]
        at = child
      heap[at] = position
  return heap
