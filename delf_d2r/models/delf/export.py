"""Export of a trained network to a SavedModel in the form of tensorflow/models (docs/reference.md 3.4)."""

import pathlib
from collections.abc import Mapping

import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import Pca
from delf_d2r.models.delf import pyramid
from delf_d2r.models.delf.inference import InferenceNetwork
from delf_d2r.models.delf.network import Config, Delf
from delf_d2r.models.saved_models import directory

CONFIG = 'delf_model.pbtxt'
BATCH_SIGNATURE = 'extract_batch'
GLOBAL_SIGNATURE = 'extract_global'


class LocalFeatureModule(tf.Module):
  """The network with its pyramid as functions, which are also the signatures of the SavedModel.

  `serving_default` has the signature of tensorflow/models: input_image uint8 [H, W, 3], input_scales
  float32 [S], input_max_feature_num int32, input_abs_thres float32 (and input_global_scales_ind int32 [G]
  with a global head) to boxes [N, 4], scales [N], scores [N, 1], features [N, D] (and global_descriptors
  [G, dimensions]). `extract_batch` does the same for images of one shape: input_images uint8 [B, H, W, 3], no
  threshold, outputs with B in front. `extract_global`, only with a global head, computes nothing but
  global_descriptors [S, dimensions] of input_image and input_scales.

  Attributes:
    functions: all of them by name.
  """

  def __init__(
    self,
    model: Delf,
    *,
    pca: Pca | None = None,
    whitening: bool = False,
    nms_iou: float = 1.0,
    half_weights: bool = False,
  ):
    """Wraps a model.

    Args:
      model: the network; heads that only training needs are left behind.
      pca: reduces the descriptors within the graph: features are then of unit length.
      whitening: divide by the standard deviations of `pca`.
      nms_iou: see `pyramid.select`.
      half_weights: see InferenceNetwork.
    """
    super().__init__(name='delf')
    network = InferenceNetwork(model, half_weights=half_weights)
    # The variables alone: tracking the Keras model itself would save and load many times slower.
    self.kept_variables = network.variables
    affine = None
    if pca is not None:
      if pca.input_dimensions != model.dimensions:
        raise UserError(
          f'the PCA reduces descriptors of {pca.input_dimensions} dimensions, but the model makes'
          f' {model.dimensions}. Train the PCA on features of this model'
        )
      affine = [tf.constant(part) for part in pca.as_affine(whitening=whitening)]
    numbers = {
      'input_scales': tf.TensorSpec([None], tf.float32, name='input_scales'),
      'input_max_feature_num': tf.TensorSpec([], tf.int32, name='input_max_feature_num'),
    }
    chosen = {}
    if model.config.global_dimensions:
      chosen = {'input_global_scales_ind': tf.TensorSpec([None], tf.int32, name='input_global_scales_ind')}

    def serving_default(
      input_image, input_scales, input_max_feature_num, input_abs_thres, input_global_scales_ind=None
    ):
      found = pyramid.extract(network, input_image[None], input_scales, global_scales=input_global_scales_ind)
      best = pyramid.select(found, input_max_feature_num, input_abs_thres, nms_iou=nms_iou)
      best['features'] = _projected(best['features'], affine)
      if 'global_descriptors' in found:
        best['global_descriptors'] = found['global_descriptors'][0]
      return best

    def extract_batch(input_images, input_scales, input_max_feature_num):
      best = pyramid.select_batch(pyramid.extract(network, input_images, input_scales), input_max_feature_num)
      best['features'] = _projected(best['features'], affine)
      return best

    def extract_global(input_image, input_scales):
      return {'global_descriptors': pyramid.extract_global(network, input_image[None], input_scales)[0]}

    image = tf.TensorSpec([None, None, 3], tf.uint8, name='input_image')
    self.serving_default = tf.function(serving_default).get_concrete_function(
      input_image=image,
      input_abs_thres=tf.TensorSpec([], tf.float32, name='input_abs_thres'),
      **numbers,
      **chosen,
    )
    self.extract_batch = tf.function(extract_batch).get_concrete_function(
      input_images=tf.TensorSpec([None, None, None, 3], tf.uint8, name='input_images'), **numbers
    )
    self.functions = {'serving_default': self.serving_default, BATCH_SIGNATURE: self.extract_batch}
    if model.config.global_dimensions:
      self.functions[GLOBAL_SIGNATURE] = tf.function(extract_global).get_concrete_function(
        input_image=image, input_scales=numbers['input_scales']
      )


def _projected(features, affine):
  if affine is None:
    return features
  matrix, offset = affine
  reduced = tf.tensordot(tf.math.l2_normalize(features, axis=-1), matrix, 1) + offset
  return tf.math.l2_normalize(reduced, axis=-1)


def save(
  module: LocalFeatureModule, config: Config, output: str | pathlib.Path, *, card: Mapping
) -> pathlib.Path:
  """Writes the SavedModel directory, with the network's config and the model card in it.

  Args:
    module: the module to save.
    config: of the network.
    output: must not exist; appears only when it is complete.
    card: the model card, by heading: values that JSON can hold.

  Raises:
    UserError: the output exists.
  """
  exported = Config()
  exported.CopyFrom(config)
  for field in ('num_classes', 'backbone_weights'):
    exported.ClearField(field)
  return directory.write(
    output, module, signatures=module.functions, config=exported, config_name=CONFIG, card=card
  )
