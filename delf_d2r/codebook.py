"""The codebook: visual words of local descriptors, and a report on how well they quantise them."""

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels import kmeans
from delf_d2r.kernels.assignment import Assigner, ExactAssigner
from delf_d2r.kernels.finite import require_finite

Assignment = Literal['exact', 'approximate']


@dataclasses.dataclass(frozen=True)
class Codebook:
  """The visual words of local descriptors: k-means centroids, and how they were trained.

  Attributes:
    centroids: float32 [K, D], one visual word per row.
    loss: mean squared distance of the training descriptors to their words at the start of each iteration.
    num_descriptors: number of training descriptors after subsampling.
    assignment: how descriptors were assigned during training, 'exact' or 'approximate'.
    seed: the seed of the subsample, of the first centroids and of the splits of empty words.
  """

  centroids: npt.NDArray[np.float32]
  loss: tuple[float, ...] = ()
  num_descriptors: int = 0
  assignment: Assignment = 'exact'
  seed: int = 0

  def __post_init__(self) -> None:
    if self.centroids.ndim != 2 or 0 in self.centroids.shape or self.centroids.dtype != np.float32:
      raise ValueError(
        f'Codebook.centroids: expected float32 [K, D] with K, D >= 1,'
        f' found {self.centroids.dtype} {self.centroids.shape}; train a codebook'
      )

  @classmethod
  def train(
    cls,
    descriptors: npt.ArrayLike,
    *,
    num_words: int,
    seed: int,
    iterations: int = 20,
    assignment: Assignment = 'exact',
    max_descriptors_per_word: int = 100,
  ) -> 'Codebook':
    """Trains a codebook by k-means (Lloyd's algorithm); the same input and seed give the same bytes.

    If there are more than K x `max_descriptors_per_word` descriptors, that many are drawn without replacement
    and kept in their order. For K = 65,536 and D = 128 the default draws 3.1 GiB, and training stays within
    8 GiB if `descriptors` is memory-mapped.

    Args:
      descriptors: float32 [N, D], an array or a memory map.
      num_words: K.
      seed: non-negative, below 2^31.
      iterations: number of iterations, at least 1.
      assignment: 'exact' or 'approximate'; use the latter from a few thousand words on.
      max_descriptors_per_word: limit of the number of training descriptors for each word.

    Returns:
      The codebook.

    Raises:
      ValueError: there are fewer descriptors than words, a value is not finite or so large that the loss
        would not be, or an option is out of its range.
    """
    array = descriptors if isinstance(descriptors, np.ndarray) else np.asarray(descriptors)
    _check_options(array, num_words, iterations, assignment, max_descriptors_per_word)
    rng = np.random.default_rng(seed)
    sample = _subsample(array, num_words * max_descriptors_per_word, rng)
    require_finite('descriptors', sample, num_summed=len(sample))
    lloyd = kmeans.exact if assignment == 'exact' else kmeans.approximate
    centroids, loss = lloyd(sample, num_words, iterations, rng)
    return cls(centroids, tuple(loss), len(sample), assignment, seed)

  def assign(self, descriptors: npt.ArrayLike, num_assignments: int = 1) -> npt.NDArray[np.int32]:
    """Returns the nearest visual words of local descriptors, by exact search.

    Args:
      descriptors: float32 [N, D].
      num_assignments: m, the number of words for each descriptor.

    Returns:
      int32 [N, m], nearest first.

    Raises:
      ValueError: the descriptors do not have D dimensions or are not finite, or m is not in [1, K].
    """
    return ExactAssigner(self.centroids)(np.asarray(descriptors, np.float32), num_assignments)

  @property
  def num_words(self) -> int:
    """K, the number of visual words."""
    return len(self.centroids)

  @property
  def dimensions(self) -> int:
    """D, the number of dimensions of a descriptor."""
    return int(self.centroids.shape[1])

  def __repr__(self) -> str:
    loss = f', loss={self.loss[0]:.6g}->{self.loss[-1]:.6g}' if self.loss else ''
    return f'Codebook(K={self.num_words}, D={self.dimensions}, N={self.num_descriptors}{loss})'


@dataclasses.dataclass(frozen=True)
class CodebookReport:
  """How a codebook quantises a set of descriptors.

  Attributes:
    num_words: K.
    num_descriptors: N.
    empty_words: words that no descriptor is assigned to.
    imbalance: K sum p_k^2, where p_k is the share of word k; 1 for equal shares, K for a single word.
    mean_squared_error: mean squared distance of a descriptor to its word.
    fewest, median, most: descriptors for each word.
  """

  num_words: int
  num_descriptors: int
  empty_words: int
  imbalance: float
  mean_squared_error: float
  fewest: int
  median: float
  most: int


def quality_report(
  codebook: Codebook, descriptors: npt.NDArray[np.float32], *, assigner: Assigner | None = None
) -> CodebookReport:
  """Measures how a codebook quantises descriptors, preferably not those that it was trained on.

  Args:
    codebook: the codebook.
    descriptors: float32 [N, D], N >= 1.
    assigner: assigns descriptors to words; None assigns exactly.

  Raises:
    ValueError: there are no descriptors, or they have another number of dimensions than the codebook.
  """
  if len(descriptors) == 0:
    raise ValueError('quality_report: expected at least one descriptor, found none; report on other images')
  values = np.asarray(descriptors, np.float32)
  assigner = assigner or ExactAssigner(codebook.centroids)
  words = assigner(values)[:, 0]
  counts = np.bincount(words, minlength=codebook.num_words)
  return CodebookReport(
    num_words=codebook.num_words,
    num_descriptors=len(descriptors),
    empty_words=int(np.count_nonzero(counts == 0)),
    imbalance=float(codebook.num_words * np.square(counts / len(descriptors)).sum()),
    mean_squared_error=kmeans.mean_squared_error(values, codebook.centroids, words),
    fewest=int(counts.min()),
    median=float(np.median(counts)),
    most=int(counts.max()),
  )


def _subsample(descriptors: npt.NDArray[Any], most: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
  if len(descriptors) > most:
    descriptors = descriptors[np.sort(rng.choice(len(descriptors), most, replace=False))]
  return np.ascontiguousarray(descriptors, np.float32)


def _check_options(
  descriptors: npt.NDArray[Any],
  num_words: int,
  iterations: int,
  assignment: str,
  max_descriptors_per_word: int,
) -> None:
  if np.ndim(descriptors) != 2 or np.shape(descriptors)[1] == 0:
    raise ValueError(
      f'descriptors: expected shape [N, D] with D >= 1, found {np.shape(descriptors)}; extract features first'
    )
  for name, value in (
    ('num_words', num_words),
    ('iterations', iterations),
    ('max_descriptors_per_word', max_descriptors_per_word),
  ):
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
      raise TypeError(f'{name}: expected a whole number, found {value!r}')
    if value < 1:
      raise ValueError(f'{name}: expected at least 1, found {value}; give a positive number')
  if len(descriptors) < num_words:
    raise ValueError(
      f'num_words: expected at most the number of descriptors, {len(descriptors)}, found {num_words};'
      ' train a smaller codebook or extract features from more images'
    )
  if assignment not in ('exact', 'approximate'):
    raise ValueError(f"assignment: expected 'exact' or 'approximate', found {assignment!r}; choose one")
