"""Local features over an image pyramid, all in one graph (docs/reference.md 3.2).

Images may have any size and any number of scales: shapes are unknown to the graph, so that one trace serves
all. Levels run one after the other, which bounds memory by the largest.
"""

import tensorflow as tf

from delf_d2r.models.delf.inference import InferenceNetwork
from delf_d2r.models.delf.network import Delf

Network = Delf | InferenceNetwork


def extract(network: Network, images, scales, *, global_scales=None) -> dict:
  """Returns the features of every cell at every scale, and of the whole image if there is a global head.

  Args:
    network: a model as it is trained or, faster, as it is exported.
    images: uint8 [B, H, W, 3], RGB.
    scales: float32 [S], at least one.
    global_scales: int32 [G], positions in `scales` for the global descriptors; None: all.

  Returns:
    boxes: float32 [N, 4], receptive fields `[ymin, xmin, ymax, xmax]` in pixels of the images.
    scales: float32 [N], 1 / scale, the size of a feature's patch relative to that at scale 1.
    scores: float32 [B, N], attention.
    features: float32 [B, N, D], not normalised.
    global_descriptors: float32 [B, G, dimensions], not normalised; only with a global head.
  """
  pixels = network.normalize(tf.cast(images, tf.float32))
  levels = tf.shape(scales)[0]
  has_global = bool(network.config.global_dimensions)
  dimensions = {'boxes': (None, 4), 'scales': (None,), 'scores': (None, None), 'features': (None, None, None)}
  if has_global:
    dimensions['globals'] = (1, None, network.config.global_dimensions)
  arrays = {
    name: tf.TensorArray(tf.float32, size=levels, infer_shape=False, element_shape=shape)
    for name, shape in dimensions.items()
  }

  def add_level(k, arrays):
    level = _level(network, pixels, scales[k])
    return k + 1, {name: array.write(k, level[name]) for name, array in arrays.items()}

  _, arrays = tf.while_loop(
    lambda k, _: k < levels, add_level, (tf.constant(0), arrays), parallel_iterations=1
  )
  found = {name: array.concat() for name, array in arrays.items()}
  found['scores'] = tf.transpose(found['scores'])
  found['features'] = tf.transpose(found['features'], (1, 0, 2))
  found['features'].set_shape((images.shape[0], None, network.dimensions))
  if has_global:
    chosen = found.pop('globals')
    if global_scales is not None:
      chosen = tf.gather(chosen, global_scales)
    found['global_descriptors'] = tf.transpose(chosen, (1, 0, 2))
  return found


def extract_global(network: Network, images, scales):
  """Returns the global descriptors of `extract` alone: float32 [B, S, dimensions], not normalised.

  Args:
    network: with a global head.
    images: uint8 [B, H, W, 3], RGB.
    scales: float32 [S].
  """
  pixels = network.normalize(tf.cast(images, tf.float32))

  def at(scale):
    padded, _ = _scaled(network, pixels, scale)
    return network(padded, training=False)['global_descriptor']

  described = tf.TensorSpec([images.shape[0], network.config.global_dimensions], tf.float32)
  found = tf.map_fn(at, scales, fn_output_signature=described, parallel_iterations=1)
  return tf.transpose(found, (1, 0, 2))


def _scaled(network: Network, pixels, scale) -> tuple:
  """Returns the input of the network for one scale, and the size int32 [2] of the image in it."""
  # tf.round rounds halves to even, as the tensorflow/models DELF code does.
  wanted = tf.cast(tf.round(tf.cast(tf.shape(pixels)[1:3], tf.float32) * scale), tf.int32)
  wanted = tf.maximum(wanted, 1)
  resized = _resize(pixels, wanted, antialias=network.config.antialias)
  # Zeros, which is what convolutions pad with: the grid of cells is then the same for all sizes.
  padding = -wanted % network.input_stride
  return tf.pad(resized, [(0, 0), (0, padding[0]), (0, padding[1]), (0, 0)]), wanted


