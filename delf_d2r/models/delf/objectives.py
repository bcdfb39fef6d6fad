"""The two objectives of training: from a batch to the parts of the loss."""

import dataclasses

import tensorflow as tf

from delf_d2r.models.backbones.receptive_field import ReceptiveField
from delf_d2r.models.delf import losses
from delf_d2r.models.delf.network import Config as DelfConfig
from delf_d2r.models.delf.network import Delf
from delf_d2r.protos import training_pb2

Config = training_pb2.TrainDelfConfig


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The losses and metrics of a batch.

  Attributes:
    losses: float32 [B] by name, not weighted; names as in `weights`.
    metrics: float32 [B] by name; they are shown, not minimised.
  """

  losses: dict[str, tf.Tensor]
  metrics: dict[str, tf.Tensor]


def weights(config: Config) -> dict[str, float]:
  """Returns the factor of each part of the loss."""
  return {
    'descriptor_loss': config.loss.descriptor_weight,
    'attention_loss': config.loss.attention_weight,
    'reconstruction_loss': config.loss.reconstruction_weight,
    'global_loss': config.loss.global_weight,
    'metric_loss': config.loss.metric.weight if config.loss.HasField('metric') else 0.0,
  }


def evaluate(config: Config, model: Delf, batch: dict[str, tf.Tensor], *, training: bool) -> Outcome:
  """Runs the network on a batch of training_data.py and takes its losses."""
  objective = _warped_pairs if config.objective == Config.WARPED_PAIRS else _classification
  return objective(config, model, batch, training)


def _classification(config: Config, model: Delf, batch: dict[str, tf.Tensor], training: bool) -> Outcome:
  labels = batch['labels']
  # The margin of ArcFace belongs to training: a photo that is to be classified has no label.
  outputs = model(model.normalize(batch['images']), training=training, labels=labels if training else None)
  parts, metrics = {}, {}
  for name in ('descriptor', 'attention', 'global'):
    logits = outputs.get(f'{name}_logits')
    if logits is not None:
      smoothing = config.loss.label_smoothing
      values = losses.classification(logits, labels, smoothing=smoothing)
      if training and config.loss.trimmed_share:
        values = losses.trimmed(values, config.loss.trimmed_share)
      parts[f'{name}_loss'] = values
      right = tf.argmax(logits, axis=1, output_type=labels.dtype) == labels
      metrics[f'{name}_accuracy'] = tf.cast(right, tf.float32)
  if config.loss.HasField('metric'):
    parts['metric_loss'] = losses.supervised_contrastive(
      outputs['global_descriptor'], labels, temperature=config.loss.metric.temperature
    )
  if 'expanded' in outputs:
    parts['reconstruction_loss'] = _reconstruction(config, outputs)
  return Outcome(parts, metrics)


def _warped_pairs(config: Config, model: Delf, batch: dict[str, tf.Tensor], training: bool) -> Outcome:
  options = config.warped_pairs
  # One pass for both views: batch normalisation then sees them alike.
  images = tf.concat([batch['images'], batch['second_images']], axis=0)
  outputs = model(model.normalize(images), training=training)
  first, second = tf.split(tf.math.l2_normalize(tf.cast(outputs['descriptors'], tf.float32), axis=-1), 2)
  shape = tf.shape(first)
  points = cell_centers(model.receptive_field, shape[1], shape[2])
  places = (
    project(batch['homographies'], points) - model.receptive_field.center
  ) / model.receptive_field.stride
  valid = tf.reduce_all((places >= 0) & (places <= tf.cast(shape[1:3] - 1, tf.float32)), axis=-1)
  attention = tf.reshape(tf.split(outputs['attention'], 2)[0], (shape[0], -1))
  seed = tf.stack([tf.constant(config.seed, tf.int64), batch['positions'][0]])
  chosen = draw_cells(valid, attention, options.pairs, options.attended_share, seed)

  def take(values):
    return tf.gather(values, chosen, axis=1, batch_dims=1)

  valid = take(valid)
  first = take(tf.reshape(first, (shape[0], -1, shape[3])))
  second = tf.math.l2_normalize(interpolate(second, take(places)), axis=-1)
  errors, right = losses.contrastive_pairs(
    tf.reshape(first, (-1, shape[3])),
    tf.reshape(second, (-1, shape[3])),
    tf.gather(points, tf.reshape(chosen, (-1,))),
    tf.repeat(tf.range(shape[0]), tf.shape(chosen)[1]),
    tf.reshape(valid, (-1,)),
    temperature=options.temperature,
    min_distance=options.min_distance,
  )
  errors, right = (tf.reshape(values, tf.shape(chosen)) for values in (errors, right))
  parts = {'descriptor_loss': _mean(errors, valid)}
  if model.config.attention == DelfConfig.LEARNED:
    parts['attention_loss'] = _mean(losses.precision(take(attention), errors), valid)
  if 'expanded' in outputs:
    maps = (tf.split(outputs[name], 2) for name in ('features', 'expanded'))
    parts['reconstruction_loss'] = (
      tf.add_n([losses.reconstruction(*pair) for pair in zip(*maps, strict=True)]) / 2
    )
  return Outcome(parts, {'descriptor_accuracy': _mean(tf.cast(right, tf.float32), valid)})


def _reconstruction(config: Config, outputs: dict[str, tf.Tensor]) -> tf.Tensor:
  relative = config.loss.relative_reconstruction
  return losses.reconstruction(outputs['features'], outputs['expanded'], relative=relative)


def cell_centers(field: ReceptiveField, height, width) -> tf.Tensor:
  """Returns the centres float32 [height * width, 2] of the cells of a feature map, `(y, x)` in pixels."""
  axes = [field.center + field.stride * tf.range(extent, dtype=tf.float32) for extent in (height, width)]
  return tf.reshape(tf.stack(tf.meshgrid(*axes, indexing='ij'), axis=-1), (-1, 2))


def project(homographies: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
  """Maps points [P, 2] `(y, x)` by homographies [B, 3, 3] of `(x, y, 1)`: float32 [B, P, 2] `(y, x)`."""
  homogeneous = tf.concat([points[:, ::-1], tf.ones_like(points[:, :1])], axis=1)
  mapped = tf.einsum('bij,pj->bpi', homographies, homogeneous)
  return (mapped[..., :2] / mapped[..., 2:])[..., ::-1]


def interpolate(maps: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
  """Returns the bilinear values [B, P, D] of maps [B, H, W, D] at places [B, P, 2], `(y, x)` in cells.

  Places outside take the value of the nearest cell.
  """
  shape = tf.shape(maps)
  most = tf.cast(shape[1:3] - 1, tf.float32)
  places = tf.clip_by_value(places, 0.0, most)
  corner = tf.minimum(tf.floor(places), tf.maximum(most - 1, 0))
  share = (places - corner)[..., None]
  top, left = tf.unstack(tf.cast(corner, tf.int32), axis=-1)
  flat = tf.reshape(maps, (shape[0], -1, shape[3]))

  def value(down, right):
    rows, columns = tf.minimum(top + down, shape[1] - 1), tf.minimum(left + right, shape[2] - 1)
    return tf.gather(flat, rows * shape[2] + columns, axis=1, batch_dims=1)

  y, x = share[..., 0, :], share[..., 1, :]
  return (1 - y) * ((1 - x) * value(0, 0) + x * value(0, 1)) + y * ((1 - x) * value(1, 0) + x * value(1, 1))


def draw_cells(
  valid: tf.Tensor, attention: tf.Tensor, count: int, share: float, seed: tf.Tensor
) -> tf.Tensor:
  """Draws cells of each image at random: valid ones first, among them those in the attended share.

  Args:
    valid: bool [B, P].
    attention: float32 [B, P].
    count: cells of each image.
    share: the attended share of the cells, in (0, 1].
    seed: int64 [2].

  Returns:
    int32 [B, min(count, P)].
  """
  cells = tf.shape(valid)[1]
  attended = tf.cast(tf.math.ceil(share * tf.cast(cells, tf.float32)), tf.int32)
  least = tf.math.top_k(attention, attended).values[:, -1:]
  lots = tf.random.stateless_uniform(tf.shape(valid), seed)
  lots += 2 * tf.cast(valid, tf.float32) + tf.cast(attention >= least, tf.float32)
  return tf.math.top_k(lots, tf.minimum(count, cells)).indices


def _mean(values: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
  """Returns the means float32 [B] over the valid values of [B, P]; 0 where there are none."""
  valid = tf.cast(valid, tf.float32)
  return tf.reduce_sum(values * valid, axis=1) / tf.maximum(tf.reduce_sum(valid, axis=1), 1)
