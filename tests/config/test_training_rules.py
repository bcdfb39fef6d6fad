"""Rules of the training of DELF."""

import pytest

from delf_d2r import config
from delf_d2r.errors import ConfigError


def load(text):
  return config.load_or_default(None, ['training'], overrides=[f'training {{ {text} }}']).training


@pytest.mark.parametrize(
  'text',
  [
    'objective: WARPED_PAIRS image_size: 320 warped_pairs { max_zoom: 2 }',
    'objective: CLASSIFICATION image_size: 321',
    'augmentation { min_aspect_ratio: 0.5 max_aspect_ratio: 0.5 }',
    'validation { scales: [0.5, 8] }',
  ],
)
def test_legal(text):
  load(text)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('steps: 0', 'steps is 0; it must be at least 1'),
    ('objective: CLASSIFICATION warped_pairs { max_zoom: 2 }', 'objective: WARPED_PAIRS'),
    ('objective: WARPED_PAIRS image_size: 321', 'image_size is 321.*multiple of 32'),
    (
      'augmentation { min_aspect_ratio: 2 max_aspect_ratio: 1 }',
      'min_aspect_ratio is above max',
    ),
    ('validation { scales: [1, 0] }', r'validation.scales must be in \(0, 8\]'),
    ('validation { scales: nan }', r'validation.scales must be in \(0, 8\]'),
    ('optimizer { momentum: 1 }', 'momentum'),
  ],
)
def test_illegal(text, message):
  with pytest.raises(ConfigError, match=message):
    load(text)
