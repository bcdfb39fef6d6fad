"""A fake network of local features, a single convolution, in all forms of SavedModels."""

import numpy as np
import tensorflow as tf

from support import tf1_models

CELL, DIMENSIONS = 16, 6
KERNEL = np.random.default_rng(0).normal(size=(CELL, CELL, 3, DIMENSIONS)).astype(np.float32)
SCALES = np.array([0.5, 1.0, 1.4142], np.float32)


def stand_in(image, scales, max_features, threshold, *, resize):
  pixels = (tf.cast(image, tf.float32) - 128) / 128
  parts = {'boxes': [], 'scales': [], 'features': []}
  for k in range(len(SCALES)):
    size = tf.cast(tf.round(tf.cast(tf.shape(image)[:2], tf.float32) * scales[k]), tf.int32)
    maps = tf.nn.conv2d(resize(pixels[None], size), KERNEL, CELL, 'VALID')
    rows, columns = tf.shape(maps)[1], tf.shape(maps)[2]
    grid = tf.stack(tf.meshgrid(tf.range(rows), tf.range(columns), indexing='ij'), -1)
    corners = tf.cast(tf.reshape(grid, (-1, 2)), tf.float32) * CELL
    parts['boxes'].append(tf.concat([corners, corners + CELL], 1) / scales[k])
    parts['scales'].append(tf.fill((rows * columns,), 1 / scales[k]))
    parts['features'].append(tf.reshape(maps, (-1, DIMENSIONS)))
  found = {name: tf.concat(values, 0) for name, values in parts.items()}
  scores = tf.nn.softplus(found['features'][:, 0] / 10)
  best = tf.math.top_k(scores, tf.minimum(max_features, tf.size(scores))).indices
  best = tf.boolean_mask(best, tf.gather(scores, best) >= threshold)
  found['scores'] = scores[:, None]
  return {name: tf.gather(value, best) for name, value in found.items()}


def write_tf1(
  path,
  *,
  with_global=False,
  outputs=('boxes', 'features', 'scales', 'scores'),
  tag='serve',
  prefix='',
  signature='',
  variable='offset',
):
  """Writes a SavedModel of TensorFlow 1: placeholders and named outputs, no functions.

  Args:
    path: of the model.
    with_global: whether it has a global descriptor, too.
    outputs: the local ones to write.
    tag: of the graph.
    prefix: of the names of all nodes.
    signature: the key of a signature; with one, the nodes have other names. '': none.
    variable: the name of the only variable.
  """
  v1 = tf.compat.v1
  with tf.Graph().as_default(), v1.Session() as session:
    inputs = {}

    def placeholder(dtype, shape, name):
      inputs[name] = v1.placeholder(dtype, shape, name=f'x_{name}' if signature else prefix + name)
      return inputs[name]

    image = placeholder(tf.uint8, [None, None, 3], 'input_image')
    # A fixed number of scales, as far as this stand-in goes.
    scales = placeholder(tf.float32, [None], 'input_scales')
    most = placeholder(tf.int32, [], 'input_max_feature_num')
    threshold = placeholder(tf.float32, [], 'input_abs_thres')
    # Padded so that fewer scales can be asked for, which the probe does.
    padded = tf.concat([scales, tf.fill([len(SCALES) - tf.shape(scales)[0]], 1.0)], 0)
    found = stand_in(image, padded, most, threshold, resize=v1.image.resize_bilinear)
    if with_global:
      chosen = placeholder(tf.int32, [None], 'input_global_scales_ind')
      tf.gather(tf.ones((len(SCALES), 4)), chosen, name=f'{prefix}global_descriptors')
      # As in the models of the tensorflow/models DELF code, every output depends on all inputs.
      found['boxes'] += tf.cast(tf.reduce_sum(chosen), tf.float32)
    prefix = 'y_' if signature else prefix
    found = {prefix + name: value for name, value in found.items()}
    signatures = None
    if signature:
      signatures = lambda graph: {  # noqa: E731
        signature: v1.saved_model.predict_signature_def(
          inputs, {name: graph.get_tensor_by_name(f'{prefix}{name}:0') for name in outputs}
        )
      }
    return tf1_models.save(
      session,
      path,
      found,
      outputs=[prefix + name for name in outputs],
      moved=f'{prefix}features',
      tag=tag,
      signatures=signatures,
      variable=variable,
    )


class Exported(tf.Module):
  """A SavedModel as TensorFlow 2 writes them."""

  def __init__(self, *, with_global=False, outputs=('boxes', 'features', 'scales', 'scores')):
    super().__init__()
    self.offset = tf.Variable(0.0)
    specs = {
      'input_image': tf.TensorSpec([None, None, 3], tf.uint8, name='input_image'),
      'input_scales': tf.TensorSpec([None], tf.float32, name='input_scales'),
      'input_max_feature_num': tf.TensorSpec([], tf.int32, name='input_max_feature_num'),
      'input_abs_thres': tf.TensorSpec([], tf.float32, name='input_abs_thres'),
    }
    if with_global:
      specs['input_global_scales_ind'] = tf.TensorSpec([None], tf.int32, name='input_global_scales_ind')

    def run(input_image, input_scales, input_max_feature_num, input_abs_thres, input_global_scales_ind=None):
      padded = tf.concat([input_scales, tf.fill([len(SCALES) - tf.shape(input_scales)[0]], 1.0)], 0)
      found = stand_in(input_image, padded, input_max_feature_num, input_abs_thres, resize=tf.image.resize)
      found['features'] += self.offset
      if with_global:
        found['global_descriptors'] = tf.gather(tf.ones((len(SCALES), 4)), input_global_scales_ind)
      return {name: found[name] for name in (*outputs, *(['global_descriptors'] if with_global else []))}

    self.function = tf.function(run).get_concrete_function(**specs)


def write_tf2(path, **options):
  module = Exported(**options)
  tf.saved_model.save(module, str(path), signatures={'serving_default': module.function})
  return str(path)
