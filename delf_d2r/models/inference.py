"""A trained network as it is used: batch normalisation folded, heads that only training needs left out."""

from delf_d2r.models import folding
from delf_d2r.models.delf import Delf


class InferenceNetwork:
  """The endpoints of extraction: attention, descriptors and, with a global head, global_descriptor.

  The weights of the backbone are copies, those of the heads are the model's own.
  """

  def __init__(self, model: Delf):
    self.config = model.config
    self.dimensions = model.dimensions
    self.receptive_field = model.receptive_field
    self._model = model
    config = model.config
    endpoints = [config.endpoint, *([config.classifier_endpoint] if config.global_dimensions else [])]
    symbolic = model.backbone.outputs
    self._backbone = folding.fold(model.backbone_model, {name: symbolic[name] for name in endpoints})

  @property
  def variables(self) -> list:
    """All that `__call__` reads, as TensorFlow's variables."""
    heads = (getattr(self._model, name, None) for name in ('encoder', 'decoder', 'attention', 'embedding'))
    parts = [self._backbone, *(head for head in heads if head is not None)]
    return [variable.value for part in parts for variable in part.variables]

  def normalize(self, images):
    """RGB in [0, 255], float [B, H, W, 3], to the input of this network."""
    return self._model.normalize(images)

  def __call__(self, images, *, training: bool = False) -> dict:
    """Endpoints of normalised float [B, H, W, 3].

    Raises:
      ValueError: in training, which needs what was folded away.
    """
    if training:
      raise ValueError('an InferenceNetwork cannot be trained; train the Delf that it was made from')
    maps = self._backbone(images, training=False)
    outputs = self._model.local(maps[self.config.endpoint], training=False)
    found = {name: outputs[name] for name in ('attention', 'descriptors')}
    if self.config.global_dimensions:
      deep = maps[self.config.classifier_endpoint]
      found['global_descriptor'] = self._model.embedding(self._model.gem(deep))
    return found
