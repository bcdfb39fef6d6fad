"""Initial weights of the global head: whitened pooled features, and class centres where the classes are."""

from collections import defaultdict

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.kernels import kmeans
from delf_d2r.kernels.pca import Covariance, normalize
from delf_d2r.models.delf import encoder_init
from delf_d2r.models.delf.network import Delf
from delf_d2r.models.delf.training_data import Batches
from delf_d2r.protos import training_pb2

_ITERATIONS = 10


def start(model: Delf, config: training_pb2.TrainDelfConfig, data: Batches) -> None:
  """Sets the dense layer and the centres of ArcFace as `config.global_start` says.

  Args:
    model: with a global head; nothing else of it changes.
    config: `global_start`, and `seed` of the groups of a class.
    data: the photos, unchanged: see `training_data.unchanged`.

  Raises:
    UserError: the pooled features have fewer dimensions or less variance than the global head.
  """
  pooled, labels = _pooled(model, data)
  covariance = Covariance(pooled.shape[1])
  covariance.add(pooled)
  try:
    matrix, bias = encoder_init.whitening(
      covariance, config.model.global_dimensions, config.global_start.power
    )
  except ValueError as error:
    raise UserError(
      f'global_start: {error}. Lower model.global_dimensions, choose a classifier_endpoint of more channels,'
      ' or raise global_start.photos'
    ) from None
  embeddings = pooled @ matrix + bias
  scale = 1 / max(float(np.linalg.norm(embeddings, axis=1).mean()), 1e-12)
  model.embedding.kernel.assign(matrix * scale)
  model.embedding.bias.assign(bias * scale)
  if config.model.num_classes:
    before = model.global_classifier.centers.numpy()
    centers = class_centers(normalize(embeddings), labels, before, config.model.num_classes, config.seed)
    model.global_classifier.centers.assign(centers)


def class_centers(
  units: npt.NDArray[np.float32], labels: np.ndarray, before: np.ndarray, num_classes: int, seed: int
) -> npt.NDArray[np.float32]:
  """Returns the centres of all classes: means of their photos, or of groups of these by k-means.

  Args:
    units: unit vectors float32 [N, G] of photos.
    labels: int [N].
    before: float32 [G, num_classes * K], the centres of classes without photos, and the directions by which
      centres differ that would else be the same.
    num_classes: K follows from it.
    seed: of k-means.

  Returns:
    float32 [G, num_classes * K], of unit length.
  """
  centers = before / np.maximum(np.linalg.norm(before, axis=0), 1e-12)
  per_class = before.shape[1] // num_classes
  places: dict[int, list[int]] = defaultdict(list)
  for place, label in enumerate(labels):
    places[int(label)].append(place)
  for label, members in sorted(places.items()):
    photos = units[members]
    mine = slice(label * per_class, (label + 1) * per_class)
    if per_class == 1:
      found = photos.mean(axis=0, keepdims=True)
    elif len(photos) >= per_class:
      rng = np.random.default_rng((seed, label))
      found, _ = kmeans.exact(photos, per_class, _ITERATIONS, rng)
    else:
      # The derivative of the nearest of equal centres would keep them equal.
      found = photos.mean(axis=0, keepdims=True) + 0.1 * centers[:, mine].T
    centers[:, mine] = normalize(np.asarray(found, np.float32)).T
  return centers.astype(np.float32)


def _pooled(model: Delf, data: Batches) -> tuple[npt.NDArray[np.float32], np.ndarray]:
  """Returns the input of the global head, float32 [N, C], and the labels int [N] of the photos."""

  @tf.function
  def pool(images):
    return model.pooled_images(model.normalize(images))

  found, labels = [], []
  for batch in data.batches():
    found.append(pool(batch['images']).numpy())
    labels.append(batch['labels'].numpy())
  return np.concatenate(found), np.concatenate(labels)
