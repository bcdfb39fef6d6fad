r"""Learned whitening: moves descriptors of one object together and keeps those of different objects apart.

With the matching pairs (i, j) and all descriptors x of mean m, the rows p of the map solve

    T p = lambda S p,   S = mean of (x_i - x_j)(x_i - x_j)^T over pairs,   T = covariance of x,   p^T S p = 1

largest lambda first, and x is mapped to (p (x - m)). That is the whitening by S^(-1/2) and the rotation by
the principal components of the whitened descriptors (Mikolajczyk and Matas, ICCV 2007; Radenovic, Tolias and
Chum, TPAMI 2019, section 3.4, whose covariance of different objects is T less a multiple of S and has the
same components).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.linalg

from delf_d2r.kernels.finite import require_finite
from delf_d2r.kernels.pca import Pca


def learn(
  descriptors: npt.NDArray[np.float32], groups: Sequence[npt.NDArray[np.integer]], *, shrinkage: float
) -> Pca:
  """Learns the whitening that moves the descriptors of each group together.

  All pairs within a group count the same, so a group of n has n (n - 1) / 2 votes.

  Args:
    descriptors: float32 [N, D].
    groups: for each object its rows, two or more; other rows of `descriptors` count in T alone.
    shrinkage: the share of the mean variance of S that is added to S along every direction.

  Returns:
    The map. Its components are scaled already and not orthogonal; its variances are 1, so that division by
    them changes nothing.

  Raises:
    ValueError: there is no pair, a value is not finite or too large to be squared in float32, or S has
      directions without variance in spite of the shrinkage.
  """
  dimensions = descriptors.shape[1]
  require_finite('descriptors', descriptors)
  scatter, pairs = np.zeros((dimensions, dimensions)), 0
  for group in groups:
    # The sum over all pairs is n times that of the squares around the mean.
    centered = descriptors[group].astype(np.float64)
    centered -= centered.mean(axis=0)
    scatter += len(group) * (centered.T @ centered)
    pairs += len(group) * (len(group) - 1) // 2
  if not pairs:
    raise ValueError(
      f'a whitening is learned from pairs, but {len(groups)} groups have none; give groups of 2'
    )
  within = scatter / pairs
  within += np.eye(dimensions) * (shrinkage * np.trace(within) / dimensions)
  mean = descriptors.mean(axis=0, dtype=np.float64)
  centered = descriptors - mean
  total = centered.T @ centered / len(centered)
  try:
    _, vectors = scipy.linalg.eigh(total, within)
  except np.linalg.LinAlgError:
    raise ValueError(
      f'{pairs} pairs leave directions without variance among {dimensions}; raise the shrinkage'
      f' ({shrinkage:g})'
    ) from None
  components = vectors.T[::-1]
  largest = np.argmax(np.abs(components), axis=1)
  signs = np.sign(components[np.arange(dimensions), largest])
  return Pca(
    mean.astype(np.float32),
    (components * signs[:, None]).astype(np.float32),
    np.ones(dimensions, np.float32),
  )
