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
    'model { global_dimensions: 8 } global_start { } photos_of_class: 4 loss { metric { } }',
    'loss { trimmed_share: 0.2 }',
    'model { global_dimensions: 8 } validation { metric: GLOBAL_RETRIEVAL_MAP also: RETRIEVAL_MAP }',
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
    ('global_start { }', 'global_start is about the global head, but model.global_dimensions is 0'),
    ('model { arcface_sub_centers: 3 }', 'arcface_sub_centers is about the global head'),
    ('validation { metric: GLOBAL_RETRIEVAL_MAP }', 'validation.metric is about the global head'),
    ('validation { metric: LOSS also: RETRIEVAL_MAP }', 'validation.also adds .* found LOSS, RETRIEVAL_MAP'),
    ('photos_of_class: 3', 'photos_of_class is 3, which does not divide batch_size 32'),
    ('model { global_dimensions: 8 } loss { metric { } }', 'photos_of_class is 0, but loss.metric compares'),
    (
      'model { global_dimensions: 8 } photos_of_class: 2 loss { metric { temperature: 0 } }',
      'temperature is 0; it must be positive',
    ),
    ('model { global_dimensions: 8 } global_start { power: 2 }', r'power is 2; it must be in \[0, 1\]'),
    ('model { global_dimensions: 8 } global_start { photos: -1 }', 'photos is -1; 0 means all'),
    ('loss { trimmed_share: 1 }', 'trimmed_share is 1'),
    ('class_balance: 1.5', r'class_balance is 1.5; it must be in \[0, 1\]'),
    (
      'objective: WARPED_PAIRS image_size: 320 class_balance: 1',
      'class_balance has an effect only with objective: CLASSIFICATION, found WARPED_PAIRS',
    ),
  ],
)
def test_illegal(text, message):
  with pytest.raises(ConfigError, match=message):
    load(text)
