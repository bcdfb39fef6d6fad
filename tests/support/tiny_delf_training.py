"""Small photos and short configs for tests of the training of DELF."""

import pathlib

import numpy as np
from PIL import Image

from delf_d2r import config, models  # noqa: F401
from delf_d2r.protos import example_pb2, experiment_pb2

# delf_d2r.models sets the log level of TensorFlow, so it must be imported first.
from support import tfrecord_files
from support.config_parts import load_part

CLASSES = ('arch', 'bridge', 'castle')

# The first three blocks of EfficientNet-Lite0, with random weights.
TINY = """
  steps: 6 batch_size: 4 image_size: 64 seed: 3
  model { endpoint: "conv2" classifier_endpoint: "conv2" reduced_dimensions: 8 attention_channels: 8 }
  augmentation { min_area: 0.5 flip: true brightness: 0.1 }
  optimizer { learning_rate: 0.05 warmup_steps: 2 }
  validation { every: 3 image_size: 64 max_features: 20 num_words: 16 scales: [1.0] }
  summary_every: 1 pictures_every: 3 checkpoint_every: 3
"""


def load(text: str = TINY, *changes: str) -> experiment_pb2.ExperimentConfig:
  """Returns a resolved config from the text of its part `training`, with overrides."""
  return load_part('training', text, *changes)


def pattern(number: int, size: int = 96) -> np.ndarray:
  """Draws coloured squares that depend on the number: uint8 [size, size, 3]."""
  generator = np.random.default_rng(number)
  squares = generator.integers(0, 256, (8, 8, 3))
  return np.kron(squares, np.ones((size // 8, size // 8, 1))).astype(np.uint8)


def write_photos(folder: pathlib.Path, *, per_class: int = 4) -> pathlib.Path:
  """Writes a folder for each class, whose photos are one pattern, shifted and with noise."""
  generator = np.random.default_rng(0)
  for number, name in enumerate(CLASSES):
    (folder / name).mkdir(parents=True)
    for photo in range(per_class):
      image = np.roll(pattern(number), generator.integers(-8, 9, 2), (0, 1)).astype(int)
      noisy = (image + generator.integers(-20, 21, image.shape)).clip(0, 255).astype(np.uint8)
      Image.fromarray(noisy).save(folder / name / f'{photo}.png')
  return folder


def write_shard(path: pathlib.Path, examples) -> pathlib.Path:
  """Writes a TFRecord shard of (id, encoded photo, label or None)."""
  records = []
  for name, encoded, label in examples:
    example = example_pb2.Example()
    features = example.features.feature
    features['image/id'].bytes_list.value.append(name.encode())
    features['image/encoded'].bytes_list.value.append(encoded)
    if label is not None:
      features['image/class/label'].int64_list.value.append(label)
    records.append(example.SerializeToString())
  tfrecord_files.write(path, records)
  return path
