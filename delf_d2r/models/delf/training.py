"""The training step of DELF."""

import dataclasses
from collections import Counter

import keras
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.models.delf import losses, objectives
from delf_d2r.models.delf.network import Delf
from delf_d2r.models.delf.training_data import Batches
from delf_d2r.models.training.distributed_training import BaseTrainer
from delf_d2r.protos import training_pb2

Config = training_pb2.TrainDelfConfig


@dataclasses.dataclass(frozen=True)
class _Group:
  """Variables that share an optimiser; `factor` times the schedule is their learning rate."""

  optimizer: keras.optimizers.Optimizer
  variables: list[keras.Variable]
  factor: float


class Trainer(BaseTrainer):
  """Trains a DELF network; `config` is a TrainDelfConfig."""

  def __init__(self, config: Config, strategy: tf.distribute.Strategy | None = None):
    """Builds the network with weights that `config.seed` decides.

    Raises:
      UserError: weights to start from are missing or of another network, or nothing is left to train.
    """
    super().__init__(config, strategy)
    keras.utils.set_random_seed(config.seed)
    with self.strategy.scope():
      self.model = Delf(config.model)
      if config.initial_weights:
        self.model.load(config.initial_weights)
      _freeze(self.model, config)
      self._groups = _groups(self.model, config)
      if not self._groups:
        raise UserError(
          'nothing to train: the backbone is frozen, and the model has neither a reduction nor a learned'
          ' attention. Set model.reduced_dimensions, or unset freeze_backbone'
        )
      for group in self._groups:
        group.optimizer.build(group.variables)
    self.optimizers = [group.optimizer for group in self._groups]
    self._run_evaluation = tf.function(self._evaluation)

  def _set_learning_rate(self, rate: float) -> None:
    for group in self._groups:
      group.optimizer.learning_rate.assign(rate * group.factor)

  def evaluate(self, data: Batches) -> dict[str, float]:
    """Returns means of the loss, its parts and metrics over batches of validation, on one device."""
    sums: Counter[str] = Counter()
    count = 0
    for batch in data.batches():
      sums.update({name: float(value) for name, value in self._run_evaluation(batch).items()})
      count += 1
    return {name: value / count for name, value in sums.items()}

  def _evaluation(self, batch) -> dict[str, tf.Tensor]:
    return self._losses(batch, training=False, replicas=1)

  def _replica_step(self, batch) -> dict[str, tf.Tensor]:
    variables = [variable for group in self._groups for variable in group.variables]
    replicas = self.strategy.num_replicas_in_sync
    with tf.GradientTape() as tape:
      values = self._losses(batch, training=True, replicas=replicas)
    gradients = tape.gradient(
      values['loss'],
      [variable.value for variable in variables],
      unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    gradients, norm = self._clipped(gradients)
    gradients = iter(gradients)
    for group in self._groups:
      group.optimizer.apply([next(gradients) for _ in group.variables], group.variables)
    return {**values, 'gradient_norm': norm}

  def _losses(self, batch, *, training: bool, replicas: int) -> dict[str, tf.Tensor]:
    """Returns one replica's share of each value: the sum over replicas is the value of the whole batch."""
    outcome = objectives.evaluate(self.config, self.model, batch, training=training)
    factors = objectives.weights(self.config)
    values = {
      name: tf.reduce_sum(value) / self.config.batch_size
      for name, value in {**outcome.losses, **outcome.metrics}.items()
    }
    parts = [factors[name] * values[name] for name in outcome.losses if factors[name] > 0]
    decay = tf.zeros(())
    if self.config.optimizer.kind != training_pb2.OptimizerConfig.ADAM_W:
      decay = self.config.loss.weight_decay * losses.weight_decay(self.model)
    values['weight_decay'] = tf.add_n([decay, *self.model.losses]) / replicas
    return {'loss': tf.add_n([*parts, values['weight_decay']]), **values}


def _freeze(model: Delf, config: Config) -> None:
  """Freezes the parts that the config excludes from training, and heads that no loss reaches."""
  if config.freeze_backbone:
    model.backbone_model.trainable = False
  if config.frozen_endpoint:
    model.freeze_until(config.frozen_endpoint)
  if config.freeze_batch_norm:
    for layer in model.backbone_model.layers:
      if isinstance(layer, keras.layers.BatchNormalization):
        layer.trainable = False
  if not config.loss.attention_weight and hasattr(model, 'attention'):
    model.attention.trainable = False
  if not config.loss.reconstruction_weight and hasattr(model, 'decoder') and not _feeds_attention(model):
    model.decoder.trainable = False


def _feeds_attention(model: Delf) -> bool:
  return hasattr(model, 'attention') and model.attention.trainable


def _groups(model: Delf, config: Config) -> list[_Group]:
  backbone = model.backbone_model.trainable_variables
  ids = {id(variable) for variable in backbone}
  heads = [variable for variable in model.trainable_variables if id(variable) not in ids]
  if not config.optimizer.backbone_factor:
    backbone = []
  groups = [(heads, 1.0), (backbone, config.optimizer.backbone_factor)]
  return [
    _Group(_optimizer(config, variables), variables, factor) for variables, factor in groups if variables
  ]


def _optimizer(config: Config, variables: list[keras.Variable]) -> keras.optimizers.Optimizer:
  options = config.optimizer
  if options.kind == training_pb2.OptimizerConfig.ADAM_W:
    optimizer = keras.optimizers.AdamW(options.learning_rate, weight_decay=config.loss.weight_decay)
    optimizer.exclude_from_weight_decay(
      var_list=[variable for variable in variables if not losses.is_decayed(variable)]
    )
    return optimizer
  if options.kind == training_pb2.OptimizerConfig.ADAM:
    return keras.optimizers.Adam(options.learning_rate)
  return keras.optimizers.SGD(options.learning_rate, momentum=options.momentum)
