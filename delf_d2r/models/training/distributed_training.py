"""The training step of any network, on one device or many."""

import math
import os
from collections.abc import Iterator

import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.models.training import schedules
from delf_d2r.models.training.batches import BaseBatches
from delf_d2r.protos import training_pb2

Strategy = training_pb2.TrainDelfConfig.Strategy


class NotFinite(UserError):
  """The loss or the gradient of a step is not finite."""


def make_strategy(config) -> tf.distribute.Strategy:
  """Returns the strategy that spreads steps over devices, from `strategy` and `batch_size` of a config.

  MULTI_WORKER must be made before anything else of TensorFlow, which is TensorFlow's own demand.

  Raises:
    UserError: TF_CONFIG is missing, or the replicas do not divide the batch.
  """
  if config.strategy == Strategy.Value('MULTI_WORKER'):
    if 'TF_CONFIG' not in os.environ:
      raise UserError(
        'strategy MULTI_WORKER needs the environment variable TF_CONFIG on every machine: {"cluster":'
        ' {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}. --cluster sets it'
      )
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
  elif config.strategy == Strategy.Value('MIRRORED'):
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
  """Returns whether this process writes the files: the chief, or the first worker where there is none."""
  resolver = strategy.cluster_resolver
  if resolver is None or not resolver.task_type:
    return True
  first = 'chief' if 'chief' in resolver.cluster_spec().jobs else 'worker'
  return (resolver.task_type, resolver.task_id) == (first, 0)


class BaseTrainer:
  """Trains a network. Subclasses build it and define the step of a replica on its share of a batch.

  Attributes:
    config: with `steps`, `batch_size` and `optimizer`.
    strategy: spreads the steps over devices.
    model: the network; a checkpoint can track it, and it can `save` its weights.
    optimizers: their state belongs in a checkpoint.
  """

  model: tf.Module
  optimizers: list

  def __init__(self, config, strategy: tf.distribute.Strategy | None = None):
    self.config = config
    self.strategy = strategy or tf.distribute.get_strategy()
    self._run_step = tf.function(self._distributed_step)

  def batches(self, data: BaseBatches, first_step: int) -> Iterator:
    """Yields the batches from a step on, spread over the replicas.

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

    return data.with_reader_errors(self.strategy.distribute_datasets_from_function(dataset))

  def step(self, batch, step: int) -> dict[str, float]:
    """Changes the network by one batch.

    Args:
      batch: from `batches`.
      step: its number, from 0, for the learning rate.

    Returns:
      The loss and its parts, metrics, the norm of the gradient before it was clipped, the learning rate.

    Raises:
      NotFinite: the loss or the gradient is not finite. The network is unusable then.
    """
    rate = schedules.learning_rate(self.config.optimizer, step, self.config.steps)
    self._set_learning_rate(rate)
    values = {name: float(value) for name, value in self._run_step(batch).items()}
    if not (math.isfinite(values['loss']) and math.isfinite(values['gradient_norm'])):
      found = ', '.join(f'{name} {value:g}' for name, value in values.items())
      raise NotFinite(f'step {step}: the loss is no longer finite ({found})')
    return {**values, 'learning_rate': rate}

  def local_part(self, batch) -> dict:
    """Returns the part of a batch of the first replica of this machine."""
    return self.strategy.experimental_local_results(batch)[0]

  def _distributed_step(self, batch) -> dict[str, tf.Tensor]:
    values = self.strategy.run(self._replica_step, (batch,))
    return {name: self.strategy.reduce('SUM', value, axis=None) for name, value in values.items()}

  def _clipped(self, gradients: list) -> tuple[list, tf.Tensor]:
    """Returns one replica's gradients, clipped, which the optimiser adds up, and its share of their norm.

    The norm to clip is that of the whole batch's gradient. Keras clips each replica's and then sums, so the
    sum is taken here and shared out again before Keras takes its own.
    """
    replicas = self.strategy.num_replicas_in_sync
    gradients = tf.distribute.get_replica_context().all_reduce('SUM', gradients)
    norm = tf.linalg.global_norm(gradients)
    clip = self.config.optimizer.clip_norm
    factor = (tf.minimum(1.0, clip / tf.maximum(norm, 1e-12)) if clip else 1.0) / replicas
    return [gradient * factor for gradient in gradients], norm / replicas

  def _set_learning_rate(self, rate: float) -> None:
    raise NotImplementedError

  def _replica_step(self, batch) -> dict[str, tf.Tensor]:
    """Runs one step of one replica; returns its shares of `loss`, `gradient_norm` and other values."""
    raise NotImplementedError
