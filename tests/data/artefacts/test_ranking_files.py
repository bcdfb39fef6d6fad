"""Rankings on disk."""

import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.ranking_files import Timing
from delf_d2r.errors import ArtefactError
from delf_d2r.structures import Ranking

NAMES = ('a.jpg', 'gr\u00fc\u00dfe 2.jpg', 'c.jpg')


def ranking(query, *ids):
  k = len(ids)
  return Ranking(query, np.array(ids, np.int64), np.linspace(1, 0, k), np.full(k, -1, np.int32))


@pytest.fixture
def directory(tmp_path):
  rankings = [ranking('caf\u00e9', 2, 0), ranking('q 2', 1, 2)]
  ranking_files.save(rankings, NAMES, Timing((1.0, 2.0), (0.5, 0.25)), tmp_path)
  return tmp_path


def test_round_trip(directory):
  found = ranking_files.load(directory)
  assert found.image_names == NAMES
  assert found.timing == Timing((1.0, 2.0), (0.5, 0.25))
  assert [r.query for r in found.rankings] == ['caf\u00e9', 'q 2']
  assert_array_equal(found.rankings[1].image_ids, [1, 2])
  assert_array_equal(found.rankings[0].scores, [1, 0])
  assert_array_equal(found.rankings[0].best_regions, [-1, -1])


@pytest.mark.parametrize('rankings', [[], [ranking('q')], [ranking('q'), ranking('p')]])
def test_nothing_to_rank_is_legal(tmp_path, rankings):
  times = (0.0,) * len(rankings)
  ranking_files.save(rankings, [], Timing(times, times), tmp_path)
  found = ranking_files.load(tmp_path)
  assert [(r.query, len(r)) for r in found.rankings] == [(r.query, 0) for r in rankings]


def write_array(name, array):
  return lambda directory: np.save(directory / name, array)


def write_json(name, document):
  return lambda directory: (directory / name).write_text(json.dumps(document), encoding='utf-8')


@pytest.mark.parametrize(
  'damage',
  [
    lambda directory: (directory / 'scores.npy').unlink(),
    lambda directory: (directory / 'scores.npy').write_bytes(b''),
    lambda directory: (directory / 'queries.json').write_bytes(b'["a"'),
    lambda directory: (directory / 'queries.json').write_bytes(b'\xff'),
    lambda directory: (directory / 'image_names.json').unlink(),
    write_json('queries.json', ['a', 'b', 'c']),
    write_json('queries.json', ['a']),
    write_json('queries.json', 5),
    write_json('image_names.json', 5),
    write_json('image_names.json', ['a.jpg', 'b.jpg']),
    write_json('timing.json', []),
    write_json('timing.json', {'describe': []}),
    write_array('image_ids.npy', np.array([[0, 1], [2, 3]], np.int32)),
    write_array('image_ids.npy', np.array([[0, 1], [2, -1]], np.int32)),
    write_array('image_ids.npy', np.array([[0, 1], [2, 0]], np.float32)),
    write_array('image_ids.npy', np.zeros((2, 3), np.int32)),
    write_array('scores.npy', np.zeros(2, np.float32)),
    write_array('scores.npy', np.zeros((3, 2), np.float32)),
    write_array('scores.npy', np.array([['a', 'b']] * 2)),
  ],
)
def test_damage_is_found(directory, damage):
  damage(directory)
  with pytest.raises(ArtefactError):
    ranking_files.load(directory)


@pytest.fixture
def verified(directory):
  rankings = [
    dataclasses.replace(ranking('caf\u00e9', 2, 0), inliers=np.array([9, 0], np.int32)),
    dataclasses.replace(ranking('q 2', 1, 2), inliers=np.array([0, 0], np.int32)),
  ]
  ranking_files.save(rankings, NAMES, Timing((1.0, 2.0), (0.5, 0.25), (8.0, 9.0)), directory)
  return directory


def test_inliers_round_trip(verified):
  found = ranking_files.load(verified)
  assert [r.inliers.tolist() for r in found.rankings] == [[9, 0], [0, 0]]
  assert found.timing.verify == (8.0, 9.0)


def test_rankings_that_are_not_verified_have_no_inliers(directory):
  assert all(r.inliers is None for r in ranking_files.load(directory).rankings)


@pytest.mark.parametrize('array', [np.zeros((2, 3), np.int32), np.zeros((2, 2), np.int64)])
def test_damaged_inliers_are_found(verified, array):
  np.save(verified / 'inliers.npy', array)
  with pytest.raises(ArtefactError, match='inliers'):
    ranking_files.load(verified)
