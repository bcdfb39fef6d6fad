"""Rows of the paper whose weights are not shipped: their configs end to end, with random weights."""

import json

import keras
import numpy as np
import pytest
from oracles import global_oracle
from PIL import Image
from support.delf_models import noise
from support.onnx_models import write_linear
from support.run_files import score_table

from delf_d2r import config
from delf_d2r.data import files
from delf_d2r.data.artefacts import feature_files, match_records, pca_files, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ConfigError, UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import experiment
from delf_d2r.kernels.pca import Covariance
from delf_d2r.models.backbones import alexnet, efficientnet_lite
from delf_d2r.stages import extract_features, train_pca, train_whitening

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]
NUM_PHOTOS = 8
# The smallest backbone; making weights of the others takes seconds.
SMALLEST = 'backbone: ALEXNET endpoint: "conv2"'


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Pairs of photos, each in its folder, of which the second is slightly darker."""
  folder = tmp_path_factory.mktemp('photos')
  for number in range(NUM_PHOTOS):
    pixels = noise(128, 160, seed=number // 2)
    place = folder / f'{number // 2}'
    place.mkdir(exist_ok=True)
    Image.fromarray(pixels - pixels // 32 if number % 2 else pixels).save(place / f'{number}.png')
  queries = [
    {'image': f'{n // 2}/{n}.png', 'easy': [f'{n // 2}/{n + 1}.png'], 'junk': [f'{n // 2}/{n}.png']}
    for n in range(0, NUM_PHOTOS, 2)
  ]
  (folder / 'truth.json').write_text(json.dumps({'version': 1, 'queries': queries}))
  return folder


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  keras.utils.set_random_seed(0)
  path = tmp_path_factory.mktemp('weights') / 'alexnet.weights.h5'
  alexnet.build().save_weights(path)
  return str(path)


@pytest.fixture(scope='module')
def run(photos, tmp_path_factory):
  def run(name, *overrides, output=None):
    loaded = config.load(f'configs/experiments/{name}.pbtxt', experiment.STAGES, overrides=overrides)
    truth = photos / 'truth.json'
    return experiment.run(
      loaded,
      Dataset.load(photos, ground_truth=truth),
      output or tmp_path_factory.mktemp('run'),
      ground_truth=truth,
      options=experiment.Options(workers=1),
    )

  return run


def mean_average_precision(artefact) -> float:
  return metrics_files.read_metrics_json(artefact.path / 'metrics.json')['medium'].mean_average_precision


def global_override(weights, fields=''):
  return f'extraction.global_descriptor {{ {SMALLEST} backbone_weights: "{weights}" {fields} }}'


@pytest.fixture(scope='module')
def gem(run, weights):
  return run('vgg16_gem', global_override(weights, 'image_scales: [1]'))


def test_gem_with_learned_whitening(run, gem, weights, tmp_path):
  learned = train_whitening.run(
    config.default('whitening'), gem.artefacts['features'], tmp_path / 'whitening'
  )
  assert (learned.counts['objects'], learned.counts['photos']) == (4, 8)
  pca = f'pca {{ path: "{learned.path}" dimensions: 3 }}'
  whitened = run('vgg16_gem', global_override(weights, f'image_scales: [1] {pca}'))
  assert mean_average_precision(whitened.artefacts['metrics']) == 1
  (first, *_) = feature_files.read(whitened.artefacts['features'])
  assert first.features.dimensions == 3
  with pytest.raises(UserError, match=r'are reduced by a PCA\. Extract them without'):
    train_whitening.run(config.default('whitening'), whitened.artefacts['features'], tmp_path / 'again')


def test_alexnet(run, weights):
  found = run('alexnet_gem', f'extraction.global_descriptor.backbone_weights: "{weights}"')
  assert mean_average_precision(found.artefacts['metrics']) == 1


def test_rmac_is_a_sum_of_squares_reduced_by_a_pca_of_squares(run, weights, photos, tmp_path):
  loaded = config.find('configs/experiments/resnet101_rmac.pbtxt').read_text()
  # As in its header: once without the lines of `pca`.
  without = tmp_path / 'without.pbtxt'
  start, end = loaded.index('    pca {'), loaded.index('  }\n}\ncodebook')
  without.write_text(loaded[:start] + loaded[end:])
  options = experiment.Options(workers=1)

  configured = config.load(without, experiment.STAGES, overrides=[global_override(weights)])
  squares = extract_features.run(
    configured, Dataset.load(photos), tmp_path / 'squares', boxes=None, **options.extracting
  )
  pca = train_pca.run(squares, tmp_path / 'pca')
  assert pca.counts['descriptors'] == squares.counts['features'] > 8 * 14
  made = run('resnet101_rmac', global_override(weights, f'pca {{ path: "{pca.path}" dimensions: 16 }}'))
  vectors = [
    image.features.descriptors.sum(axis=0) for image in feature_files.read(made.artefacts['features'])
  ]
  vectors = np.stack(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
  assert vectors.shape == (NUM_PHOTOS, 16)
  np.testing.assert_allclose(score_table(made.artefacts['rankings']), vectors[::2] @ vectors.T, atol=1e-5)
  assert len(global_oracle.rmac_squares(31, 39, 3)) * 8 == squares.counts['features']
  assert mean_average_precision(made.artefacts['metrics']) == 1


def test_deep_spatial_matching(run, gem, weights):
  regions = f'activation_regions {{ {SMALLEST} backbone_weights: "{weights}" }}'
  folder = gem.artefacts['index'].path.parent
  made = run(
    'resnet101_gem_dsm',
    global_override(weights, 'image_scales: [1]'),
    f'verification {{ min_inliers: 8 max_residual: 8 extraction {{ {regions} }} }}',
    output=folder,
  )
  assert made.artefacts['rankings'].manifest.fingerprint == gem.artefacts['rankings'].manifest.fingerprint
  reranked = made.artefacts['reranked']
  assert mean_average_precision(made.artefacts['reranked_metrics']) == 1
  for query in match_records.read(reranked):
    inliers = {match.image_id: len(match) for match in query.matches}
    own = 2 * (int(query.query.split('/')[0]))
    assert min(inliers[own], inliers[own + 1]) > 2 * max(
      number for image, number in inliers.items() if image // 2 != own // 2
    )
  assert made.page.stat().st_size > 5000
  engine = SearchEngine.load(folder)
  assert engine.search(noise(128, 160), top_k=1).results[0].name.startswith('0/')
  with pytest.raises(UserError, match='has features of its own'):
    engine.search(noise(128, 160), verify=True)
  answer = engine.search(noise(128, 160), top_k=1)
  assert len(engine.match(answer.features.features, 0)) == 0


def test_global_rankings_verified_by_local_features(run, weights):
  made = run(
    'vgg16_gem',
    global_override(weights, 'image_scales: [1]'),
    'verification { extraction { extractor: ROOT_SIFT max_features: 200 } }',
  )
  stored = ranking_files.load(made.artefacts['reranked'].path)
  assert all(ranking.inliers[1] > 20 for ranking in stored.rankings)
  assert mean_average_precision(made.artefacts['reranked_metrics']) == 1


SMALL = ('codebook { num_words: 64 iterations: 3 }', 'extraction.max_features: 200')


def test_fusion_by_config(run, weights):
  other = (
    f'fusion {{ weight: 0.5 extraction {{ extractor: GLOBAL global_descriptor {{ {SMALLEST} backbone_weights:'
    f' "{weights}" image_scales: [1] }} }} codebook {{ source: ORIGIN num_words: 1 }} aggregation'
    ' { kernel: VLAD } }'
  )
  made = run('sift_asmk_star_sp', *SMALL, other)
  folder = made.artefacts['index'].path.parent
  first = score_table(made.artefacts['rankings'])
  second = score_table(Artefact.open(folder / 'other' / 'rankings', 'rankings'))

  def z(x):
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)

  np.testing.assert_allclose(score_table(made.artefacts['fused']), z(first) + 0.5 * z(second), atol=1e-4)
  assert mean_average_precision(made.artefacts['fused_metrics']) == 1
  # The fused ranking is verified with the features of the first search.
  reranked = made.artefacts['reranked']
  assert reranked.input('rankings').fingerprint == made.artefacts['fused'].manifest.fingerprint
  assert mean_average_precision(made.artefacts['reranked_metrics']) == 1


def test_hardnet(run, tmp_path):
  pytest.importorskip('onnxruntime', reason='files of ONNX need the package onnxruntime')
  matrix = np.random.default_rng(0).normal(size=(32 * 32, 16)).astype(np.float32)
  path = write_linear(tmp_path / 'hardnet.onnx', matrix, input_shape=('N', 1, 32, 32))
  made = run(
    'hardnet_asmk_star_sp',
    *SMALL,
    f'extraction.patches {{ model_path: "{path}" intensities: STANDARDIZED }}',
  )
  assert mean_average_precision(made.artefacts['reranked_metrics']) == 1
  assert made.artefacts['features'].input('model').fingerprint == files.fingerprint(path)


@pytest.mark.slow
def test_how(run, tmp_path):
  keras.utils.set_random_seed(0)
  lite = tmp_path / 'lite.weights.h5'
  efficientnet_lite.build().save_weights(lite)
  covariance = Covariance(40)
  covariance.add(np.random.default_rng(0).normal(size=(100, 40)))
  pca_files.save(covariance.pca(), tmp_path)
  made = run(
    'how_asmk_star',
    *SMALL,
    'extraction.delf.network { backbone: EFFICIENTNET_LITE0 endpoint: "conv3" attention_endpoint: "conv3" }',
    f'extraction.delf.network.backbone_weights: "{lite}"',
    f'extraction.delf.pca {{ path: "{tmp_path}" dimensions: 16 }}',
  )
  assert mean_average_precision(made.artefacts['metrics']) == 1
  (first, *_) = feature_files.read(made.artefacts['features'])
  assert first.features.dimensions == 16
  assert len(first.features) == 200
  assert made.artefacts['features'].input('model').fingerprint == files.fingerprint(lite)


@pytest.mark.parametrize(
  ('name', 'overrides', 'message'),
  [
    ('vgg16_gem', ['verification { }'], 'verification matches local features, but .* GLOBAL'),
    ('joined_gem_fused', ['verification { }', 'expansion { }'], 'fusion would be lost'),
    ('resnet101_gem_dsm', ['expansion { }'], 'makes other features than the search uses'),
    ('sift_asmk_star', ['fusion { }'], 'fusion lacks the other search'),
  ],
)
def test_stages_that_do_not_go_together_are_refused_at_once(run, tmp_path, name, overrides, message):
  with pytest.raises(ConfigError, match=message):
    run(name, *overrides, output=tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
