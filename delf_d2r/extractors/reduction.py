"""Reduction of descriptors by PCA, and the files that networks and their PCA are made from."""

import pathlib

import numpy as np

from delf_d2r.data.artefacts import pca_files
from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import normalize
from delf_d2r.protos import extraction_pb2


class Reduction:
  """Makes reduced unit vectors of unit vectors, or leaves them as they are without a PCA.

  Attributes:
    dimensions: D of the result.
  """

  def __init__(self, config: extraction_pb2.DelfPcaConfig | None, dimensions: int, model: str, *, field: str):
    """Loads the PCA.

    Args:
      config: where the PCA is and what of it is kept; None: no PCA.
      dimensions: D of the model's descriptors.
      model, field: the model's name and the place of the config, for messages.

    Raises:
      UserError: the PCA is missing or of other dimensions.
    """
    self.dimensions = dimensions
    self._affine = None
    if config is not None:
      pca = pca_files.load_configured(config)
      if pca.input_dimensions != dimensions:
        raise UserError(
          f'{field} reduces descriptors of {pca.input_dimensions} dimensions, but the model {model} makes'
          f' {dimensions}. Give the PCA that belongs to this model'
        )
      self._affine = pca.as_affine(whitening=config.whitening)
      self.dimensions = self._affine[0].shape[1]

  def __call__(self, vectors: np.ndarray) -> np.ndarray:
    """Returns float32 [N, D] unit vectors of unit vectors of the model's dimensions."""
    if self._affine is None:
      return vectors
    matrix, offset = self._affine
    return normalize(vectors @ matrix + offset)


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
