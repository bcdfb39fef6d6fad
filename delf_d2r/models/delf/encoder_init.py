"""Initial weights of the reduction to local descriptors: whitened principal components of the features."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import Covariance
from delf_d2r.models.delf.network import Delf
from delf_d2r.models.delf.training_data import Batches
from delf_d2r.protos import training_pb2


def whiten(model: Delf, config: training_pb2.TrainDelfConfig, data: Batches) -> None:
  """Sets the encoder to y = (x - mean) C diag(v)^(-p / 2).

  C are the first principal components of the features x, v their variances, p is `encoder_start_power`.

  Args:
    model: with an encoder; nothing else of it changes.
    config: `encoder_start_photos`, from the first batches of `data`.
    data: the photos.

  Raises:
    UserError: the model has no encoder, or fewer features or less variance than dimensions.
  """
  dimensions = config.model.reduced_dimensions
  if not dimensions:
    raise UserError(
      'encoder_start is WHITENING, but model.reduced_dimensions is 0: there is no encoder to start'
    )

  @tf.function
  def features(images):
    return model(model.normalize(images), training=False)['features']

  covariance: Covariance | None = None
  for batch in data.batches(max(config.encoder_start_photos // config.batch_size, 1)):
    values = features(batch['images']).numpy()
    covariance = covariance or Covariance(values.shape[-1])
    covariance.add(values.reshape(-1, values.shape[-1]))
  assert covariance is not None  # There is at least one batch.
  try:
    matrix, bias = whitening(covariance, dimensions, config.encoder_start_power)
  except ValueError as error:
    raise UserError(
      f'encoder_start WHITENING: {error}. Lower model.reduced_dimensions or raise encoder_start_photos'
    ) from None
  model.encoder.kernel.assign(matrix[None, None])
  model.encoder.bias.assign(bias)


def whitening(
  covariance: Covariance, dimensions: int, power: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
  """Returns float32 (A [D, d], b [d]) of x A + b = (x - mean) C diag(v)^(-power / 2), as in `whiten`.

  Raises:
    ValueError: there are fewer dimensions or descriptors, or a component without variance.
  """
  pca = covariance.pca().truncated(dimensions)
  matrix, bias = pca.as_affine(whitening=True)
  assert pca.variances is not None  # Covariance.pca always gives them.
  restored = pca.variances ** ((1 - power) / 2)
  return matrix * restored, bias * restored
