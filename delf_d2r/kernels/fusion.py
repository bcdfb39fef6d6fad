"""One score of two: those of a local and of a global search, made comparable and added.

    s = f(a) + w g(f(b)),  or the norm of order n of these two parts,

with the scores a, b of an image in both searches and f(x) = (x - mean) / standard deviation, so that the sum
does not depend on the unit of a kernel. Mean and deviation are those of the scores of all images for the
query (`z_scores`), or those that a background model predicts for unrelated images (background.py). g is the
identity, or a power of what is positive (`positive_power`).
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.background import Expected, ExpectedOfImages


@dataclasses.dataclass(frozen=True)
class FusedScores:
  """The scores of M images and their two parts, of which they are the sum or another norm.

  Attributes:
    scores: float32 [M].
    local_scores: float32 [M], f(a).
    global_scores: float32 [M], w g(f(b)).
  """

  scores: npt.NDArray[np.float32]
  local_scores: npt.NDArray[np.float32]
  global_scores: npt.NDArray[np.float32]


def add(
  first: npt.NDArray[np.float64], other: npt.NDArray[np.float64], weight: float, *, norm_order: float = 1
) -> FusedScores:
  """Returns f(a) + w g(f(b)), or with another order n the norm of both, computed in float64:

    s = (max(x, 0)^n + max(y, 0)^n)^(1/n) + min(x, 0) + min(y, 0)     of the parts x and y

  which is x + y for n = 1, and near the greater of both for a large n. What is negative is added as it is, so
  that a higher part never lowers the sum.

  Args:
    first: float64 [M], f(a).
    other: float64 [M], g(f(b)).
    weight: w.
    norm_order: n, at least 1.
  """
  weighted = weight * other
  total = first + weighted
  if norm_order != 1:
    parts = np.maximum([first, weighted], 0)
    high, low = parts.max(axis=0), parts.min(axis=0)
    # By the ratio of both, so that no power overflows.
    ratio = np.divide(low, high, out=np.zeros_like(low), where=high > 0)
    total = (
      high * (1 + ratio**norm_order) ** (1 / norm_order) + np.minimum(first, 0) + np.minimum(weighted, 0)
    )
  return FusedScores(*(part.astype(np.float32) for part in (total, first, weighted)))


def positive_power(scores: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
  """Returns max(z, 0)^power of standardised scores, float64 [M]; z itself for a power of 1: float64 [M].

  For a power of 2 it is twice the log-likelihood ratio of a score under a Gaussian around itself and under
  that of unrelated images: scores near 0 say little, scores far above it much, and those below it nothing.
  """
  if power == 1:
    return scores
  powered: npt.NDArray[np.float64] = np.maximum(scores, 0) ** power
  return powered


def z_scores(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
  """Returns (x - mean) / standard deviation over all scores, float [M]; 0 where all are equal: float64 [M].

  Equal scores rank nothing.
  """
  values: npt.NDArray[np.float64] = scores.astype(np.float64)
  if not len(values):
    return values
  centered: npt.NDArray[np.float64] = values - values.mean()
  deviation = float(values.std())
  return centered / deviation if deviation > 0 else centered


def standardized(scores: npt.NDArray[Any], mean: float, deviation: float) -> npt.NDArray[np.float64]:
  """Returns (x - mean) / deviation of scores, float [M]; 0 if the deviation is 0: float64 [M].

  A deviation of 0 means that the query has nothing to compare, so that it ranks nothing.

  Args:
    scores: of M images.
    mean, deviation: of the scores of unrelated images; the deviation is not negative.
  """
  values: npt.NDArray[np.float64] = scores.astype(np.float64)
  return (values - mean) / deviation if deviation > 0 else np.zeros(len(values))


def symmetric(scores: npt.NDArray[Any], query: Expected, images: ExpectedOfImages) -> npt.NDArray[np.float64]:
  """Returns the mean of scores standardised by the query and by each image: float64 [M].

  A side whose deviation is 0 has nothing to compare, and gives 0 (`standardized`).

  Args:
    scores: float [M].
    query: what the query scores with unrelated images.
    images: what each image scores with unrelated ones.

  Raises:
    ValueError: the numbers of scores and images differ.
  """
  if len(scores) != len(images.means):
    raise ValueError(
      f'symmetric: expected the statistics of {len(scores)} images, found {len(images.means)}; compute them'
      ' from the index that was searched'
    )
  centered = scores.astype(np.float64) - images.means
  of_images = np.divide(centered, images.deviations, out=np.zeros_like(centered), where=images.deviations > 0)
  return (standardized(scores, query.mean, query.deviation) + of_images) / 2
