"""Rules of verification and expansion."""

import importlib.machinery
import sys
import types

import pytest

from delf_d2r import config
from delf_d2r.config.rules import runs
from delf_d2r.errors import ConfigError
from delf_d2r.verifier import Verifier


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


def test_legal():
  assert load('estimator: DEGENSAC model: HOMOGRAPHY').trials == 1000
  assert load('compat: true max_residual: 20 max_distance: 1').compat


@pytest.mark.parametrize('is_installed', [False, True])
def test_an_estimator_that_is_not_installed_is_said_before_anything_runs(monkeypatch, is_installed):
  found = types.ModuleType('pydegensac')
  found.__spec__ = importlib.machinery.ModuleSpec('pydegensac', None)
  monkeypatch.setitem(sys.modules, 'pydegensac', found if is_installed else None)
  loaded = config.load_or_default(
    None, ['verification'], overrides=['verification { estimator: DEGENSAC model: HOMOGRAPHY }']
  )
  problems = [problem.text for problem in runs.problems(loaded)]
  if is_installed:
    assert not problems
    Verifier(loaded.verification)
  else:
    assert ['pip install pydegensac' in problem for problem in problems] == [True]
    with pytest.raises(ConfigError, match='pip install pydegensac'):
      Verifier(loaded.verification)


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


def test_expansion_of_two_verified_rankings():
  texts = ['verification.junk: SKIP_EACH', 'expansion { }']
  problems = [
    [
      problem.field
      for problem in runs.problems(config.load_or_default(None, ['search'], overrides=overrides))
    ]
    for overrides in (texts, texts[:1])
  ]
  assert problems == [['expansion'], []]
