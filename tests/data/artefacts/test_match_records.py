"""Verified matches as records."""

import numpy as np
import pytest

from delf_d2r.data.artefacts import match_records, records
from delf_d2r.data.artefacts.match_records import QueryMatches
from delf_d2r.errors import ArtefactError
from delf_d2r.structures import Match


def match(image, inliers, seed=0):
  rng = np.random.default_rng(seed)
  places = [rng.uniform(0, 500, (inliers, 2)).astype(np.float32) for _ in range(2)]
  return Match(image, rng.normal(size=(3, 3)).astype(np.float32), *places)


@pytest.mark.parametrize(
  'matches', [(), (match(3, 0),), (match(7, 4), match(2, 0), match(5, 9, seed=1)), (match(1, 0), match(0, 2))]
)
def test_round_trip(matches):
  data = match_records.encode(QueryMatches('gr\u00fc\u00dfe.jpg', matches))
  found = match_records.decode(data)
  assert found.query == 'gr\u00fc\u00dfe.jpg'
  assert [m.image_id for m in found.matches] == [m.image_id for m in matches]
  for old, new in zip(matches, found.matches, strict=True):
    for name in ('matrix', 'query_locations', 'index_locations'):
      np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
  assert match_records.encode(found) == data


DAMAGE = {
  'match_offsets': [np.array([0, 5]), np.array([1, 4, 4]), np.array([0, 5, 4]), np.zeros(0, np.int64)],
  'image_ids': [np.array([1])],
  'matrices': [np.zeros((1, 3, 3), np.float32), np.zeros((2, 2, 3), np.float32)],
  'query_locations': [np.zeros((3, 2), np.float32), np.zeros((4, 3), np.float32)],
  'index_locations': [np.zeros((5, 2), np.float32)],
}


@pytest.mark.parametrize(('field', 'value'), [(field, v) for field, values in DAMAGE.items() for v in values])
def test_a_record_that_contradicts_itself(field, value):
  arrays = {
    'image_ids': np.array([4, 2]),
    'match_offsets': np.array([0, 1, 4]),
    'matrices': np.zeros((2, 3, 3), np.float32),
    'query_locations': np.zeros((4, 2), np.float32),
    'index_locations': np.zeros((4, 2), np.float32),
  }
  match_records.decode(records.encode('q', {}, arrays))
  with pytest.raises(ArtefactError):
    match_records.decode(records.encode('q', {}, arrays | {field: value}))


def test_another_kind_of_record():
  with pytest.raises(ArtefactError, match='no field image_ids'):
    match_records.decode(records.encode('q', {}, {'boxes': np.zeros((0, 4), np.float32)}))
