"""Local features and global descriptors of converted networks over an image pyramid.

The steps of models/delf/pyramid.py by NumPy. Features are those of the SavedModel to float accuracy; of
nearly equal attention, another one may come first.
"""

import functools

import numpy as np

from delf_d2r.models.converted import network_file, quantization, resizing, runtimes
from delf_d2r.models.converted.network_file import ConvertedNetwork
from delf_d2r.models.saved_models.raw_features import RawFeatures
from delf_d2r.protos import extraction_pb2

Extraction = extraction_pb2.ExtractionConfig
_LOCAL = ('attention', 'descriptors')
_GLOBAL = 'global_descriptor'
# As in tf.math.l2_normalize.
_EPSILON = np.float32(1e-12)


class Pyramid:
  """The levels of an image, as they go through the network."""

  def __init__(self, network: ConvertedNetwork):
    self._network = network

  def normalized(self, image: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, 3], RGB, as float32 [H, W, 3] in the order and scale of the network."""
    network = self._network
    pixels = image[..., ::-1] if network.is_bgr else image
    return (pixels.astype(np.float32) - network.mean) / network.deviation

  def level(self, pixels: np.ndarray, scale: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Returns the input of the network for a scale, and the image's size int [2] in it.

    The input is float32 [1, 3, H', W']; H' and W' are multiples of the input stride, and beyond the image
    there are zeros.
    """
    network = self._network
    shape = np.array(pixels.shape[:2])
    # np.rint rounds halves to even, as TensorFlow does.
    wanted = np.maximum(np.rint(shape.astype(np.float32) * scale).astype(np.int64), 1)
    antialias = network.antialias and not np.all(wanted >= shape)
    resized = resizing.resize(pixels, (int(wanted[0]), int(wanted[1])), antialias=antialias)
    padded = wanted + -wanted % network.input_stride
    level = np.zeros((1, 3, *padded), np.float32)
    level[0, :, : wanted[0], : wanted[1]] = resized.transpose(2, 0, 1)
    return level, wanted


class ConvertedLocalFeatures:
  """What LocalFeatureModel is for a SavedModel (models/saved_models/local_features.py).

  Attributes:
    path: of the file of the network.
    kind: the runtime.
    dimensions: D of its features.
    stride: pixels between neighbouring features at scale 1.
    has_batches: False: one image after the other is as fast.
  """

  has_batches = False

  def __init__(self, network: ConvertedNetwork, runtime: Extraction.Runtime, precision: Extraction.Precision):
    """Opens the network; errors are those of `runtimes.open_network`."""
    self._network, self._pyramid = network, Pyramid(network)
    self._run = runtimes.open_network(network, _LOCAL, runtime=runtime, precision=precision)
    self.path, self.kind = str(network.path), Extraction.Runtime.Name(runtime)
    self.stride = float(network.receptive_field.stride)
    side = network.input_stride
    probe = self._run(np.zeros((1, 3, side, side), np.float32))[1]
    self.dimensions = network.reduction[0].shape[1] if network.reduction else probe.shape[1]

  def extract(self, image: np.ndarray, scales: np.ndarray, *, max_features: int) -> RawFeatures:
    """Returns the features of most attention of uint8 [H, W, 3] at scales float32 [S]; no threshold."""
    pixels = self._pyramid.normalized(image)
    levels = [self._level(pixels, np.float32(scale)) for scale in scales]
    boxes, inverse, scores, features = (np.concatenate(parts) for parts in zip(*levels, strict=True))
    # Equal ones by scale, then by cell.
    chosen = np.argsort(-scores, kind='stable')[:max_features]
    return RawFeatures(boxes[chosen], inverse[chosen], scores[chosen], self._reduced(features[chosen]))

  def extract_batch(self, images: np.ndarray, scales: np.ndarray, *, max_features: int) -> list[RawFeatures]:
    """Returns those of each of uint8 [B, H, W, 3]."""
    return [self.extract(image, scales, max_features=max_features) for image in images]

  def _level(self, pixels: np.ndarray, scale: np.float32) -> tuple[np.ndarray, ...]:
    """Returns boxes [N, 4], scales [N], scores [N] and descriptors [N, C] of the cells at a scale."""
    field = self._network.receptive_field
    level, wanted = self._pyramid.level(pixels, scale)
    attention, descriptors = self._run(level)
    # Cells that look beyond the image are dropped: stride * i + center < size.
    cells = np.maximum((2 * wanted - int(2 * field.center) + 2 * field.stride - 1) // (2 * field.stride), 0)
    rows, columns = np.minimum(cells, attention.shape[2:])
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing='ij'), axis=-1)
    first = (places.reshape(-1, 2) * field.stride + field.low).astype(np.float32)
    factor = np.array(pixels.shape[:2], np.float32) / wanted.astype(np.float32)
    return (
      np.concatenate([first * factor, (first + np.float32(field.size)) * factor], axis=1),
      np.full(rows * columns, np.float32(1) / scale, np.float32),
      attention[0, 0, :rows, :columns].ravel(),
      descriptors[0, :, :rows, :columns].reshape(descriptors.shape[1], -1).T,
    )

  def _reduced(self, features: np.ndarray) -> np.ndarray:
    if self._network.reduction is None:
      return np.ascontiguousarray(features)
    matrix, offset = self._network.reduction
    return _unit(_unit(features) @ matrix + offset)


class ConvertedGlobalDescriptors:
  """What GlobalModel is for a SavedModel (models/saved_models/global_descriptors.py).

  Attributes:
    path: of the file of the network.
    dimensions: D of its descriptors.
  """

  def __init__(self, network: ConvertedNetwork, runtime: Extraction.Runtime, precision: Extraction.Precision):
    """Opens a network with a global head; errors are those of `runtimes.open_network`."""
    self._pyramid = Pyramid(network)
    self._run = runtimes.open_network(network, [_GLOBAL], runtime=runtime, precision=precision)
    self.path = str(network.path)
    side = network.input_stride
    self.dimensions = self._run(np.zeros((1, 3, side, side), np.float32))[0].shape[1]

  def __call__(self, image: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Returns the descriptors of uint8 [H, W, 3] at scales float32 [S]: float32 [S, D], not normalised."""
    pixels = self._pyramid.normalized(image)
    found = [self._run(self._pyramid.level(pixels, np.float32(scale))[0])[0] for scale in scales]
    return np.concatenate(found)


@functools.lru_cache(2)
def load(path: str, model: str, precision: Extraction.Precision) -> ConvertedNetwork:
  """Returns the network that was converted from a SavedModel, quantised where the precision is INT8.

  Raises:
    UserError: it is missing, damaged, or of another SavedModel.
  """
  network = network_file.load(path, model)
  return quantization.quantized(network) if precision == Extraction.INT8 else network


def _unit(vectors: np.ndarray) -> np.ndarray:
  squares = np.sum(vectors * vectors, axis=1, keepdims=True)
  return vectors / np.sqrt(np.maximum(squares, _EPSILON))
