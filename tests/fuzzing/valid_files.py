"""Valid files of every kind, made by a run on a few synthetic photos."""

import dataclasses
import io
import json
import pathlib

import numpy as np
from PIL import Image

from delf_d2r import config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.experiments import experiment

CONFIG = """
name: "fuzzed"
regions { source: UNIFORM uniform { boxes_per_side: [2] } }
extraction { max_features: 40 max_image_size: 160 max_crop_size: 160 images_per_shard: 3 }
codebook { num_words: 16 iterations: 3 projection { kinds: ITQ } }
aggregation { kernel: ASMK_STAR regions: REGIONAL_AGGREGATION }
verification { num_images: 4 }
"""
NAMES = tuple(f'{number}.jpg' for number in range(5))


@dataclasses.dataclass(frozen=True)
class ValidFiles:
  """The paths of valid files: the photos, the run on them, its ground truth."""

  photos: pathlib.Path
  run: pathlib.Path
  truth: pathlib.Path


def photo(seed: int, size: int = 160) -> Image.Image:
  """Draws squares of random colours, in which SIFT finds corners."""
  squares = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
  return Image.fromarray(squares).resize((size, size), Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
  """Encodes an image."""
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def make_run(folder: pathlib.Path) -> ValidFiles:
  """Makes photos, ground truth and a run in an empty folder, within a few seconds."""
  photos = folder / 'photos'
  photos.mkdir(parents=True)
  for number, name in enumerate(NAMES):
    photo(number).save(photos / name, quality=90)
  truth = folder / 'truth.json'
  queries = [
    {'image': NAMES[0], 'easy': [NAMES[0]], 'hard': [NAMES[1]], 'box': [0.1, 0.1, 0.9, 0.9]},
    {
      'image': NAMES[2],
      'name': 'second',
      'easy': [NAMES[3]],
      'junk': [NAMES[4]],
      'box_pixels': [9, 9, 150, 99],
    },
  ]
  truth.write_text(json.dumps({'version': 1, 'queries': queries}))
  (folder / 'config.pbtxt').write_text(CONFIG)
  experiment.run(
    config.load(folder / 'config.pbtxt', experiment.STAGES),
    Dataset.load(photos, ground_truth=truth),
    folder / 'run',
    ground_truth=truth,
    options=experiment.Options(workers=1),
  )
  return ValidFiles(photos, folder / 'run', truth)


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
  """Returns the content of all files below a folder by name."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }
