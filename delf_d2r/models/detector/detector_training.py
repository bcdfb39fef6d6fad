"""The training step of detectors."""

import tensorflow as tf

from delf_d2r.models.detector import detector_backbones, model_garden
from delf_d2r.models.detector.network import Detector
from delf_d2r.models.training.distributed_training import BaseTrainer
from delf_d2r.protos import detector_pb2, training_pb2

Config = detector_pb2.DetectorTrainingConfig
# The kernels that weight decay pulls on, by the last part of their names in tf_keras.
_KERNELS = ('kernel:0', 'depthwise_kernel:0', 'pointwise_kernel:0')


class DetectorTrainer(BaseTrainer):
  """Trains a detector; `config` is a DetectorTrainingConfig."""

  def __init__(self, config: Config, strategy: tf.distribute.Strategy | None = None):
    """Builds the network with weights that `config.seed` decides.

    Raises:
      UserError: tf-models-official is missing, weights to start from are missing or of another network, or
        more backbone levels are to be frozen than the network has.
    """
    super().__init__(config, strategy)
    model_garden.keras().utils.set_random_seed(config.seed)
    with self.strategy.scope():
      self.model = Detector(
        config.model,
        config.loss,
        mixed_precision=config.mixed_precision,
        synchronized=self.strategy.num_replicas_in_sync > 1,
      )
      if config.initial_weights:
        self.model.load(config.initial_weights)
      network = self.model.network
      detector_backbones.freeze(
        network.backbone, levels=config.frozen_levels, batch_norm=config.freeze_batch_norm
      )
      backbone = network.backbone.trainable_variables
      ids = {id(variable) for variable in backbone}
      heads = [variable for variable in network.trainable_variables if id(variable) not in ids]
      factor = config.optimizer.backbone_factor
      # Variables that share an optimiser, and the factor of their learning rate.
      self._groups = [(_optimizer(config.optimizer), heads, 1.0)]
      if backbone and factor:
        self._groups.append((_optimizer(config.optimizer), backbone, factor))
      for optimizer, variables, _ in self._groups:
        optimizer.build(variables)
    self.optimizers = [optimizer for optimizer, _, _ in self._groups]

  def _set_learning_rate(self, rate: float) -> None:
    for optimizer, _, factor in self._groups:
      optimizer.learning_rate.assign(rate * factor)

  def _replica_step(self, batch) -> dict[str, tf.Tensor]:
    variables = [variable for _, group, _ in self._groups for variable in group]
    replicas = self.strategy.num_replicas_in_sync
    # Only what is trained is watched, so that the frozen part of the backbone is not differentiated.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      for variable in variables:
        tape.watch(variable)
      losses = self.model.architecture.losses(batch)
      kernels = [variable for variable in variables if variable.name.endswith(_KERNELS)]
      decay = self.config.loss.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
      losses['loss'] += decay
      values = {name: value / replicas for name, value in {**losses, 'weight_decay': decay}.items()}
    gradients = tape.gradient(values['loss'], variables, unconnected_gradients='zero')
    gradients, norm = self._clipped(gradients)
    gradients = iter(gradients)
    for optimizer, group, _ in self._groups:
      optimizer.apply_gradients([(next(gradients), variable) for variable in group])
    return {**values, 'gradient_norm': norm}


def _optimizer(options: training_pb2.OptimizerConfig):
  optimizers = model_garden.keras().optimizers
  if options.kind == training_pb2.OptimizerConfig.ADAM:
    return optimizers.Adam(options.learning_rate)
  return optimizers.SGD(options.learning_rate, momentum=options.momentum)
