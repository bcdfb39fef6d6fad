"""train_whitening: what it writes, what it is made from, and features that it is not for."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.stored_features import contents, image, write_features

from delf_d2r import config as configs
from delf_d2r.data.artefacts import pca_files
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.kernels import whitening
from delf_d2r.stages import train_whitening

NAMES = (*(f'{folder}/{n}.jpg' for folder in 'abc' for n in range(4)), 'loose.jpg')


@pytest.fixture
def descriptors():
  found = np.random.default_rng(0).normal(size=(len(NAMES), 6)).astype(np.float32)
  return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def features(tmp_path, descriptors):
  images = [image(name, np.zeros((1, 2)), row[None]) for name, row in zip(NAMES, descriptors, strict=True)]
  return write_features(tmp_path / 'features', images, extractor=3)


def options(shrinkage=0.1):
  return configs.load_or_default(None, ['whitening'], overrides=[f'whitening.shrinkage: {shrinkage}'])


def test_it_is_learned_from_labelled_photos_alone(features, descriptors, tmp_path):
  made = train_whitening.run(options(), features, tmp_path / 'out')
  expected = whitening.learn(descriptors[:12], np.arange(12).reshape(3, 4), shrinkage=0.1)
  found = pca_files.load(made.path)
  assert_allclose(found.components, expected.components, rtol=1e-4, atol=1e-6)
  assert_allclose(found.mean, expected.mean, atol=1e-6)
  assert (made.counts['objects'], made.counts['photos'], made.counts['dimensions']) == (3, 12, 6)


def test_labels_of_a_file(features, descriptors, tmp_path):
  path = tmp_path / 'labels.csv'
  path.write_text('path,label\nloose.jpg,x\na/1.jpg,x\nb/1.jpg,y\nb/2.jpg,y\nb/3.jpg,y\n')
  made = train_whitening.run(options(), features, tmp_path / 'out', labels_path=path)
  chosen = descriptors[[1, 5, 6, 7, 12]]
  expected = whitening.learn(chosen, [np.array([0, 4]), np.array([1, 2, 3])], shrinkage=0.1)
  # Five descriptors span four directions.
  found = pca_files.load(made.path).components[:4]
  assert_allclose(found, expected.components[:4], rtol=1e-3, atol=1e-5)
  with pytest.raises(ArtefactError, match='input labels is'):
    train_whitening.run(options(), features, tmp_path / 'out')
  with pytest.raises(ArtefactError, match=r'whitening\.shrinkage is 0\.1 there, 0\.2 here'):
    train_whitening.run(options(0.2), features, tmp_path / 'out', labels_path=path)


def test_same_bytes(features, tmp_path):
  first, second = (train_whitening.run(options(), features, tmp_path / name) for name in 'ab')
  assert contents(first) == contents(second)
  assert train_whitening.run(options(), features, tmp_path / 'a').manifest == first.manifest


def test_local_features_have_no_one_descriptor(tmp_path):
  images = [image(name, np.zeros((2, 2)), np.eye(2, 6, dtype=np.float32)) for name in NAMES]
  local = write_features(tmp_path / 'local', images)
  with pytest.raises(
    UserError, match=r'a/0\.jpg has 2 features, but a whitening is learned from images of one'
  ):
    train_whitening.run(options(), local, tmp_path / 'out')


def test_too_few_pairs(features, tmp_path):
  few = tmp_path / 'few.csv'
  few.write_text('path,label\na/0.jpg,x\na/1.jpg,x\n')
  with pytest.raises(UserError, match='1 pairs leave directions without variance'):
    train_whitening.run(options(0), features, tmp_path / 'out', labels_path=few)
  assert not (tmp_path / 'out' / 'manifest.pbtxt').exists()
