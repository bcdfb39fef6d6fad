"""DELF in the stages: several processes, a threshold explained, a changed model noticed, and PCA."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from support.delf_models import noise, tiny_model, tiny_module

from delf_d2r import config as configs
from delf_d2r.data.artefacts import feature_files, pca_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.models.delf import export
from delf_d2r.stages import extract_features, train_pca


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> pathlib.Path:
  return export.save(
    tiny_module(), tiny_model().config, tmp_path_factory.mktemp('model') / 'tiny', card={'name': 'tiny'}
  )


@pytest.fixture(scope='module')
def photos(tmp_path_factory) -> Dataset:
  folder = tmp_path_factory.mktemp('photos')
  for number in range(3):
    Image.fromarray(noise(96, 80 + 16 * number, number)).save(folder / f'{number}.png')
  return Dataset.load(folder)


def run(model, photos, output, *changes, workers=1):
  overrides = [
    'extraction.extractor: DELF',
    'extraction { max_features: 60 delf { image_scales: [0.7, 1] } }',
    f'extraction.delf.model_path: "{model}"',
    *changes,
  ]
  config = configs.load_or_default(None, ['extraction'], overrides=overrides)
  return extract_features.run(config, photos, output, boxes=None, workers=workers)


@pytest.mark.slow
def test_processes_give_what_one_gives(model, photos, tmp_path):
  alone = run(model, photos, tmp_path / 'a')
  together = run(model, photos, tmp_path / 'b', workers=2)
  assert alone.counts['features'] == 3 * 60
  for one, other in zip(feature_files.read(alone), feature_files.read(together), strict=True):
    assert one.name == other.name
    np.testing.assert_allclose(one.features.descriptors, other.features.descriptors, atol=1e-4)
    np.testing.assert_allclose(one.features.locations, other.features.locations, atol=1e-3)


def test_threshold_that_removes_everything_is_explained(model, photos, tmp_path):
  with pytest.raises(
    UserError, match=r'no features at all in 3 index images.*min_attention 1e\+06 removes.*from 0'
  ):
    run(model, photos, tmp_path / 'a', 'extraction.min_attention: 1e6')
  assert not (tmp_path / 'a' / 'manifest.pbtxt').exists()


def test_other_weights_at_the_same_place_make_features_stale(model, photos, tmp_path):
  copy = tmp_path / 'model'
  shutil.copytree(model, copy)
  run(copy, photos, tmp_path / 'a')
  run(copy, photos, tmp_path / 'a')  # Up to date.
  with open(copy / 'model_card.md', 'a', encoding='utf-8') as file:
    file.write('changed')
  with pytest.raises(ArtefactError, match='input model is'):
    run(copy, photos, tmp_path / 'a')


def test_pca_from_features_and_back_into_extraction(model, photos, tmp_path):
  features = run(model, photos, tmp_path / 'features')
  artefact = train_pca.run(features, tmp_path / 'pca')
  assert artefact.counts == {'descriptors': 180, 'dimensions': 16, 'failed': 0}
  assert (
    train_pca.run(Artefact.open(tmp_path / 'features', 'features'), tmp_path / 'pca').counts
    == artefact.counts
  )
  descriptors = np.concatenate([image.region(0).descriptors for image in feature_files.read(features)])
  pca = pca_files.load(tmp_path / 'pca')
  np.testing.assert_allclose(pca.mean, descriptors.mean(0), atol=1e-5)
  np.testing.assert_allclose(pca.variances.sum(), descriptors.astype(float).var(0, ddof=1).sum(), rtol=1e-4)
  change = f'extraction.delf.pca {{ path: "{tmp_path / "pca"}" dimensions: 4 }}'
  reduced = run(model, photos, tmp_path / 'reduced', change)
  assert {image.features.dimensions for image in feature_files.read(reduced)} == {4}
  with pytest.raises(UserError, match='reduced by a PCA'):
    train_pca.run(reduced, tmp_path / 'again')


def test_pca_needs_more_descriptors_than_dimensions(model, photos, tmp_path):
  features = run(model, photos, tmp_path / 'features', 'extraction.max_features: 2')
  with pytest.raises(UserError, match='has 6 descriptors of 16 dimensions'):
    train_pca.run(features, tmp_path / 'pca')
