"""The configs of the demo: what they have in common, and that its last one is the default experiment."""

import pathlib

import pytest

from delf_d2r import config
from delf_d2r.experiments import demo, experiment, run_experiment


def load(name):
  return config.load(name, experiment.STAGES)


@pytest.fixture(scope='module')
def loaded():
  return {name: load(f'configs/experiments/mini/{name}.pbtxt') for name in demo.EXPERIMENTS}


def test_every_config_of_the_folder_is_compared_under_its_name(loaded):
  folder = pathlib.Path(__file__).resolve().parents[2] / 'configs/experiments/mini'
  assert sorted(loaded) == sorted(path.stem for path in folder.iterdir())
  assert {name: found.name for name, found in loaded.items()} == {name: name for name in loaded}


def test_all_have_the_same_features(loaded):
  assert len({config.fingerprint(found.extraction) for found in loaded.values()}) == 1
  # So that nothing is extracted twice.
  detected = ('d2r_rasmk_star', 'd2r_regional_search', 'default')
  assert len({config.fingerprint(loaded[name].regions) for name in detected}) == 1


def test_the_last_one_is_the_default_of_smaller_photos(loaded):
  found, default = loaded[demo.EXPERIMENTS[-1]], load(run_experiment.DEFAULT_CONFIG)
  assert found.name == default.name
  for one in (found, default):
    one.fusion.extraction.ClearField('images_per_shard')
  for part in ('codebook', 'aggregation', 'fusion', 'search'):
    assert getattr(found, part) == getattr(default, part), part
  assert found.extraction.max_image_size < default.extraction.max_image_size
