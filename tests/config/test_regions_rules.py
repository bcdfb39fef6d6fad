"""Rules of regions."""

import pytest

from delf_d2r import config
from delf_d2r.errors import ConfigError


def load(text, *others):
  overrides = [f'regions {{ {text} }}', *others]
  return config.load_or_default(None, ['regions'], overrides=overrides).regions


def test_defaults():
  detector = load('source: DETECTOR').detector
  assert (detector.model_path, list(detector.classes), detector.max_image_size) == ('', [], 1024)
  assert (detector.batch_size, detector.images_per_shard, detector.apply_exif_orientation) == (1, 64, True)
  assert load('source: RANDOM').random.seed == 0


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('detector { model_path: "x" }', 'detector has an effect only with source: DETECTOR, found NONE'),
    ('source: FILE random { seed: 1 }', 'random has an effect only with source: RANDOM, found FILE'),
    ('source: DETECTOR file_path: "x"', 'file_path has an effect only with source: FILE, found DETECTOR'),
    ('source: DETECTOR detector { batch_size: 0 }', r'detector.batch_size is 0; it must be in \[1, 1024\]'),
    ('source: DETECTOR detector { max_image_size: -1 }', 'max_image_size is -1; it must be at least 0'),
    ('source: DETECTOR detector { images_per_shard: 0 }', 'images_per_shard is 0; it must be at least 1'),
    ('source: DETECTOR detector { max_megapixels: 0 }', 'max_megapixels is 0'),
    ('source: DETECTOR detector { classes: [1, -1] }', r'classes is \[1, -1\]; ids are at least 0'),
    ('source: RANDOM random { seed: -1 }', 'random.seed is -1; it must be at least 0'),
  ],
)
def test_refused(text, message):
  with pytest.raises(ConfigError, match=message):
    load(text)


def test_photos_are_turned_alike_by_detector_and_extractor():
  source = 'source: DETECTOR detector { apply_exif_orientation: false }'
  load(source, 'extraction.apply_exif_orientation: false')
  with pytest.raises(ConfigError, match=r'is false but extraction\.apply_exif_orientation is true'):
    load(source, 'extraction.max_features: 1000')
  with pytest.raises(ConfigError, match=r'is true but extraction\.apply_exif_orientation is false'):
    load('source: DETECTOR', 'extraction.apply_exif_orientation: false')
