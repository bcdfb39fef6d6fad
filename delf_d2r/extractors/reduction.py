"""Reduction of descriptors by PCA, and the files that networks and their PCA are made from."""

import pathlib

import numpy as np
import numpy.typing as npt

from delf_d2r.data.artefacts import pca_files
from delf_d2r.errors import UserError
from delf_d2r.extractors import registry
from delf_d2r.kernels.pca import normalize
from delf_d2r.protos import extraction_pb2


class Reduction:
  """Makes reduced unit vectors of unit vectors, or leaves them as they are without a PCA.

  It is made before the model that it belongs to is loaded, which may take minutes, so that wrong files are
  refused at once; `of_model` follows.
  """

  def __init__(self, options: extraction_pb2.DelfConfig | extraction_pb2.GlobalConfig, *, field: str):
    """Loads the PCA.

    Args:
      options: `pca` says where the PCA is and what of it is kept; without it there is no PCA.
      field: the place of `options`, for messages.

    Raises:
      UserError: the PCA is missing or damaged, or has fewer dimensions than wanted.
    """
    self._field = f'{field}.pca'
    self._affine: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None
    if options.HasField('pca'):
      self._affine = pca_files.load_configured(options.pca).as_affine(whitening=options.pca.whitening)

  def of_model(self, dimensions: int, model: str) -> int:
    """Returns D of the result for descriptors of a model.

    Args:
      dimensions: D of the model's descriptors.
      model: its name for messages.

    Raises:
      UserError: the PCA is of other dimensions.
    """
    if self._affine is None:
      return dimensions
    taken, made = self._affine[0].shape
    if taken != dimensions:
      raise UserError(
        f'{self._field} reduces descriptors of {taken} dimensions, but the model {model} makes {dimensions}.'
        ' Give the PCA that belongs to this model'
      )
    return made

  def __call__(self, vectors: np.ndarray) -> np.ndarray:
    """Returns float32 [N, D] unit vectors of unit vectors of the model's dimensions."""
    if self._affine is None:
      return vectors
    matrix, offset = self._affine
    return normalize(vectors @ matrix + offset)


def require_usable(config: extraction_pb2.ExtractionConfig) -> None:
  """Raises UserError if the extractor of a config is to use a PCA that cannot be read; loads no model."""
  for name in registry.record(config.extractor).own_fields:
    options = getattr(config, name)
    if 'pca' in options.DESCRIPTOR.fields_by_name:
      Reduction(options, field=f'extraction.{name}')


def network_files(model: str, pca: extraction_pb2.DelfPcaConfig | None = None) -> dict[str, pathlib.Path]:
  """Returns the files of a network and its PCA by their role, without those that are not given.

  Args:
    model: the file or directory of the network or of its weights; "imagenet" names weights that are no
      file of the user's.
    pca: the reduction of its descriptors.
  """
  pca = pca or extraction_pb2.DelfPcaConfig()
  places = {
    'model': '' if model == 'imagenet' else model,
    'pca': pca.path,
    'pca_mean': pca.mean_path,
    'pca_components': pca.projection_matrix_path,
    'pca_variances': pca.variances_path,
  }
  return {role: pathlib.Path(place) for role, place in places.items() if place}
