"""Approximate assignment to visual words: only the words of some cells are compared, several times faster."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import faiss
import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.assignment import (
  ExactAssigner,
  blocks,
  checked_centroids,
  checked_descriptors,
  refine,
)


class ApproximateAssigner:
  """Nearest words by an inverted file of product-quantised centroids, then by definition.

  The centroids are grouped into 1.5 sqrt(K) cells; a feature visits the `num_probes` nearest cells, scans
  4-bit codes of the centroids in registers (Andre et al., "Cache locality is not enough: high-performance
  nearest neighbor search with product quantization fast scan", VLDB 2015; faiss `IndexIVFPQFastScan`) and
  compares the best `num_candidates` by distance. Against HNSW over the centroids this is several times
  faster at the same recall, builds in a tenth of the time, and the same input gives the same words:
  the index is built by one thread, and a feature's words do not depend on its neighbours in the batch.
  Below `EXACT_BELOW` words the cells save no time, so all words are compared.

  The recall depends on the descriptors and can be measured (`measure_recall`); more probes and candidates
  raise it.
  """

  EXACT_BELOW = 8192

  def __init__(
    self, centroids: npt.ArrayLike, *, seed: int = 0, num_probes: int = 40, num_candidates: int = 24
  ) -> None:
    """Groups and encodes the centroids.

    Args:
      centroids: float32 [K, D].
      seed: of the two k-means runs inside.
      num_probes: cells visited for each feature.
      num_candidates: words compared by distance for each feature; at least 4 m are compared.

    Raises:
      ValueError: the centroids are not a finite [K, D].
    """
    self._exact = ExactAssigner(centroids)
    self._centroids = checked_centroids(centroids)
    self._num_candidates = num_candidates
    self._index: faiss.IndexRefine | None = None
    if len(self._centroids) >= self.EXACT_BELOW:
      self._build(seed, num_probes)

  def _build(self, seed: int, num_probes: int) -> None:
    self._gaps = CoordinateGaps.between(self._centroids)
    vectors = self._prepared(self._centroids)
    num_words, dimensions = vectors.shape
    num_cells = 3 * math.isqrt(num_words) // 2
    self._cells = faiss.IndexFlatL2(dimensions)  # kept here: the indexes of faiss do not own their parts
    self._codes = faiss.IndexIVFPQFastScan(self._cells, dimensions, num_cells, dimensions // 2, 4)
    for clustering in (self._codes.cp, self._codes.pq.cp):
      clustering.seed = seed
      clustering.niter = 25
      clustering.min_points_per_centroid = 1  # no warnings on stderr
    self._vectors = faiss.IndexFlatL2(dimensions)
    with single_threaded():
      self._codes.train(vectors)
      self._codes.add(vectors)
    self._vectors.add(vectors)
    self._codes.nprobe = min(num_probes, num_cells)
    # Feature by feature; the automatic choice would make the scan depend on the size of the batch.
    self._codes.implem = 10
    self._index = faiss.IndexRefine(self._codes, self._vectors)

  def __call__(self, descriptors: npt.ArrayLike, num_assignments: int = 1) -> npt.NDArray[np.int32]:
    """Returns words int32 [N, m], nearest first; errors are those of `assign`."""
    if self._index is None:
      return self._exact(descriptors, num_assignments)
    descriptors = checked_descriptors(descriptors, self._centroids, num_assignments)
    words = np.empty((len(descriptors), num_assignments), np.int32)
    for block in blocks(np.arange(len(descriptors)), 65536):
      words[block] = self._nearest(self._index, descriptors[block], num_assignments)
    return words

  assign = __call__

  def _nearest(
    self, index: faiss.IndexRefine, descriptors: npt.NDArray[np.float32], num_assignments: int
  ) -> npt.NDArray[np.int32]:
    num_proposed = num_assignments + 1  # the product's rounding may exchange the last two
    num_scanned = max(self._num_candidates, 4 * num_assignments, num_proposed)
    index.k_factor = num_scanned / num_proposed
    _, candidates = index.search(self._prepared(descriptors), num_proposed)
    short = np.flatnonzero(candidates[:, -1] < 0)  # the cells visited hold too few words
    candidates[short] = np.arange(num_proposed)
    words, _ = refine(descriptors, self._centroids, candidates, num_assignments)
    words[short] = self._exact(descriptors[short], num_assignments)
    return words

  def measure_recall(self, descriptors: npt.ArrayLike) -> float:
    """Returns recall@1: the share of descriptors float32 [N, D] that get their nearest word, 1 if N = 0."""
    if np.shape(descriptors)[0] == 0:
      return 1.0
    return float(np.mean(self(descriptors) == self._exact(descriptors)))

  def _prepared(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns vectors without wide gaps and with an even D, since two dimensions make one 4-bit code."""
    vectors = self._gaps.narrow(vectors)
    return np.pad(vectors, ((0, 0), (0, 1))) if vectors.shape[1] % 2 else vectors

  def __repr__(self) -> str:
    num_words, dimensions = self._centroids.shape
    how = 'exact' if self._index is None else f'cells={self._codes.nlist}, probes={self._codes.nprobe}'
    return f'ApproximateAssigner(K={num_words}, D={dimensions}, {how})'


@dataclasses.dataclass(frozen=True)
class CoordinateGaps:
  """Wide empty intervals of single coordinates, where words of two kinds of features lie apart.

  extractors/joined.py moves one kind away by a constant. The tables of distances that are scanned have 8
  bits, which the constant would use up: recall@1 fell from 1.00 to 0.63 on 8,192 words. Narrowing a gap
  keeps all distances within a kind. It stays as wide as the rest of its coordinate's range: where it was
  closed, 6 of 3,000 descriptors found the other kind's words only.

  Attributes:
    middles: float32 [D], the middle of the largest gap of each coordinate.
    excess: float32 [D], how much wider that gap is than the rest of the coordinate's range, else 0.
  """

  middles: npt.NDArray[np.float32]
  excess: npt.NDArray[np.float32]

  @classmethod
  def between(cls, vectors: npt.NDArray[np.float32]) -> 'CoordinateGaps':
    """Finds the gaps of float32 [K, D]."""
    values = np.sort(vectors.T, axis=1)
    steps = np.diff(values, axis=1, append=values[:, -1:])
    largest = steps.argmax(axis=1)[:, None]
    widths = np.take_along_axis(steps, largest, axis=1)
    middles = np.take_along_axis(values, largest, axis=1) + widths / np.float32(2)
    rests = values[:, -1:] - values[:, :1] - widths
    return cls(middles[:, 0], np.maximum(widths - rests, 0)[:, 0])

  def narrow(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns float32 [N, D] without the excess of the gaps; the array itself if there is none."""
    if not self.excess.any():
      return vectors
    narrowed: npt.NDArray[np.float32] = vectors - self.excess * (vectors > self.middles)
    return narrowed


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
  """Runs faiss with one thread inside the block, where results would depend on scheduling."""
  before = faiss.omp_get_max_threads()
  faiss.omp_set_num_threads(1)
  try:
    yield
  finally:
    faiss.omp_set_num_threads(before)
