"""A trained network for inference: batch normalisation folded, heads that only training needs left out."""

import tensorflow as tf

from delf_d2r.models.backbones import folding
from delf_d2r.models.delf.network import Delf, local_endpoints


class InferenceNetwork:
  """The endpoints of extraction: attention, descriptors and, with a global head, global_descriptor.

  The weights of the backbone are copies, those of the heads are the model's own.
  """

  def __init__(self, model: Delf, *, half_weights: bool = False):
    """Takes the trained model; `half_weights` stores the backbone in float16 and computes in float32."""
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
    self._half_embedding: list | None = None
    if half_weights:
      kinds = (self._backbone.trainable_variables, self._backbone.non_trainable_variables)
      self._half = [[tf.Variable(tf.cast(v.value, tf.float16)) for v in kind] for kind in kinds]
      if config.global_dimensions:
        self._half_embedding = [
          tf.Variable(tf.cast(v.value, tf.float16)) for v in model.embedding.trainable_variables
        ]
    self._run = tf.function(
      self._endpoints, input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)]
    )

  @property
  def variables(self) -> list:
    """The variables of TensorFlow that `__call__` reads."""
    names = ['encoder', 'decoder', 'attention', *([] if self._half_embedding else ['embedding'])]
    heads = (getattr(self._model, name, None) for name in names)
    parts = [head for head in heads if head is not None]
    backbone = [v.value for v in self._backbone.variables]
    if self._half is not None:
      backbone = [variable for kind in self._half for variable in kind]
    backbone += self._half_embedding or []
    return [*backbone, *(variable.value for part in parts for variable in part.variables)]

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
    outputs = self._model.local(maps, training=False)
    found = {name: outputs[name] for name in ('attention', 'descriptors')}
    if self.config.global_dimensions:
      found['global_descriptor'] = self._embedded(self._model.pooled(maps))
    return found

  def _embedded(self, pooled):
    if self._half_embedding is None:
      return self._model.embedding(pooled)
    weights = [tf.cast(variable, tf.float32) for variable in self._half_embedding]
    return self._model.embedding.stateless_call(weights, [], pooled)[0]
