"""The published path of Detect-to-Retrieve from its own config files, compared with sessions of TensorFlow 1.

Once with the real graphs and configs, where ../shared/data is beside the checkout, and always with a small
model and configs of the same form.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from support import local_feature_models, published_files
from support.delf_models import noise
from support.published_files import DELF, PUBLISHED, DelfSession, needs_published, write_pca

from delf_d2r.data.artefacts import feature_files, records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.legacy import datum
from delf_d2r.geometry.boxes import crop_slices
from delf_d2r.models import codebook_checkpoint
from delf_d2r.protos.aggregation_pb2 import AggregationConfig

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CODEBOOK = 'parameters/rparis6k_codebook_65536/k65536_codebook_tfckpt/codebook'
SMALL_CONFIG = f"""
model_path: "parameters/{DELF}/model"
image_scales: 0.5
image_scales: 1.0
image_scales: 1.4142
delf_local_config {{
  use_pca: true
  layer_name: "resnet_v1_50/block3"
  iou_threshold: 1.0
  max_feature_num: 40
  score_threshold: 0.7
  pca_parameters {{
    mean_path: "parameters/{DELF}/pca/mean.datum"
    projection_matrix_path: "parameters/{DELF}/pca/pca_proj_mat.datum"
    pca_dim: 4
    use_whitening: true
    pca_variances_path: "parameters/{DELF}/pca/pca_variances.datum"
  }}
}}
"""
SMALL_AGGREGATION = f"""
codebook_size: 8
feature_dimensionality: 4
aggregation_type: ASMK_STAR
use_l2_normalization: false
codebook_path: "{CODEBOOK}"
num_assignments: 1
use_regional_aggregation: true
feature_batch_size: 100
alpha: 3.0
tau: 0.0
"""


@dataclasses.dataclass(frozen=True)
class Model:
  """A published model: what its config says, and how many features one photo may have."""

  scales: tuple[float, ...]
  threshold: float
  max_features: int
  dimensions: int
  whitening: bool


def small(folder: pathlib.Path) -> Model:
  (folder / 'delf_gld_config.pbtxt').write_text(SMALL_CONFIG)
  (folder / 'index_aggregation_config.pbtxt').write_text(SMALL_AGGREGATION)
  local_feature_models.write_tf1(folder / 'parameters' / DELF / 'model')
  write_pca(folder, mean=np.full(6, 0.01), variances=np.linspace(2, 0.5, 6))
  for seed, size in enumerate([(70, 99), (64, 80)]):
    Image.fromarray(noise(*size, seed=seed)).save(folder / 'photos' / f'{seed}.png')
  return Model((0.5, 1.0, 1.4142), 0.7, 40, 4, whitening=True)


def published(folder: pathlib.Path) -> Model:
  for name in ('delf_gld_config', 'index_aggregation_config'):
    shutil.copyfile(PUBLISHED / DELF / f'{name}.pbtxt', folder / f'{name}.pbtxt')
  published_files.write_delf(folder)
  for name in ('e1', 't1'):
    with Image.open(PUBLISHED / f'delf_v1_features/train/{name}.jpg') as photo:
      photo.crop((40, 20, 240, 180)).save(folder / 'photos' / f'{name}.png')
  return Model((0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0), 100, 1000, 128, whitening=False)


def d2r(folder, command, **flags) -> str:
  """Runs a command in a folder and returns its standard error."""
  arguments = [f'--{name}={value}' for name, value in flags.items()]
  done = subprocess.run(
    [sys.executable, str(REPOSITORY / 'tools' / f'{command}.py'), *arguments],
    cwd=folder,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
    capture_output=True,
    text=True,
    check=False,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  return done.stderr


@pytest.mark.parametrize('make', [small, pytest.param(published, marks=needs_published)])
def test_published_configs_give_what_a_session_gives(tmp_path, make):
  (tmp_path / 'photos').mkdir()
  model = make(tmp_path)
  (tmp_path / 'boxes.csv').write_text(
    'image,ymin,xmin,ymax,xmax,score\n'
    + ''.join(f'{photo.name},0.1,0.2,0.9,0.85,0.8\n' for photo in sorted((tmp_path / 'photos').iterdir()))
  )
  said = d2r(
    tmp_path,
    'detect_boxes',
    override='regions.source: FILE',
    boxes_file='boxes.csv',
    images='photos',
    output='boxes',
  )
  said += d2r(
    tmp_path,
    'extract_features',
    config_path='delf_gld_config.pbtxt',
    images='photos',
    boxes='boxes',
    output='features',
    workers=2,
  )
  assert 'python object' not in said
  compare_with_session(tmp_path, model)

  words = np.random.default_rng(0).normal(0, 0.1, (8, model.dimensions)).astype(np.float32)
  (tmp_path / CODEBOOK).parent.mkdir(parents=True)
  codebook_checkpoint.write(tmp_path / CODEBOOK, words, name_based=True)
  d2r(tmp_path, 'convert', input=CODEBOOK, config_path='delf_gld_config.pbtxt', output='codebook')
  aggregation = {'config_path': 'index_aggregation_config.pbtxt', 'codebook': 'codebook'}
  d2r(tmp_path, 'aggregate_features', features='features', output='descriptors', **aggregation)
  d2r(tmp_path, 'build_index', descriptors='descriptors', output='index', **aggregation)
  found = Artefact.open(tmp_path / 'index', 'index').config.aggregation
  assert found.kernel == AggregationConfig.ASMK_STAR
  assert found.regions == AggregationConfig.REGIONAL_AGGREGATION
  assert (found.alpha, found.tau, found.normalize) == (3, 0, False)


def compare_with_session(folder: pathlib.Path, model: Model) -> None:
  """Compares the features of every region with those that a session and NumPy give for its pixels."""
  session = DelfSession(folder / 'parameters' / DELF / 'model')
  mean, matrix, variances = (
    datum.read(folder / 'parameters' / DELF / f'pca/{name}.datum')
    for name in ('mean', 'pca_proj_mat', 'pca_variances')
  )
  artefact = Artefact.open(folder / 'features', 'features')
  total = 0
  for image in feature_files.read(artefact):
    with Image.open(folder / 'photos' / image.name) as photo:
      pixels = np.asarray(photo.convert('RGB'))
    assert len(image.boxes) == 2
    for region, box in enumerate(image.boxes):
      found = image.region(region)
      rows, columns = crop_slices(box, *pixels.shape[:2])
      raw = session(
        np.ascontiguousarray(pixels[rows, columns]),
        list(model.scales),
        threshold=model.threshold,
        max_features=model.max_features,
      )
      total += len(found)
      places = (raw['boxes'][:, :2] + raw['boxes'][:, 2:]) / 2 + [rows.start, columns.start]
      assert_allclose(found.locations, places, atol=1e-3)
      assert_allclose(found.attention, raw['scores'].ravel(), rtol=1e-4)
      assert_allclose(found.scales, raw['scales'].ravel(), rtol=1e-5)
      unit = raw['features'] / np.linalg.norm(raw['features'], axis=1, keepdims=True)
      wanted = ((unit - mean) @ matrix.T)[:, : model.dimensions]
      if model.whitening:
        wanted /= np.sqrt(variances.ravel()[: model.dimensions])
      wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
      assert_allclose(found.descriptors, wanted, atol=1e-4)
  assert total > 50


@needs_published
def test_boxes_of_a_published_detector_are_those_of_a_session(tmp_path):
  (tmp_path / 'photos').mkdir()
  for name in ('e1', 't1'):
    shutil.copyfile(PUBLISHED / f'delf_v1_features/train/{name}.jpg', tmp_path / f'photos/{name}.jpg')
  directory = PUBLISHED / 'od_api_tf1_ssd/saved_model'
  said = d2r(
    tmp_path,
    'detect_boxes',
    override=f'regions {{ source: DETECTOR max_boxes: 10 detector {{ model_path: "{directory}" }} }}',
    images='photos',
    output='boxes',
    workers=2,
  )
  assert 'python object' not in said
  run = published_files.detector_session(directory)
  for name, boxes in map(records.decode_boxes, Artefact.open(tmp_path / 'boxes', 'boxes').records()):
    with Image.open(tmp_path / 'photos' / name) as photo:
      wanted, scores = run(np.asarray(photo.convert('RGB')))
    assert len(boxes.scores) == 10
    best = np.argsort(-scores, kind='stable')[:10]
    assert_allclose(boxes.scores, scores[best], atol=1e-5)
    assert_allclose(boxes.coordinates, np.clip(wanted[best], 0, 1), atol=1e-4)
