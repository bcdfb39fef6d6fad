"""Fixtures: a tiny benchmark of real photos, and an experiment that takes seconds on it."""

import pathlib

import pytest

from delf_d2r import config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.experiments import experiment

TINY_CONFIG = """
name: "tiny"
regions { source: UNIFORM uniform { boxes_per_side: [2] } }
extraction {
  max_features: 150 max_image_size: 256 max_crop_size: 192 images_per_shard: 4
  root_sift { contrast_threshold: 0.02 }
}
codebook { num_words: 256 iterations: 5 }
aggregation { kernel: ASMK_STAR regions: REGIONAL_AGGREGATION images_per_shard: 8 }
report { results_per_query: 4 matches: 2 }
"""


@pytest.fixture(scope='session')
def benchmark(tmp_path_factory):
  return mini_benchmark.generate(
    tmp_path_factory.mktemp('mini') / 'photos', seed=1, scenes_per_object=2, num_distractors=4
  )


@pytest.fixture(scope='session')
def dataset(benchmark):
  return Dataset.load(
    benchmark.images_dir, ground_truth=benchmark.ground_truth_path, query_images=benchmark.queries_dir
  )


@pytest.fixture(scope='session')
def config_path(tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('config') / 'tiny.pbtxt'
  path.write_text(TINY_CONFIG)
  return path


@pytest.fixture(scope='session')
def load(config_path):
  """Returns the tiny config with overrides."""
  return lambda *overrides: config.load(config_path, experiment.STAGES, overrides=overrides)


@pytest.fixture(scope='session')
def run(load, dataset, benchmark, tmp_path_factory):
  """Runs the tiny experiment with overrides into a folder, in this process."""

  def run_tiny(*overrides, output=None, given=None, redo=False, boxes=False):
    return experiment.run(
      load(*overrides),
      dataset,
      output or tmp_path_factory.mktemp('run'),
      ground_truth=benchmark.ground_truth_path,
      boxes_path=benchmark.boxes_path if boxes else None,
      given=given,
      options=experiment.Options(workers=1, redo=redo),
    )

  return run_tiny


@pytest.fixture(scope='session')
def finished(run):
  """Returns a finished run, which tests only read."""
  return run()


@pytest.fixture(scope='session')
def finished_dir(finished) -> pathlib.Path:
  return finished.artefacts['index'].path.parent
