"""Initial weights of the reduction to local descriptors: whitened principal components of the features."""

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
  # There is at least one batch, and Covariance.pca always gives variances.
  assert covariance is not None
  try:
    pca = covariance.pca().truncated(dimensions)
    matrix, bias = pca.as_affine(whitening=True)
    variances = pca.variances
    assert variances is not None
  except ValueError as error:
    raise UserError(
      f'encoder_start WHITENING: {error}. Lower model.reduced_dimensions or raise encoder_start_photos'
    ) from None
  restored = variances ** ((1 - config.encoder_start_power) / 2)
  model.encoder.kernel.assign((matrix * restored)[None, None])
  model.encoder.bias.assign(bias * restored)
