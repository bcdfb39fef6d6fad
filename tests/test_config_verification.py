"""What VerificationConfig may say."""

import pytest

from delf_d2r import config
from delf_d2r.errors import ConfigError


def load(text):
  return config.load_or_default(None, ['verification'], overrides=[f'verification {{ {text} }}']).verification


@pytest.mark.parametrize(
  ('field', 'text'),
  [
    ('num_images', 'num_images: 0'),
    ('max_distance', 'max_distance: 0'),
    ('max_distance', 'max_distance: nan'),
    ('ratio', 'ratio: 0'),
    ('ratio', 'ratio: 1.01'),
    ('max_residual', 'max_residual: -1'),
    ('trials', 'trials: 0'),
    ('min_inliers', 'min_inliers: 0'),
    ('max_scale', 'max_scale: 0.9'),
    ('max_anisotropy', 'max_anisotropy: nan'),
    ('min_spread', 'min_spread: -1'),
    ('seed', 'seed: -1'),
    ('queries_per_shard', 'queries_per_shard: 0'),
    ('estimator', 'estimator: DEGENSAC'),
    ('model', 'compat: true model: HOMOGRAPHY'),
  ],
)
def test_each_rule(field, text):
  with pytest.raises(ConfigError, match=rf'{field} '):
    load(text)


def test_what_is_legal():
  assert load('estimator: DEGENSAC model: HOMOGRAPHY').trials == 1000
  assert load('compat: true max_residual: 20 max_distance: 1').compat


def test_packaged_experiment():
  loaded = config.load('configs/experiments/sift_asmk_star_sp_qe.pbtxt', ['search'])
  assert loaded.verification == config.default('verification').verification
  assert loaded.expansion == config.default('expansion').expansion


def test_defaults_of_an_experiment_have_no_verification():
  assert not config.load('configs/experiments/sift_asmk_star.pbtxt', ['search']).HasField('verification')


@pytest.mark.parametrize('field', ['num_images', 'min_inliers', 'weight_alpha', 'min_images_per_word'])
def test_each_rule_of_expansion(field):
  with pytest.raises(ConfigError, match=f'{field} is -1'):
    config.load_or_default(None, ['expansion'], overrides=[f'expansion.{field}: -1'])


def test_expansion_needs_verification():
  stages = ['search', 'aggregation']
  with pytest.raises(ConfigError, match='there is no verification'):
    config.load_or_default(None, stages, overrides=['expansion { }'])
  config.load_or_default(None, stages, overrides=['expansion { }', 'verification { }'])
  config.load_or_default(None, ['expansion'])
