"""What scores a query has with images that show something else: mean and deviation, in closed form.

They are predicted from statistics of background images, and so depend on the query alone and not on the
images of an index. A score is a sum over the words k that query X and image Y share (similarity.py),

    s = gamma(X) gamma(Y) sum over k of  sigma(u_k)

with gamma = 1 / sqrt(W), or 1 where scores are not normalised. With

    P_k = mean over background images Y of  [k in Y] gamma(Y)
    Q_k = mean over background images Y of  [k in Y] gamma(Y)^2
    m_k = mean of sigma(u_k) over the pairs of background images that share k
    t_k = mean of sigma(u_k)^2 over the same pairs

the scores of a query with unrelated images have, words being taken as independent,

    mean      gamma(X)   sum over k in X of  P_k m_k
    variance  gamma(X)^2 sum over k in X of  Q_k t_k - (P_k m_k)^2

The product of a global descriptor q with those of unrelated images has

    mean      <q, m>
    variance  q^T C q

with mean m and covariance C of the descriptors of background images.

The same holds with the roles exchanged: what an index image scores with unrelated queries. The mean of the
scores standardised by either side is symmetric, as the product is
(fusion.symmetric).

Standardising scores by a background, as by a cohort: Auckenthaler, Carey, Lloyd-Thomas, "Score normalization
for text-independent speaker verification systems", Digital Signal Processing 10, 2000.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.similarity import selectivity, selectivity_table
from delf_d2r.structures import AggregatedDescriptor

# Codes of a word of which all pairs are compared; more change little.
MOST_CODES = 256


@dataclasses.dataclass(frozen=True)
class Expected:
  """What the scores of unrelated images are like: their mean, and their standard deviation (not negative)."""

  mean: float
  deviation: float


@dataclasses.dataclass(frozen=True)
class ExpectedOfImages:
  """What M images score with unrelated ones.

  Attributes:
    means: float64 [M].
    deviations: float64 [M], not negative.
  """

  means: npt.NDArray[np.float64]
  deviations: npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class WordStatistics:
  """Statistics of K visual words over background images, for a kernel of the ASMK family.

  Attributes:
    presence: float32 [K], P_k.
    square_presence: float32 [K], Q_k.
    means: float32 [K], m_k; 0 for a word that fewer than two images have.
    square_means: float32 [K], t_k; likewise.
    normalize: whether scores are divided by the norms of both sides.
  """

  presence: npt.NDArray[np.float32]
  square_presence: npt.NDArray[np.float32]
  means: npt.NDArray[np.float32]
  square_means: npt.NDArray[np.float32]
  normalize: bool

  def expected(self, words: npt.NDArray[np.integer]) -> Expected:
    """Returns what the scores of a query with unrelated images are like.

    Args:
      words: integer [W], the words of the query, each below K.
    """
    terms = self.presence[words].astype(np.float64) * self.means[words]
    squares = self.square_presence[words].astype(np.float64) * self.square_means[words]
    variance = max(float((squares - terms**2).sum()), 0.0)
    norm = 1 / math.sqrt(len(words)) if self.normalize and len(words) else 1.0
    return Expected(norm * float(terms.sum()), norm * math.sqrt(variance))


@dataclasses.dataclass(frozen=True)
class DescriptorStatistics:
  """Statistics of the global descriptors of background images.

  Attributes:
    mean: float32 [D].
    covariance: float32 [D, D].
  """

  mean: npt.NDArray[np.float32]
  covariance: npt.NDArray[np.float32]

  def expected(self, query: npt.NDArray[np.float32]) -> Expected:
    """Returns what the products of a query, float32 [D], with unrelated descriptors are like."""
    values = query.astype(np.float64)
    variance = float(values @ self.covariance.astype(np.float64) @ values)
    return Expected(float(values @ self.mean), math.sqrt(max(variance, 0.0)))

  def expected_of_images(self, blocks: Iterable[npt.NDArray[np.float32]]) -> ExpectedOfImages:
    """Returns what images score with unrelated ones: `expected` of each of them.

    Takes D^2 multiplications for each image.

    Args:
      blocks: float32 [n, D], the descriptors of the images in parts; rows of zeros for images without one.
    """
    covariance, mean = self.covariance.astype(np.float64), self.mean.astype(np.float64)
    means, variances = [np.zeros(0)], [np.zeros(0)]
    for block in blocks:
      values = block.astype(np.float64)
      means.append(values @ mean)
      variances.append(np.einsum('nd,nd->n', values @ covariance, values))
    return ExpectedOfImages(np.concatenate(means), np.sqrt(np.maximum(np.concatenate(variances), 0)))


def word_statistics(
  images: Sequence[AggregatedDescriptor],
  num_words: int,
  *,
  kernel: Kernel,
  alpha: float,
  tau: float,
  normalize: bool,
  seed: int = 0,
) -> WordStatistics:
  """Measures the statistics of visual words.

  Args:
    images: descriptors of N background images that show different things, of one dimensionality D.
    num_words: K.
    kernel: of the descriptors: ASMK or ASMK_STAR.
    alpha, tau: of the selectivity.
    normalize: whether scores are divided by the norms of both sides.
    seed: of the choice of codes where a word has more than `MOST_CODES`.

  Raises:
    ValueError: there are fewer than two images, or the kernel is VLAD.
  """
  if len(images) < 2 or not kernel.is_selective:
    raise ValueError(
      f'word_statistics: expected at least 2 images of ASMK or ASMK_STAR, found {len(images)} of'
      f' {kernel.name}; give more photos, aggregated by another kernel'
    )
  # In random order, so that the first codes of a word are a sample of all.
  shuffled = [images[image] for image in np.random.default_rng(seed).permutation(len(images))]
  counts = np.array([len(image) for image in shuffled], np.int64)
  words = np.concatenate([image.visual_words for image in shuffled]).astype(np.int64)
  values = np.concatenate([image.values for image in shuffled])
  norms = np.repeat(1 / np.sqrt(np.maximum(counts, 1)) if normalize else np.ones(len(counts)), counts)
  presence, square_presence = (
    np.bincount(words, weights, minlength=num_words) / len(images) for weights in (norms, norms**2)
  )
  by_word = np.argsort(words, kind='stable')
  sizes = np.bincount(words, minlength=num_words)
  starts = np.cumsum(sizes) - sizes
  means, square_means = np.zeros((2, num_words))
  dimensions = images[0].dimensions
  for word in np.flatnonzero(sizes > 1).tolist():
    codes = values[by_word[starts[word] : starts[word] + min(sizes[word], MOST_CODES)]]
    similarities = _pair_similarities(codes, dimensions, kernel, alpha, tau)
    means[word], square_means[word] = similarities.mean(), (similarities**2).mean()
  return WordStatistics(
    presence.astype(np.float32),
    square_presence.astype(np.float32),
    means.astype(np.float32),
    square_means.astype(np.float32),
    normalize,
  )


def _pair_similarities(
  codes: npt.NDArray[Any], dimensions: int, kernel: Kernel, alpha: float, tau: float
) -> npt.NDArray[np.float64]:
  """Returns sigma(u) of all pairs of the codes [n, columns] of a word: float64 [n (n - 1) / 2]."""
  first, second = np.triu_indices(len(codes), 1)
  if kernel.is_binary:
    differences = np.bitwise_xor(codes[first], codes[second])
    distances = np.bitwise_count(differences).sum(axis=1, dtype=np.int64)
    table = selectivity_table(dimensions, alpha=alpha, tau=tau)
    of_codes: npt.NDArray[np.float64] = table[distances].astype(np.float64)
    return of_codes
  products = np.einsum('wd,wd->w', codes[first], codes[second])
  similarities: npt.NDArray[np.float64] = selectivity(products, alpha=alpha, tau=tau).astype(np.float64)
  return similarities


def descriptor_statistics(descriptors: npt.NDArray[np.float32]) -> DescriptorStatistics:
  """Measures mean and covariance of descriptors, float32 [N, D] of N background images.

  Raises:
    ValueError: there are fewer than two descriptors.
  """
  if len(descriptors) < 2:
    raise ValueError(
      f'descriptor_statistics: expected at least 2 descriptors, found {len(descriptors)}; give more photos'
    )
  values = descriptors.astype(np.float64)
  mean = values.mean(axis=0)
  centered = values - mean
  covariance = centered.T @ centered / len(values)
  return DescriptorStatistics(mean.astype(np.float32), covariance.astype(np.float32))
