"""DELF from a shell: export, extraction with a config of the DELF code, PCA, and a search with both."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.data.artefacts import feature_files, pca_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.engine import SearchEngine
from delf_d2r.experiments import experiment

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MODEL = 'model { endpoint: "conv3" attention: L2_NORM reduced_dimensions: 0 }'
DELF_CONFIG = """
model_path: "{model}"
image_scales: 0.7071
image_scales: 1.0
delf_local_config {{ use_pca: false max_feature_num: 200 score_threshold: 0.0 }}
max_image_size: 256
"""


def d2r(command, *arguments):
  return subprocess.run(
    [sys.executable, str(REPOSITORY / 'tools' / f'{command}.py'), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('delf')
  (folder / 'model.pbtxt').write_text(MODEL)
  done = d2r(
    'export_delf', f'--config_path={folder / "model.pbtxt"}', f'--output={folder / "model"}', '--notes=CC0'
  )
  assert done.returncode == 0, done.stderr
  assert 'CC0' in (folder / 'model' / 'model_card.md').read_text()
  # The messages of TensorFlow would hide those of the command.
  assert len(done.stderr.splitlines()) <= 2, done.stderr
  return folder / 'model'


def test_research_config_pca_and_search(model, benchmark, tmp_path):
  (tmp_path / 'delf_config.pbtxt').write_text(DELF_CONFIG.format(model=model))
  done = d2r(
    'extract_features',
    f'--config_path={tmp_path / "delf_config.pbtxt"}',
    f'--images={benchmark.images_dir}',
    f'--output={tmp_path / "features"}',
    '--workers=1',
  )
  assert done.returncode == 0, done.stderr
  features = Artefact.open(tmp_path / 'features', 'features')
  image = next(feature_files.read(features))
  assert (len(image.features), image.features.dimensions) == (200, 40)
  np.testing.assert_allclose(np.linalg.norm(image.features.descriptors, axis=1), 1, rtol=1e-5)

  done = d2r('train_pca', f'--features={tmp_path / "features"}', f'--output={tmp_path / "pca"}')
  assert done.returncode == 0, done.stderr
  assert pca_files.load(tmp_path / 'pca').dimensions == 40

  dataset = Dataset.load(benchmark.images_dir)
  overrides = [
    'extraction { extractor: DELF max_features: 150 max_image_size: 256 delf { image_scales: [1] } }',
    'extraction.region_features: SHARED_FEATURE_MAP',
    f'extraction.delf.model_path: "{model}"',
    f'extraction.delf.pca {{ path: "{tmp_path / "pca"}" dimensions: 32 }}',
    'regions { source: UNIFORM uniform { boxes_per_side: [2] } }',
    'codebook { num_words: 128 iterations: 3 }',
    'aggregation { regions: REGIONAL_AGGREGATION }',
  ]
  config = configs.load_or_default(None, experiment.STAGES, overrides=overrides)
  experiment.run(config, dataset, tmp_path / 'out', options=experiment.Options(workers=1))
  engine = SearchEngine.load(tmp_path / 'out')
  name = dataset.images.names[2]
  answer = engine.search(dataset.images.path(name), top_k=3)
  assert answer.results[0].name == name


def test_errors_of_the_shell(model, tmp_path):
  (tmp_path / 'model.pbtxt').write_text(MODEL)
  for arguments, message in (
    ([f'--config_path={tmp_path / "model.pbtxt"}', f'--output={model}'], 'exists already'),
    ([f'--output={tmp_path / "x"}'], 'give either --trained'),
  ):
    done = d2r('export_delf', *arguments)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr
