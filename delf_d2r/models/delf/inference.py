"""A trained network for inference: batch normalisation folded, heads that only training needs left out."""

import tensorflow as tf

from delf_d2r.models.backbones import folding
from delf_d2r.models.delf.network import Delf, local_endpoints


class InferenceNetwork:
  """The endpoints of extraction: attention, descriptors and, with a global head, global_descriptor.

  The weights of the backbone are copies, those of the heads are the model's own unless they are halved.
  """

  def __init__(self, model: Delf, *, half_weights: bool = False):
    """Takes the trained model.

    Args:
      model: the network.
      half_weights: store backbone, attention and embedding in float16; compute in float32.
    """
    self.config = model.config
    self.dimensions = model.dimensions
    self.receptive_field = model.receptive_field
    self.input_stride = model.input_stride
    self._model = model
    config = model.config
    deep = [config.classifier_endpoint] if config.global_dimensions else []
    endpoints = [*local_endpoints(config), *deep]
    symbolic = model.backbone.outputs
    self._backbone = folding.fold(model.backbone_model, {name: symbolic[name] for name in endpoints})

    self._half: list | None = None
    # By the name of the head: the float16 weights that take the place of its own.
    self._half_heads: dict[str, list] = {}
    if half_weights:
      kinds = (self._backbone.trainable_variables, self._backbone.non_trainable_variables)
      self._half = [[tf.Variable(tf.cast(v.value, tf.float16)) for v in kind] for kind in kinds]
      for name in ('embedding', 'attention'):
        if hasattr(model, name):
          self._half_heads[name] = [
            tf.Variable(tf.cast(v.value, tf.float16)) for v in getattr(model, name).trainable_variables
          ]
    self._run = tf.function(
      self._endpoints, input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)]
    )

  @property
  def variables(self) -> list:
    """The variables of TensorFlow that `__call__` reads."""
    heads = {
      name: getattr(self._model, name, None) for name in ('encoder', 'decoder', 'attention', 'embedding')
    }
    own = []
    for name, head in heads.items():
      if head is not None:
        own += head.non_trainable_variables if name in self._half_heads else head.variables
    backbone = [v.value for v in self._backbone.variables]
    if self._half is not None:
      backbone = [variable for kind in self._half for variable in kind]
    halves = [variable for half in self._half_heads.values() for variable in half]
    return [*backbone, *halves, *(variable.value for variable in own)]

  def normalize(self, images):
    """Returns RGB in [0, 255], float [B, H, W, 3], as input of this network."""
    return self._model.normalize(images)

  def __call__(self, images, *, training: bool = False) -> dict:
    """Returns the endpoints of normalised float [B, H, W, 3], by name.

    Raises:
      ValueError: in training, which needs what was folded away.
    """
    if training:
      raise ValueError('an InferenceNetwork cannot be trained; train the Delf that it was made from')
    return self._run(images)

  def _endpoints(self, images) -> dict:
    """Computes what `__call__` returns; as a function of its own, it is saved once for all signatures."""
    if self._half is None:
      maps = self._backbone(images, training=False)
    else:
      weights = ([tf.cast(variable, tf.float32) for variable in kind] for kind in self._half)
      maps, _ = self._backbone.stateless_call(*weights, images, training=False)
    outputs = self._model.local(
      maps, training=False, attend=self._attended if 'attention' in self._half_heads else None
    )
    found = {name: outputs[name] for name in ('attention', 'descriptors')}
    if self.config.global_dimensions:
      found['global_descriptor'] = self._applied('embedding', self._model.pooled(maps))
    return found

  def _attended(self, features):
    return self._applied('attention', features)

  def _applied(self, name: str, inputs):
    """Applies a head with its own weights or, with half_weights, with those that are stored."""
    head = getattr(self._model, name)
    if name not in self._half_heads:
      return head(inputs)
    weights = [tf.cast(variable, tf.float32) for variable in self._half_heads[name]]
    return head.stateless_call(weights, [v.value for v in head.non_trainable_variables], inputs)[0]
