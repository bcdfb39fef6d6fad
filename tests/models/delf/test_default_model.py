"""The model that comes with the package: it is small, it loads without a download, and it finds things."""

import json

import numpy as np
import pytest

pytest.importorskip('tensorflow')

from delf_d2r import config as configs
from delf_d2r.data.scenes import mini_benchmark_photos as photos
from delf_d2r.extractors import delf, region_extractor
from delf_d2r.structures import Boxes

MODEL = delf.DEFAULT_MODEL


def build(*overrides):
  config = configs.load_or_default(None, ['extraction'], overrides=overrides).extraction
  return region_extractor.build(config)


@pytest.fixture(scope='module')
def joined():
  return build('extraction.extractor: ROOT_SIFT_AND_DELF', 'extraction.max_features: 200')


def test_it_fits_into_eight_mebibytes():
  assert sum(file.stat().st_size for file in MODEL.rglob('*') if file.is_file()) <= 8 * 2**20


def test_its_card_says_what_it_is():
  card = json.loads((MODEL / 'model_card.json').read_text(encoding='utf-8'))
  assert card['descriptor']['dimensions'] == 128
  assert card['descriptor']['whitening'] == 'on'
  for word in ('Apache-2.0', 'CC0', 'facades'):
    assert word in card['notes']


@pytest.mark.slow
def test_descriptors_are_unit_vectors_and_locations_lie_in_the_photo():
  photo = photos.load_photo(photos.object_photos()[0].scene_photo)
  found = build('extraction.extractor: DELF', 'extraction.max_features: 300').extract(
    'a', photo, Boxes.empty()
  )
  features = found.features
  assert features.descriptors.shape == (300, 128)
  np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-4)
  # Cells that see the edge of the photo may be centred half a cell outside.
  assert features.locations.min() > -32
  assert np.all(features.locations < np.array(photo.shape[:2]) + 32)


@pytest.mark.slow
def test_two_views_of_an_object_match_better_than_two_objects(joined):
  left, right, other = (
    joined.extract(name, photos.load_photo(photo), Boxes.empty()).features
    for name, photo in (
      ('left', next(o for o in photos.object_photos() if o.name == 'motorcycle').scene_photo),
      ('right', next(o for o in photos.object_photos() if o.name == 'motorcycle').query_photo),
      ('other', next(o for o in photos.object_photos() if o.name == 'coffee').scene_photo),
    )
  )
  for kind in (slice(0, 200), slice(200, None)):
    nearest = [
      np.linalg.norm(left.descriptors[kind][:, None] - image.descriptors[kind][None], axis=2)
      .min(axis=1)
      .mean()
      for image in (right, other)
    ]
    assert nearest[0] < 0.9 * nearest[1]


def test_both_kinds_are_far_apart(joined):
  photo = photos.load_photo(photos.object_photos()[1].scene_photo)
  descriptors = joined.extract('a', photo, Boxes.empty()).features.descriptors
  sift, delf = descriptors[descriptors[:, 0] < 2], descriptors[descriptors[:, 0] >= 2]
  assert len(sift) == 200
  assert len(delf) >= 100
  assert np.linalg.norm(sift[:, None] - delf[None], axis=2).min() > 2
