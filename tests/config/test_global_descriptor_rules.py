"""Rules of configs of global descriptors."""

import pytest

from delf_d2r import config
from delf_d2r.errors import ConfigError
from delf_d2r.experiments import experiment

RIGHT = (
  'extraction.extractor: GLOBAL',
  'codebook { source: ORIGIN num_words: 1 }',
  'aggregation.kernel: VLAD',
)


def load(*overrides):
  return config.load_or_default(None, experiment.STAGES, overrides=[*RIGHT, *overrides])


@pytest.mark.parametrize(
  'change',
  [
    '',
    'extraction.global_descriptor { backbone: RESNET101 gem_power: inf image_scales: [1] }',
    'extraction.global_descriptor { model_path: "delg" pca { path: "p" dimensions: 64 whitening: true } }',
    'regions { source: UNIFORM uniform { boxes_per_side: [2] } }',
    'extraction.global_descriptor { shipped_model: true backbone_weights: "" }',
  ],
)
def test_legal(change):
  assert load(change).extraction.global_descriptor.endpoint == 'conv5'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ('codebook.source: K_MEANS', r"have no visual words. Set 'codebook \{ source: ORIGIN num_words: 1 \}'"),
    ('codebook.num_words: 64', 'ORIGIN, which is one word, but num_words is 64'),
    ('aggregation.kernel: ASMK', 'kernel is ASMK, but .* by kernel: VLAD'),
    ('extraction.region_features: INSIDE', 'region_features is INSIDE, but a global descriptor has no'),
    ('extraction.region_features: SHARED_FEATURE_MAP', 'SHARED_FEATURE_MAP, but a global descriptor'),
    ('extraction.min_attention: 1', 'min_attention has an effect only with .*, found GLOBAL'),
    ('extraction.delf { model_path: "x" }', 'delf has an effect only with .*, found GLOBAL'),
    ('extraction.root_sift { upright: true }', 'root_sift has an effect only with .*, found GLOBAL'),
    ('extraction.global_descriptor.gem_power: 0', 'gem_power is 0; it must be positive'),
    ('extraction.global_descriptor.gem_power: nan', 'gem_power is nan'),
    ('extraction.global_descriptor.backbone_weights: ""', 'backbone_weights is empty'),
    ('extraction.global_descriptor.image_scales: [0]', r'global_descriptor.image_scales is \[0.0\]'),
    ('extraction.global_descriptor.pca { dimensions: 3 }', r'global_descriptor\.pca needs either path'),
  ],
)
def test_refused(change, message):
  with pytest.raises(ConfigError, match=message):
    load(change)


def test_fields_of_global_descriptors_belong_to_them():
  with pytest.raises(ConfigError, match='global_descriptor has an effect only with extractor: GLOBAL'):
    load('extraction { extractor: ROOT_SIFT global_descriptor { gem_power: 2 } }')


def test_shipped_config():
  found = config.load('configs/experiments/gem_efficientnet_lite0.pbtxt', experiment.STAGES)
  assert found.extraction.global_descriptor.backbone_weights == 'imagenet'


@pytest.mark.parametrize(
  'change',
  [
    'extraction.global_descriptor { pooling: R_MAC region_levels: 2 backbone: ALEXNET }',
    'extraction.global_descriptor { scale_power: 3 }',
  ],
)
def test_legal_pooling(change):
  load(change)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ('extraction.global_descriptor.scale_power: 0', 'scale_power is 0; it must be positive'),
    ('extraction.global_descriptor.region_levels: 0', r'region_levels is 0; it must be in \[1, 16\]'),
    ('extraction.global_descriptor.region_levels: 2', 'region_levels has an effect only with pooling: R_MAC'),
    ('extraction.global_descriptor { pooling: R_MAC gem_power: 2 }', 'gem_power has an .* GEM, found R_MAC'),
    (
      'extraction.global_descriptor { pooling: R_MAC scale_power: 2 }',
      'scale_power has an .* GEM, found R_M',
    ),
    ('extraction.global_descriptor { pooling: R_MAC model_path: "x" }', 'pools by itself'),
    (
      'extraction.global_descriptor { pooling: R_MAC shipped_model: true }',
      'model of shipped_model pools by',
    ),
    ('extraction.global_descriptor { scale_power: 2 shipped_model: true }', 'may be negative'),
    (
      'extraction.global_descriptor { model_path: "x" shipped_model: true }',
      'shipped_model is true, but model_path names another model, x',
    ),
    (
      'extraction.global_descriptor { scale_power: 2 model_path: "x" }',
      'may be negative, which have no power',
    ),
  ],
)
def test_refused_pooling(change, message):
  with pytest.raises(ConfigError, match=message):
    load(change)
