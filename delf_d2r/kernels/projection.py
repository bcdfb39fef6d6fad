"""Linear projections of residuals before their signs are taken, so that each bit says as much as it can.

The code of a visual word in ASMK* is the signs of its pooled residual. The signs of components that are
correlated, or of very different variance, say less than those of as many components of a rotated residual.
With V the pooled residual of a word and P [D, B] with orthonormal columns, the code is [V P > 0].

  ROTATION      the first B columns of a random orthogonal matrix: QR of Gaussian numbers
  PCA_ROTATION  the B principal components of residuals, then a random rotation
  ITQ           the same, then the rotation that brings residuals nearest to their signs: Gong and Lazebnik,
                "Iterative quantization: a Procrustean approach to learning binary codes", CVPR 2011

A projection is linear and V is a sum of residuals, so projecting V is projecting every residual. Residuals
are not centred: k-means has moved each word to the mean of its descriptors already.

Columns of a random orthogonal matrix are uniformly distributed (Haar measure) once the signs of the diagonal
of R are taken into Q: Mezzadri, "How to generate random matrices from the classical compact groups", 2007.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.compiled import HAVE_NUMBA, njit

ITQ_ITERATIONS = 50


@dataclasses.dataclass(frozen=True)
class Projection:
  """Projections of residuals of D dimensions to B, one for each kind of local features.

  Attributes:
    matrices: float32 [P, D, B], of the P kinds; the columns of each are orthonormal.
    kinds: uint8 [K], the kind of each visual word, below P.

  Raises:
    ValueError: shapes, dtypes or values do not fit.
  """

  matrices: npt.NDArray[np.float32]
  kinds: npt.NDArray[np.uint8]

  def __post_init__(self) -> None:
    matrices, kinds = self.matrices, self.kinds
    if matrices.ndim != 3 or 0 in matrices.shape or matrices.dtype != np.float32:
      raise ValueError(
        f'Projection.matrices: expected float32 [P, D, B], found {matrices.dtype} {matrices.shape}; train the'
        ' codebook again'
      )
    if kinds.ndim != 1 or kinds.dtype != np.uint8 or kinds.max(initial=0) >= len(matrices):
      raise ValueError(
        f'Projection.kinds: expected uint8 [K] below {len(matrices)}, found {kinds.dtype} {kinds.shape} up to'
        f' {kinds.max(initial=0)}; train the codebook again'
      )

  @property
  def dimensions(self) -> int:
    """D, of the residuals."""
    return int(self.matrices.shape[1])

  @property
  def bits(self) -> int:
    """B, the bits of a code."""
    return int(self.matrices.shape[2])

  def __call__(
    self, words: npt.NDArray[np.integer], residuals: npt.NDArray[np.float32]
  ) -> npt.NDArray[np.float32]:
    """Projects residuals.

    The products are added in order of the dimensions, with and without numba and however many words there
    are, so that the same residual always has the same signs.

    Args:
      words: integer [W], the visual word of each residual, below K.
      residuals: float32 [W, D].

    Returns:
      float32 [W, B].

    Raises:
      ValueError: the residuals have other dimensions.
    """
    if residuals.shape[1] != self.dimensions:
      raise ValueError(
        f'residuals: expected {self.dimensions} dimensions as in the projection, found {residuals.shape[1]};'
        ' aggregate with the codebook that the projection belongs to'
      )
    project = _project_compiled if HAVE_NUMBA else _project_numpy
    return project(np.ascontiguousarray(residuals, np.float32), self.matrices, self.kinds[words])


@njit
def _project_compiled(
  residuals: npt.NDArray[np.float32], matrices: npt.NDArray[np.float32], kinds: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
  projected = np.zeros((residuals.shape[0], matrices.shape[2]), np.float32)
  for row in range(residuals.shape[0]):
    kind = kinds[row]
    for d in range(residuals.shape[1]):
      value = residuals[row, d]
      for b in range(matrices.shape[2]):
        projected[row, b] += value * matrices[kind, d, b]
  return projected


def _project_numpy(
  residuals: npt.NDArray[np.float32], matrices: npt.NDArray[np.float32], kinds: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
  projected = np.zeros((len(residuals), matrices.shape[2]), np.float32)
  for kind, matrix in enumerate(matrices):
    own = np.flatnonzero(kinds == kind)
    total = projected[own]
    for d, row in enumerate(matrix):
      total += residuals[own, d, None] * row
    projected[own] = total
  return projected


def kinds_of_words(
  centroids: npt.NDArray[np.float32], origins: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
  """Returns the kind of local features that each visual word is of: that of the nearest origin.

  Args:
    centroids: float32 [K, D].
    origins: float32 [P, D], the points that the descriptors of each kind are at distance 1 from; P = 0 is
      read as one kind.

  Returns:
    uint8 [K].
  """
  if len(origins) < 2:
    return np.zeros(len(centroids), np.uint8)
  distances = [np.square(centroids - origin).sum(axis=1) for origin in origins]
  nearest: npt.NDArray[np.uint8] = np.argmin(distances, axis=0).astype(np.uint8)
  return nearest


# Learning --------------------------------------------------------------------------------------------


def identity(dimensions: int, bits: int) -> npt.NDArray[np.float32]:
  """Returns float32 [D, B] that keeps the first B dimensions as they are."""
  return np.eye(dimensions, bits, dtype=np.float32)


def random_orthogonal(dimensions: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
  """Returns a uniformly distributed orthogonal matrix, float64 [D, D]."""
  q, r = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))
  signed: npt.NDArray[np.float64] = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
  return signed


def rotation(dimensions: int, bits: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
  """Returns the first B columns of a random orthogonal matrix, float32 [D, B]."""
  return random_orthogonal(dimensions, rng)[:, :bits].astype(np.float32)


def principal_directions(residuals: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float64]:
  """Returns the B directions of the largest second moments of residuals, float64 [D, B], largest first.

  The largest entry of each is positive, so that signs are defined.

  Args:
    residuals: float32 [N, D]; N = 0 is legal and gives any B orthonormal directions.
    bits: B, at most D.
  """
  values = residuals.astype(np.float64)
  _, vectors = np.linalg.eigh(values.T @ values)
  kept = vectors[:, ::-1][:, :bits]
  largest = kept[np.argmax(np.abs(kept), axis=0), np.arange(kept.shape[1])]
  signed: npt.NDArray[np.float64] = kept * np.where(largest < 0, -1.0, 1.0)
  return signed


def pca_rotation(
  residuals: npt.NDArray[np.float32], bits: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
  """Returns principal directions of residuals float32 [N, D] under a random rotation, float32 [D, B]."""
  projection = principal_directions(residuals, bits) @ random_orthogonal(bits, rng)
  return projection.astype(np.float32)


def itq(
  residuals: npt.NDArray[np.float32],
  bits: int,
  rng: np.random.Generator,
  *,
  iterations: int = ITQ_ITERATIONS,
) -> npt.NDArray[np.float32]:
  """Learns principal directions under the rotation that loses least by taking signs; see Gong and Lazebnik.

  The loss || sign(X R) - X R ||^2 over the reduced residuals X never rises from one iteration to the next.

  Args:
    residuals: float32 [N, D]; N = 0 is legal and gives the first rotation.
    bits: B, at most D.
    rng: of the first rotation.
    iterations: at least 0.

  Returns:
    float32 [D, B], orthonormal columns.
  """
  directions = principal_directions(residuals, bits)
  rotated = random_orthogonal(bits, rng)
  reduced = residuals.astype(np.float64) @ directions
  for _ in range(iterations if len(reduced) else 0):
    signs = np.where(reduced @ rotated > 0, 1.0, -1.0)
    # The orthogonal Procrustes problem: the rotation that takes the residuals nearest to their signs.
    left, _, right = np.linalg.svd(reduced.T @ signs)
    rotated = left @ right
  return (directions @ rotated).astype(np.float32)
