"""The training step, on one device or many, and the loop around it."""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterator

import keras
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.models import losses, objectives, schedules
from delf_d2r.models.delf import Delf
from delf_d2r.models.training_data import Batches
from delf_d2r.protos import training_pb2

Config = training_pb2.TrainDelfConfig


class NotFinite(UserError):
  """The loss or the gradient of a step is no number."""


def make_strategy(config: Config) -> tf.distribute.Strategy:
  """What spreads the steps over devices.

  MULTI_WORKER must be made before anything else of TensorFlow, which is TensorFlow's own demand.

  Raises:
    UserError: TF_CONFIG is missing, or the replicas do not divide the batch.
  """
  if config.strategy == Config.MULTI_WORKER:
    if 'TF_CONFIG' not in os.environ:
      raise UserError(
        'strategy MULTI_WORKER needs the environment variable TF_CONFIG on every machine: {"cluster":'
        ' {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
      )
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
  elif config.strategy == Config.MIRRORED:
    strategy = tf.distribute.MirroredStrategy()
  else:
    strategy = tf.distribute.get_strategy()
  replicas = strategy.num_replicas_in_sync
  if config.batch_size % replicas:
    raise UserError(
      f'batch_size {config.batch_size} cannot be divided by {replicas} replicas; the next sizes that can are'
      f' {config.batch_size // replicas * replicas} and {-(-config.batch_size // replicas) * replicas}'
    )
  return strategy


def is_chief(strategy: tf.distribute.Strategy) -> bool:
  """Whether this process is the one that writes files: the chief, or the first worker where there is none."""
  resolver = strategy.cluster_resolver
  if resolver is None or not resolver.task_type:
    return True
  first = 'chief' if 'chief' in resolver.cluster_spec().jobs else 'worker'
  return (resolver.task_type, resolver.task_id) == (first, 0)


@dataclasses.dataclass(frozen=True)
class _Group:
  """Variables that share an optimiser; `factor` times the schedule is their learning rate."""

  optimizer: keras.optimizers.Optimizer
  variables: list[keras.Variable]
  factor: float


class Trainer:
  """A network in training.

  Attributes:
    config: TrainDelfConfig.
    strategy: what spreads the steps over devices.
    model: the network.
    optimizers: their state belongs in a checkpoint.
  """

  def __init__(self, config: Config, strategy: tf.distribute.Strategy | None = None):
    """Builds the network with weights that `config.seed` decides.

    Raises:
      UserError: weights to start from are missing or of another network, or nothing is left to train.
    """
    self.config = config
    self.strategy = strategy or tf.distribute.get_strategy()
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
    self._run_step = tf.function(self._distributed_step)
    self._run_evaluation = tf.function(self._evaluation)

  def batches(self, data: Batches, first_step: int) -> Iterator:
    """The batches from a step on, spread over the replicas.

    Raises:
      UserError: while iterating: a photo, a label or a shard cannot be used.
    """

    def dataset(context: tf.distribute.InputContext):
      return data.dataset(
        first_step,
        pipelines=context.num_input_pipelines,
        pipeline=context.input_pipeline_id,
        replicas=context.num_replicas_in_sync // context.num_input_pipelines,
      )

    return data.explained(self.strategy.distribute_datasets_from_function(dataset))

  def step(self, batch, step: int) -> dict[str, float]:
    """Changes the network by one batch.

    Args:
      batch: from `batches`.
      step: its number, from 0, for the learning rate.

    Returns:
      The loss and its parts, metrics, the norm of the gradient before it was clipped, the learning rate.

    Raises:
      NotFinite: the loss or the gradient is no number. The network is spoilt then.
    """
    rate = schedules.learning_rate(self.config.optimizer, step, self.config.steps)
    for group in self._groups:
      group.optimizer.learning_rate.assign(rate * group.factor)
    values = {name: float(value) for name, value in self._run_step(batch).items()}
    if not (math.isfinite(values['loss']) and math.isfinite(values['gradient_norm'])):
      found = ', '.join(f'{name} {value:g}' for name, value in values.items())
      raise NotFinite(f'step {step}: the loss is no finite number any more ({found})')
    return {**values, 'learning_rate': rate}

  def evaluate(self, data: Batches) -> dict[str, float]:
    """Means of the loss, its parts and metrics over batches that are not learnt from, on one device."""
    sums: Counter[str] = Counter()
    count = 0
    for batch in data.batches():
      sums.update({name: float(value) for name, value in self._run_evaluation(batch).items()})
      count += 1
    return {name: value / count for name, value in sums.items()}

  def local_images(self, batch) -> tf.Tensor:
    """float32 [b, S, S, 3]: the photos of a batch that the first replica of this machine sees."""
    return self.strategy.experimental_local_results(batch['images'])[0]

  def _distributed_step(self, batch) -> dict[str, tf.Tensor]:
    values = self.strategy.run(self._replica_step, (batch,))
    return {name: self.strategy.reduce('SUM', value, axis=None) for name, value in values.items()}

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
    # The norm to clip is that of the whole batch's gradient. Keras clips each replica's and then sums, so the
    # sum is taken here and shared out again before Keras takes its own.
    gradients = tf.distribute.get_replica_context().all_reduce('SUM', gradients)
    norm = tf.linalg.global_norm(gradients)
    clip = self.config.optimizer.clip_norm
    factor = (tf.minimum(1.0, clip / tf.maximum(norm, 1e-12)) if clip else 1.0) / replicas
    gradients = iter([gradient * factor for gradient in gradients])
    for group in self._groups:
      group.optimizer.apply([next(gradients) for _ in group.variables], group.variables)
    return {**values, 'gradient_norm': norm / replicas}

  def _losses(self, batch, *, training: bool, replicas: int) -> dict[str, tf.Tensor]:
    """One replica's share of everything: the sum over replicas is the value of the whole batch."""
    outcome = objectives.evaluate(self.config, self.model, batch, training=training)
    factors = objectives.weights(self.config)
    values = {
      name: tf.reduce_sum(value) / self.config.batch_size
      for name, value in {**outcome.losses, **outcome.metrics}.items()
    }
    parts = [factors[name] * values[name] for name in outcome.losses if factors[name] > 0]
    decay = self.config.loss.weight_decay * losses.weight_decay(self.model)
    values['weight_decay'] = tf.add_n([decay, *self.model.losses]) / replicas
    return {'loss': tf.add_n([*parts, values['weight_decay']]), **values}


def _freeze(model: Delf, config: Config) -> None:
  """Takes from training what the config leaves as it is, and heads that no loss reaches."""
  if config.freeze_backbone:
    model.backbone_model.trainable = False
  elif config.freeze_batch_norm:
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
  return [_Group(_optimizer(config), variables, factor) for variables, factor in groups if variables]


def _optimizer(config: Config) -> keras.optimizers.Optimizer:
  options = config.optimizer
  if options.kind == training_pb2.OptimizerConfig.ADAM:
    return keras.optimizers.Adam(options.learning_rate)
  return keras.optimizers.SGD(options.learning_rate, momentum=options.momentum)
