"""PCA on disk: `mean.npy`, `components.npy`, `variances.npy`, or `.datum` files.

The latter are those of the tensorflow/models DELF code.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from delf_d2r.data import files
from delf_d2r.data.legacy import datum
from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import Pca
from delf_d2r.protos import extraction_pb2

NAMES = ('mean', 'components', 'variances')
# The names of the tensorflow/models DELF code, by ours.
DATUM_NAMES = {'mean': 'mean.datum', 'components': 'pca_proj_mat.datum', 'variances': 'pca_variances.datum'}


def save(pca: Pca, directory: pathlib.Path) -> None:
  """Writes both forms: `.npy` for this library, `.datum` for the tensorflow/models DELF code."""
  for name in NAMES:
    files.save_array(directory / f'{name}.npy', getattr(pca, name))
    datum.write(directory / DATUM_NAMES[name], getattr(pca, name))


def load(directory: str | pathlib.Path) -> Pca:
  """Reads the `.npy` files of `save` or, where there are none, the `.datum` files of a published model.

  Raises:
    UserError: a file is missing, or the three do not fit.
  """
  mean, components, variances = (pathlib.Path(directory, DATUM_NAMES[name]) for name in NAMES)
  if mean.is_file() and not pathlib.Path(directory, 'mean.npy').exists():
    return _of_datum_files(mean, components, variances if variances.is_file() else None)
  places = [pathlib.Path(directory, f'{name}.npy') for name in NAMES]
  return _checked([np.array(files.load_array(place)) for place in places], places)


def load_configured(config: extraction_pb2.DelfPcaConfig) -> Pca:
  """Returns the PCA of a config, truncated to the dimensions that it keeps.

  Raises:
    UserError: files are missing or do not fit, or there are fewer components than wanted.
  """
  if config.path:
    place, pca = config.path, load(config.path)
  else:
    place = config.projection_matrix_path
    pca = _of_datum_files(config.mean_path, place, config.variances_path or None)
  try:
    kept = pca.truncated(config.dimensions)
    kept.as_affine(whitening=config.whitening)
  except ValueError as error:
    raise UserError(f'{place}: {error}') from None
  return kept


def _of_datum_files(
  mean: str | pathlib.Path, components: str | pathlib.Path, variances: str | pathlib.Path | None
) -> Pca:
  places = [mean, components, variances or '']
  return _checked([datum.read(place) if place else None for place in places], places)


def _checked(arrays: Sequence[np.ndarray | None], places: Sequence[str | pathlib.Path]) -> Pca:
  """Makes a PCA of mean, components and variances, the last of which may be missing.

  Mean and variances may be rows [1, D], as in the files that belong to published models.

  Raises:
    UserError: they have other shapes, or are not finite; it names the file of `places`.
  """
  components = _finite(arrays[1], places[1], 'components of a PCA')
  if components.ndim != 2:
    raise UserError(f'{places[1]}: expected components [d, D] of a PCA, found shape {list(components.shape)}')
  mean = _row(arrays[0], places[0], 'the mean', components.shape[1], places[1])
  if arrays[2] is None:
    return Pca(mean, components)
  return Pca(mean, components, _row(arrays[2], places[2], 'the variances', len(components), places[1]))


def _row(
  array: np.ndarray | None, place: str | pathlib.Path, what: str, length: int, components: str | pathlib.Path
) -> npt.NDArray[np.float32]:
  values = _finite(array, place, f'{what} of a PCA')
  if values.shape not in ((length,), (1, length)):
    raise UserError(
      f'{place}: expected {what} of a PCA, [{length}] or [1, {length}] as in {components}, found shape'
      f' {list(values.shape)}. Give files of one PCA'
    )
  return values.reshape(length)


def _finite(array: np.ndarray | None, place: str | pathlib.Path, what: str) -> npt.NDArray[np.float32]:
  values = np.asarray(array, np.float32)
  if not np.isfinite(values).all():
    raise UserError(f'{place}: expected {what}, found values that are not finite')
  return values
