"""Global descriptors through every stage: a VLAD of one word at the origin is the descriptor itself."""

import json

import faiss
import keras
import numpy as np
import pytest
from PIL import Image
from support.delf_models import noise
from support.run_files import score_table

from delf_d2r import config
from delf_d2r.data.artefacts import feature_files, index_files, ranking_files
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ArtefactError
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import experiment
from delf_d2r.models.backbones import efficientnet_lite
from delf_d2r.stages import train_pca

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]
NUM_PHOTOS = 9
# Every photo of noise has a slightly darker copy, which is the positive of its query.
OBJECTS = range(0, NUM_PHOTOS - 1, 2)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('photos')
  for number in range(NUM_PHOTOS):
    pixels = noise(80, 96, seed=number // 2)
    Image.fromarray(pixels - pixels // 32 if number % 2 else pixels).save(folder / f'{number}.png')
  queries = [
    {'image': f'{n}.png', 'easy': [f'{n + 1}.png'], 'junk': [f'{n}.png'], 'box': [0, 0, 1, 1]}
    for n in OBJECTS
  ]
  (folder / 'truth.json').write_text(json.dumps({'version': 1, 'queries': queries}))
  return folder


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  keras.utils.set_random_seed(0)
  path = tmp_path_factory.mktemp('weights') / 'lite.weights.h5'
  efficientnet_lite.build().save_weights(path)
  return path


@pytest.fixture(scope='module')
def run(photos, weights, tmp_path_factory):
  def run(*changes, output=None, redo=False):
    loaded = config.load(
      'configs/experiments/gem_efficientnet_lite0.pbtxt',
      experiment.STAGES,
      overrides=[
        'extraction { min_image_size: 0 min_crop_size: 0 }',
        f'extraction.global_descriptor {{ backbone_weights: "{weights}" endpoint: "conv3" }}',
        *changes,
      ],
    )
    truth = photos / 'truth.json'
    return experiment.run(
      loaded,
      Dataset.load(photos, ground_truth=truth),
      output or tmp_path_factory.mktemp('run'),
      ground_truth=truth,
      options=experiment.Options(workers=1, redo=redo),
    )

  return run


@pytest.fixture(scope='module')
def finished(run):
  return run()


def region_descriptors(artefact) -> list[np.ndarray]:
  """Returns the descriptors [R, D] of each image."""
  return [image.features.descriptors for image in feature_files.read(artefact)]


def test_rankings_are_those_of_an_exact_search_of_inner_products(finished):
  index, queries = (
    np.concatenate(region_descriptors(finished.artefacts[kind])) for kind in ('features', 'query_features')
  )
  flat = faiss.IndexFlatIP(index.shape[1])
  flat.add(index)
  expected, ids = flat.search(queries, NUM_PHOTOS)
  stored = ranking_files.load(finished.artefacts['rankings'].path).rankings
  np.testing.assert_allclose([ranking.scores for ranking in stored], expected, atol=1e-5)
  np.testing.assert_array_equal([ranking.image_ids for ranking in stored], ids)


def test_copies_are_found_and_a_photo_is_answered(finished, photos):
  folder = finished.artefacts['index'].path.parent
  metrics = metrics_files.read_metrics_json(folder / 'metrics' / 'metrics.json')
  assert metrics['medium'].mean_average_precision == 1
  counts = finished.artefacts['index'].counts
  assert (counts['postings'], counts['entries']) == (NUM_PHOTOS, NUM_PHOTOS)
  results = SearchEngine.load(folder).search(photos / '4.png', top_k=2).results
  assert [result.name for result in results] == ['4.png', '5.png']
  assert results[0].score == pytest.approx(1, abs=1e-5)
  assert finished.page.stat().st_size > 5000


@pytest.mark.slow
def test_regional_search_takes_the_best_box_and_regional_aggregation_the_mean(run):
  grid = 'regions { source: UNIFORM uniform { boxes_per_side: [2] } }'
  best = run(grid, 'aggregation.regions: REGIONAL_SEARCH')
  mean = run(grid, 'aggregation { regions: REGIONAL_AGGREGATION normalize: true }')
  regions = region_descriptors(best.artefacts['features'])
  queries = np.concatenate(region_descriptors(best.artefacts['query_features']))
  assert {len(image) for image in regions} == {5}
  expected = np.stack([(queries @ image.T).max(axis=1) for image in regions], axis=1)
  np.testing.assert_allclose(score_table(best.artefacts['rankings']), expected, atol=1e-5)
  sums = np.stack([image.sum(axis=0) for image in regions])
  sums /= np.linalg.norm(sums, axis=1, keepdims=True)
  np.testing.assert_allclose(score_table(mean.artefacts['rankings']), queries @ sums.T, atol=1e-5)
  boxes = index_files.load_boxes(best.artefacts['index'].path)
  assert len(boxes.of(3)) == 5


def test_a_second_run_changes_nothing_and_other_pooling_is_refused(run, finished):
  folder = finished.artefacts['index'].path.parent
  before = finished.artefacts['rankings'].manifest.fingerprint
  again = run(output=folder)
  assert again.artefacts['rankings'].manifest.fingerprint == before
  with pytest.raises(ArtefactError, match=r'global_descriptor\.gem_power is 3 there, 1 here'):
    run('extraction.global_descriptor.gem_power: 1', output=folder)


@pytest.mark.slow
def test_other_weights_at_the_same_place_are_noticed(run, weights, tmp_path):
  own = tmp_path / 'own.weights.h5'
  own.write_bytes(weights.read_bytes())
  change = f'extraction.global_descriptor.backbone_weights: "{own}"'
  run(change, output=tmp_path / 'run')
  keras.utils.set_random_seed(1)
  efficientnet_lite.build().save_weights(own)
  with pytest.raises(ArtefactError, match='input model is'):
    run(change, output=tmp_path / 'run')


def test_pca_is_trained_on_global_descriptors(run, finished, tmp_path):
  reduced = run(
    'regions { source: UNIFORM uniform { boxes_per_side: [1, 2, 3] } }',
    'extraction.global_descriptor { endpoint: "conv1" }',
  )
  with pytest.raises(Exception, match='a PCA needs at least as many'):
    train_pca.run(reduced.artefacts['features'], tmp_path / 'pca')