def _level(network: Network, pixels, scale) -> dict:
  """Returns the features at one scale; cells come first, since levels are joined along them."""
  stride, center = network.receptive_field.stride, network.receptive_field.center
  size = tf.shape(pixels)[1:3]
  padded, wanted = _scaled(network, pixels, scale)
  outputs = network(padded, training=False)
  # Cells that look beyond the image are dropped: stride * i + center < size.
  rows_columns = tf.maximum((2 * wanted - int(2 * center) + 2 * stride - 1) // (2 * stride), 0)
  attention = outputs['attention'][:, : rows_columns[0], : rows_columns[1], 0]
  descriptors = tf.cast(outputs['descriptors'][:, : rows_columns[0], : rows_columns[1]], tf.float32)
  batch, rows, columns = tf.unstack(tf.shape(attention))
  level = {
    'boxes': _boxes(network, rows, columns, tf.cast(size, tf.float32) / tf.cast(wanted, tf.float32)),
    'scales': tf.fill((rows * columns,), 1 / scale),
    'scores': tf.transpose(tf.reshape(attention, (batch, rows * columns))),
    'features': tf.transpose(tf.reshape(descriptors, (batch, rows * columns, network.dimensions)), (1, 0, 2)),
  }
  if network.config.global_dimensions:
    level['globals'] = outputs['global_descriptor'][None]
  return level


def _resize(pixels, size, *, antialias: bool):
  """Resizes bilinearly. Enlarging is the same with and without antialiasing, but only the latter is cheap."""
  if not antialias:
    return tf.image.resize(pixels, size)
  return tf.cond(
    tf.reduce_all(size >= tf.shape(pixels)[1:3]),
    lambda: tf.image.resize(pixels, size),
    lambda: tf.image.resize(pixels, size, antialias=True),
  )


def _boxes(network: Network, rows, columns, pixels_per_pixel):
  """Returns receptive fields float32 [rows * columns, 4] in pixels of the image before its resizing."""
  field = network.receptive_field
  cells = tf.stack(tf.meshgrid(tf.range(rows), tf.range(columns), indexing='ij'), axis=-1)
  first = tf.cast(tf.reshape(cells, (-1, 2)) * field.stride + field.low, tf.float32)
  return tf.concat([first * pixels_per_pixel, (first + field.size) * pixels_per_pixel], axis=1)


def select(found: dict, max_features, min_attention, *, nms_iou: float = 1.0) -> dict:
  """Returns the best features of one image, most attention first; equal ones by scale, then by cell.

  Args:
    found: the result of `extract` for B = 1.
    max_features: int32, the greatest number of them.
    min_attention: float32, features with less are dropped.
    nms_iou: a feature is dropped if its receptive field overlaps that of a better one by more; 1 = none is.

  Returns:
    boxes [K, 4], scales [K], scores [K, 1], features [K, D], in the form of the tensorflow/models exports.
  """
  boxes, scores = found['boxes'], found['scores'][0]
  if nms_iou < 1:
    chosen = tf.image.non_max_suppression(
      boxes, scores, tf.minimum(max_features, tf.size(scores)), iou_threshold=nms_iou
    )
  else:
    chosen = tf.math.top_k(scores, tf.minimum(max_features, tf.size(scores))).indices
  chosen = tf.boolean_mask(chosen, tf.gather(scores, chosen) >= min_attention)
  return {
    'boxes': tf.gather(boxes, chosen),
    'scales': tf.gather(found['scales'], chosen),
    'scores': tf.gather(scores, chosen)[:, None],
    'features': tf.gather(found['features'][0], chosen),
  }


def select_batch(found: dict, max_features) -> dict:
  """Returns the best features of each of B images as `select` does, without threshold and suppression.

  Returns:
    boxes [B, K, 4], scales [B, K], scores [B, K, 1], features [B, K, D].
  """
  scores, chosen = tf.math.top_k(found['scores'], tf.minimum(max_features, tf.shape(found['scores'])[1]))
  return {
    'boxes': tf.gather(found['boxes'], chosen),
    'scales': tf.gather(found['scales'], chosen),
    'scores': scores[..., None],
    'features': tf.gather(found['features'], chosen, batch_dims=1),
  }
