"""Rules of extraction with DELF."""

import pytest

from delf_d2r import config
from delf_d2r.errors import ConfigError


def load(*overrides, extractor='DELF'):
  overrides = [f'extraction.extractor: {extractor}', *(f'extraction {{ {text} }}' for text in overrides)]
  return config.load_or_default(None, ['extraction'], overrides=overrides).extraction


def test_defaults():
  found = load()
  assert not found.HasField('delf')
  assert (found.delf.model_path, found.delf.nms_iou, found.delf.min_cells_across_box) == ('', 1, 4)
  assert load('delf { model_path: "x" }').delf.nms_iou == 1


@pytest.mark.parametrize(
  'text',
  [
    'region_features: SHARED_FEATURE_MAP',
    'delf { image_scales: [0.5, 1, 8] nms_iou: 0.5 min_cells_across_box: 0 mixed_precision: true }',
    'delf { pca { path: "p" dimensions: 64 whitening: true } }',
    'delf { pca { mean_path: "m" projection_matrix_path: "c" } }',
    'delf { pca { mean_path: "m" projection_matrix_path: "c" variances_path: "v" whitening: true } }',
  ],
)
def test_legal(text):
  load(text)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('delf { image_scales: [1, 0] }', r'delf.image_scales is \[1.0, 0.0\]; every scale must be in \(0, 8\]'),
    ('delf { image_scales: nan }', 'every scale must be in'),
    ('delf { nms_iou: 0 }', r'delf.nms_iou is 0; it must be in \(0, 1\]'),
    ('delf { nms_iou: nan }', 'delf.nms_iou is nan'),
    ('region_features: SHARED_FEATURE_MAP delf { nms_iou: 0.5 }', 'no effect with region_features: SHARED'),
    ('delf { min_cells_across_box: -1 }', 'at least 0'),
    ('delf { pca { dimensions: 64 } }', 'needs either path'),
    ('delf { pca { mean_path: "m" } }', 'needs either path'),
    ('delf { pca { path: "p" mean_path: "m" } }', 'both path and .datum files'),
    ('delf { pca { path: "p" dimensions: -1 } }', 'dimensions is -1'),
    ('delf { pca { mean_path: "m" projection_matrix_path: "c" whitening: true } }', 'needs variances_path'),
  ],
)
def test_refused(text, message):
  with pytest.raises(ConfigError, match=message):
    load(text)


def test_fields_of_another_extractor_are_refused():
  with pytest.raises(ConfigError, match=r'delf has an effect only with .*DELF.*, found ROOT_SIFT'):
    load('delf { model_path: "x" }', extractor='ROOT_SIFT')
  with pytest.raises(ConfigError, match='ROOT_SIFT has no feature maps'):
    load('region_features: SHARED_FEATURE_MAP', extractor='ROOT_SIFT')
  with pytest.raises(ConfigError, match=r'root_sift has an effect only with .*, found DELF'):
    load('root_sift { upright: true }')
