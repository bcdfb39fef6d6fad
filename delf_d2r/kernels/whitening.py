r"""Learned whitening: descriptors of one object come together, those of different objects stay apart.

With the matching pairs (i, j) and all descriptors x of mean m, the rows p of the map solve

    T p = lambda S p,   S = mean of (x_i - x_j)(x_i - x_j)^T over pairs,   T = covariance of x,   p^T S p = 1

largest lambda first, and x goes to (p (x - m)). That is the whitening by S^(-1/2) and the rotation by the
principal components of what is whitened (Mikolajczyk and Matas, ICCV 2007; Radenovic, Tolias and Chum, TPAMI
2019, section 3.4, whose covariance of different objects is T less a multiple of S and has the same
components).
"""

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from delf_d2r.kernels.pca import Pca


def learn(descriptors: np.ndarray, groups: Sequence[np.ndarray], *, shrinkage: float) -> Pca:
  """The whitening under which the descriptors of each group come together.

  All pairs within a group count alike, so a group of n has n (n - 1) / 2 votes.

  Args:
    descriptors: float32 [N, D].
    groups: rows of one object each, two or more; others in `descriptors` count in T alone.
    shrinkage: S gets that share of its mean variance added along every direction.

  Returns:
    Components are scaled already and not orthogonal; variances of 1 make division by them change nothing.

  Raises:
    ValueError: there is no pair, or S has directions without variance even so.
  """
  dimensions = descriptors.shape[1]
  scatter, pairs = np.zeros((dimensions, dimensions)), 0
  for group in groups:
    # The sum over all pairs is n times that of the squares around the mean.
    centered = descriptors[group].astype(np.float64)
    centered -= centered.mean(axis=0)
    scatter += len(group) * (centered.T @ centered)
    pairs += len(group) * (len(group) - 1) // 2
  if not pairs:
    raise ValueError(f'a whitening is learned from pairs, but {len(groups)} groups have none')
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
