"""Principal components: dimensionality reduction and whitening of descriptors."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.finite import require_finite
from delf_d2r.kernels.norms import row_squared_norms
from delf_d2r.structures import _require_shape


@dataclasses.dataclass(frozen=True)
class Pca:
  """A linear map of descriptors to fewer, uncorrelated dimensions.

  Attributes:
    mean: float32 [D].
    components: float32 [d, D], orthonormal rows, largest variance first; those of a learned whitening are
      scaled and not orthogonal.
    variances: float32 [d], the variance along each component; None where they are not known.
  """

  mean: npt.NDArray[np.float32]
  components: npt.NDArray[np.float32]
  variances: npt.NDArray[np.float32] | None = None

  def __post_init__(self) -> None:
    _require_shape('Pca', 'components', self.components, (None, len(self.mean)))
    if self.variances is not None:
      _require_shape('Pca', 'variances', self.variances, (len(self.components),))

  @property
  def input_dimensions(self) -> int:
    return len(self.mean)

  @property
  def dimensions(self) -> int:
    return len(self.components)

  def truncated(self, dimensions: int) -> 'Pca':
    """Returns the PCA of the first `dimensions` components; 0 = all.

    Raises:
      ValueError: there are fewer, or `dimensions` is negative.
    """
    if not 0 <= dimensions <= self.dimensions:
      raise ValueError(
        f'{dimensions} dimensions are wanted, but the PCA has {self.dimensions} components; ask for 0 (all)'
        f' to {self.dimensions}'
      )
    kept = dimensions or self.dimensions
    variances = None if self.variances is None else self.variances[:kept]
    return Pca(self.mean, self.components[:kept], variances)

  def as_affine(self, *, whitening: bool) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns float32 (A [D, d], b [d]) with projection(x) = x A + b.

    Raises:
      ValueError: whitening without variances, or with one that is not positive.
    """
    matrix = self.components.T.astype(np.float64)
    if whitening:
      if self.variances is None:
        raise ValueError(
          'whitening needs the variances of the components, which this PCA lacks; train it again'
        )
      if not np.all(self.variances > 0):
        raise ValueError(
          f'whitening divides by standard deviations, but component {int(np.argmin(self.variances))} has'
          f' variance {np.min(self.variances):g}; keep fewer dimensions'
        )
      matrix = matrix / np.sqrt(self.variances)
    return matrix.astype(np.float32), (-self.mean @ matrix).astype(np.float32)


def normalize(descriptors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
  """Normalises the rows of float32 [N, D]: x / sqrt(max(sum x^2, 1e-12)), TensorFlow's l2_normalize."""
  squares = row_squared_norms(descriptors)
  lengths: npt.NDArray[Any] = np.sqrt(np.maximum(squares, 1e-12))
  normalized: npt.NDArray[np.float32] = descriptors / lengths[:, None]
  return normalized


class Covariance:
  """Mean and covariance of descriptors that arrive in parts, in float64 (Chan, Golub and LeVeque, 1979).

  Attributes:
    dimensions: D.
    count: descriptors so far.
  """

  def __init__(self, dimensions: int) -> None:
    self.dimensions = dimensions
    self.count = 0
    self._mean = np.zeros(dimensions)
    self._scatter = np.zeros((dimensions, dimensions))

  def add(self, descriptors: npt.NDArray[np.floating]) -> None:
    """Adds descriptors [N, D].

    Raises:
      ValueError: a value is not finite, or so large that its square is not in float32.
    """
    n = len(descriptors)
    if not n:
      return
    require_finite('descriptors', descriptors)
    values = descriptors.astype(np.float64)
    mean = values.mean(axis=0)
    centered = values - mean
    shift = mean - self._mean
    total = self.count + n
    self._scatter += centered.T @ centered + np.outer(shift, shift) * (self.count * n / total)
    self._mean += shift * (n / total)
    self.count = total

  def pca(self) -> Pca:
    """Returns all D components, largest variance first.

    The largest entry of each component is positive, so that signs are defined.

    Raises:
      ValueError: fewer than two descriptors have arrived.
    """
    if self.count < 2:
      raise ValueError(f'a covariance needs at least 2 descriptors, found {self.count}; give more')
    variances, vectors = np.linalg.eigh(self._scatter / (self.count - 1))
    components = vectors.T[::-1]
    largest = np.argmax(np.abs(components), axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return Pca(
      self._mean.astype(np.float32),
      (components * signs[:, None]).astype(np.float32),
      np.maximum(variances[::-1], 0).astype(np.float32),
    )
