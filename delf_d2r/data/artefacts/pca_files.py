"""PCA on disk: `mean.npy`, `components.npy`, `variances.npy`, or `.datum` files.

The latter are those of the tensorflow/models DELF code.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.legacy import datum
from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import Pca
from delf_d2r.protos import extraction_pb2

NAMES = ('mean', 'components', 'variances')
# The names of the tensorflow/models DELF code, by ours.
DATUM_NAMES = {'mean': 'mean.datum', 'components': 'pca_proj_mat.datum', 'variances': 'pca_vars.datum'}


def save(pca: Pca, directory: pathlib.Path) -> None:
  """Writes both forms: `.npy` for this library, `.datum` for the tensorflow/models DELF code."""
  for name in NAMES:
    files.save_array(directory / f'{name}.npy', getattr(pca, name))
    datum.write(directory / DATUM_NAMES[name], getattr(pca, name))


def load(directory: str | pathlib.Path) -> Pca:
  """Reads the `.npy` files of `save`.

  Raises:
    UserError: a file is missing, or the three do not fit.
  """
  arrays = [np.array(files.load_array(pathlib.Path(directory, f'{name}.npy'))) for name in NAMES]
  return _checked(arrays, directory)


def load_configured(config: extraction_pb2.DelfPcaConfig) -> Pca:
  """Returns the PCA of a config, truncated to the dimensions that it keeps.

  Raises:
    UserError: files are missing or do not fit, or there are fewer components than wanted.
  """
  if config.path:
    place, pca = config.path, load(config.path)
  else:
    place = config.projection_matrix_path
    variances = datum.read(config.variances_path) if config.variances_path else None
    pca = _checked([datum.read(config.mean_path), datum.read(place), variances], place)
  try:
    kept = pca.truncated(config.dimensions)
    kept.as_affine(whitening=config.whitening)
  except ValueError as error:
    raise UserError(f'{place}: {error}') from None
  return kept


def _checked(arrays: Sequence[np.ndarray | None], place: object) -> Pca:
  """Makes a PCA of mean, components and variances, the last of which may be missing.

  Raises:
    UserError: they have other shapes, or are not finite.
  """
  try:
    mean, components = (np.asarray(array, np.float32) for array in arrays[:2])
    variances = None if arrays[2] is None else np.asarray(arrays[2], np.float32)
    if mean.ndim != 1 or not np.isfinite(mean).all() or not np.isfinite(components).all():
      raise ValueError(
        f'expected a finite mean [D] and components [d, D], found a mean of shape {mean.shape}'
      )
    return Pca(mean, components, variances)
  except ValueError as error:
    raise UserError(f'{place}: no PCA ({error})') from None
