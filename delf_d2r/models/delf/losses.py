"""Losses of training. Every loss is per example, float32 [B]: the trainer divides by the global batch.

B examples, C classes, D dimensions, H x W cells of a feature map, P pairs of cells.
"""

import keras
import tensorflow as tf

_FAR = -1e9


def classification(logits: tf.Tensor, labels: tf.Tensor, *, smoothing: float = 0.0) -> tf.Tensor:
  """Computes the softmax cross-entropy with label smoothing.

    L = -sum_c q_c log softmax(z)_c,   q_c = (1 - e) [c = y] + e / C

  Args:
    logits: float [B, C].
    labels: int [B], in [0, C).
    smoothing: e in [0, 1).

  Returns:
    float32 [B].
  """
  log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
  right = tf.gather(log_probabilities, labels, axis=1, batch_dims=1)
  return -(1 - smoothing) * right - smoothing * tf.reduce_mean(log_probabilities, axis=1)


def trimmed(values: tf.Tensor, share: float) -> tf.Tensor:
  """Leaves out the highest losses, which wrong labels have: the mean is that of the others.

  Args:
    values: float32 [B].
    share: of the photos to leave out, in [0, 1); their number is rounded down.

  Returns:
    float32 [B]: 0 for those, values B / (B - number) for the others.
  """
  total = tf.shape(values)[0]
  left_out = tf.cast(share * tf.cast(total, tf.float32), tf.int32)
  order = tf.argsort(values, direction='DESCENDING', stable=True)
  is_kept = tf.math.invert_permutation(order) >= left_out
  return tf.where(is_kept, values * tf.cast(total / (total - left_out), tf.float32), 0.0)


def supervised_contrastive(embeddings: tf.Tensor, labels: tf.Tensor, *, temperature: float) -> tf.Tensor:
  """Computes the contrast of photos of one class to all others (Khosla et al., NeurIPS 2020, equation 2).

    L_i = -mean over p of log(exp(<z_i, z_p> / T) / sum over a of exp(<z_i, z_a> / T))

  where p are the other photos of the class of i, and a all photos but i.

  Args:
    embeddings: z before they are scaled to unit length, float [B, D].
    labels: int [B].
    temperature: T.

  Returns:
    float32 [B]; 0 for a photo that is alone in its class.
  """
  units = tf.math.l2_normalize(tf.cast(embeddings, tf.float32), axis=1)
  logits = tf.matmul(units, units, transpose_b=True) / temperature
  logits = tf.linalg.set_diag(logits, tf.fill(tf.shape(labels), _FAR))
  log_probabilities = tf.nn.log_softmax(logits)
  is_same = tf.cast(labels[:, None] == labels[None], tf.float32)
  is_same = tf.linalg.set_diag(is_same, tf.zeros_like(labels, tf.float32))
  positives = tf.reduce_sum(is_same, axis=1)
  # Not a product: the diagonal is huge, and huge times 0 may be no number.
  total = tf.reduce_sum(tf.where(is_same > 0, log_probabilities, 0.0), axis=1)
  return -total / tf.maximum(positives, 1)


def reconstruction(features: tf.Tensor, reconstructed: tf.Tensor, *, relative: bool = False) -> tf.Tensor:
  """Computes the mean squared difference of two feature maps (DELG: Cao et al., ECCV 2020).

  Args:
    features: [B, H, W, C].
    reconstructed: [B, H, W, C].
    relative: divide by the mean square of the features.

  Returns:
    float32 [B].
  """
  features = tf.cast(features, tf.float32)
  axes = (1, 2, 3)
  error = tf.reduce_mean(tf.square(features - tf.cast(reconstructed, tf.float32)), axes)
  if not relative:
    return error
  return error / tf.maximum(tf.stop_gradient(tf.reduce_mean(tf.square(features), axes)), 1e-12)


def weight_decay(model: keras.Model) -> tf.Tensor:
  """Returns half the sum of squares of all trained kernels: a float32 scalar.

  Biases and batch normalisation are left out, and so are kernels with a regulariser of their own, which is in
  `model.losses`.
  """
  kernels = [variable for variable in model.trainable_variables if is_decayed(variable)]
  return tf.add_n([tf.nn.l2_loss(tf.cast(kernel.value, tf.float32)) for kernel in kernels] or [tf.zeros(())])


def is_decayed(variable: keras.Variable) -> bool:
  """Returns whether `weight_decay` includes a variable."""
  return variable.name in ('kernel', 'depthwise_kernel', 'centers') and variable.regularizer is None


def contrastive_pairs(
  first: tf.Tensor,
  second: tf.Tensor,
  points: tf.Tensor,
  images: tf.Tensor,
  valid: tf.Tensor,
  *,
  temperature: float,
  min_distance: float,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Computes InfoNCE over all pairs of the batch, both ways (van den Oord et al., 2018, equation 4).

    L_p = 1/2 (-log softmax_q(<a_p, b_q> / T)_p - log softmax_q(<a_q, b_p> / T)_p)

  Cells of one image nearer to each other than `min_distance` see nearly the same and are no negatives.

  Args:
    first: float [P, D], unit descriptors a of cells in the first views.
    second: float [P, D], those of the same surface points in the second views.
    points: float [P, 2], `(y, x)` of the pairs in the first view, pixels.
    images: int [P], the image of the batch that a pair is of.
    valid: bool [P], pairs that exist.
    temperature: T.
    min_distance: pixels.

  Returns:
    float32 [P], the loss, and bool [P], whether a_p is nearest to b_p; 0 and false where not valid.
  """
  logits = tf.matmul(first, second, transpose_b=True) / temperature
  squared = tf.reduce_sum(tf.square(points[:, None] - points[None]), axis=-1)
  near = (images[:, None] == images[None]) & (squared < min_distance**2)
  near = tf.linalg.set_diag(near, tf.zeros_like(valid))
  # An invalid row keeps its diagonal, so that no softmax is empty.
  excluded = near | ~tf.linalg.set_diag(valid[:, None] & valid[None], tf.ones_like(valid))
  logits = tf.where(excluded, _FAR, tf.cast(logits, tf.float32))
  forward = tf.linalg.diag_part(tf.nn.log_softmax(logits, axis=1))
  backward = tf.linalg.diag_part(tf.nn.log_softmax(logits, axis=0))
  right = tf.linalg.diag_part(logits) >= tf.reduce_max(logits, axis=1)
  return tf.where(valid, -(forward + backward) / 2, 0.0), valid & right


def precision(attention: tf.Tensor, errors: tf.Tensor) -> tf.Tensor:
  """Computes how badly attention predicts errors: least where it is the inverse of the expected error.

    L = a e - log a      (Kendall and Gal, NeurIPS 2017, equation 8, with a = exp(-s))

  Args:
    attention: a, float, positive, any shape.
    errors: e, of the same shape; no gradient passes into it.
  """
  attention = tf.maximum(tf.cast(attention, tf.float32), 1e-6)
  return attention * tf.stop_gradient(errors) - tf.math.log(attention)
