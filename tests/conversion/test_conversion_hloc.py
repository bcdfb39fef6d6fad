"""Exports that hloc reads: its layout checked by h5py and NumPy alone, matches as positions of keypoints."""

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from verification_support import NAMES, index_images, query_images, write_features, write_rankings

from delf_d2r import config as configs
from delf_d2r.conversion import run
from delf_d2r.conversion.run import Options
from delf_d2r.data import hloc_files, legacy_features, match_records
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.stages import rerank


@pytest.fixture
def verified(tmp_path):
  queries = write_features(tmp_path / 'query_features', query_images()[1], fingerprint='q')
  features = write_features(tmp_path / 'features', index_images())
  rankings = write_rankings(tmp_path / 'rankings', queries)
  options = configs.load_or_default(None, ['verification'])
  return rerank.run(options, rankings, features, queries, tmp_path / 'reranked')


def test_features_in_hdf5(verified, tmp_path):
  path = tmp_path / 'out' / 'features.h5'
  run.run(tmp_path / 'features', path, Options(to='hdf5'))
  with h5py.File(path) as file:
    assert sorted(file) == list(NAMES)
    for image in index_images():
      group, whole = file[image.name], image.region(0)
      assert_array_equal(group['keypoints'][()], whole.locations[:, [1, 0]])
      assert_array_equal(group['descriptors'][()], whole.descriptors.T)
      assert_array_equal(group['scores'][()], whole.attention)
      assert group['image_size'][()].tolist() == [500, 400]
  before = path.read_bytes()
  with pytest.raises(UserError, match=r'features\.h5: stands there already'):
    run.run(tmp_path / 'features', path, Options(to='hdf5'))
  run.run(tmp_path / 'features', path, Options(to='hdf5', redo=True))
  assert path.read_bytes() == before


def test_names_in_folders_are_groups_in_groups(tmp_path):
  found = hloc_files.arrays(index_images()[0].features, (400, 500))
  hloc_files.write_features(tmp_path / 'f.h5', [('db/a b.jpg', found), ('db/ä.jpg', found)])
  with h5py.File(tmp_path / 'f.h5') as file:
    assert file['db/ä.jpg']['keypoints'].shape == (len(index_images()[0].features), 2)


def test_features_in_npz(verified, tmp_path):
  run.run(tmp_path / 'features', tmp_path / 'npz', Options(to='npz'))
  run.run(tmp_path / 'features', tmp_path / 'npz', Options(to='npz'))
  for image in index_images():
    with np.load(tmp_path / 'npz' / f'{image.name}.npz') as found:
      assert_array_equal(found['keypoints'], image.region(0).locations[:, ::-1])
      assert found['image_size'].tolist() == [500, 400]
      assert found['descriptors'].shape == (32, len(image.region(0)))


def test_matches_in_hdf5(verified, tmp_path):
  run.run(verified.path, tmp_path / 'matches.h5', Options(to='hdf5'))
  run.run(tmp_path / 'features', tmp_path / 'features.h5', Options(to='hdf5'))
  run.run(tmp_path / 'query_features', tmp_path / 'queries.h5', Options(to='hdf5'))
  found = {query.query: query.matches for query in match_records.read(verified)}
  with (
    h5py.File(tmp_path / 'matches.h5') as matches,
    h5py.File(tmp_path / 'features.h5') as features,
    h5py.File(tmp_path / 'queries.h5') as queries,
  ):
    assert {f'{query}/{NAMES[m.image_id]}' for query, ms in found.items() for m in ms if len(m)} == {
      f'{query}/{name}' for query in matches for name in matches[query]
    }
    for query, own in found.items():
      for match in filter(len, own):
        name = NAMES[match.image_id]
        group = matches[query][name]
        chosen = group['matches0'][()]
        assert_array_equal(group['matching_scores0'][()], (chosen >= 0).astype(float))
        rows = np.flatnonzero(chosen >= 0)
        pairs = np.concatenate(
          [queries[query]['keypoints'][()][rows], features[name]['keypoints'][()][chosen[rows]]], axis=1
        )
        expected = np.concatenate([match.query_locations[:, ::-1], match.index_locations[:, ::-1]], axis=1)
        assert {*map(tuple, pairs.tolist())} == {*map(tuple, expected.tolist())}


def test_slashes_of_names_become_hyphens_in_pairs(tmp_path):
  hloc_files.write_matches(tmp_path / 'm.h5', [('query/q.jpg', 'db/a.jpg', np.array([1, -1, 0]))])
  with h5py.File(tmp_path / 'm.h5') as file:
    assert file['query-q.jpg/db-a.jpg']['matches0'][()].tolist() == [1, -1, 0]


def test_keypoints_in_one_place_and_places_of_none():
  keypoints = np.array([[1, 1], [2, 2], [2, 2], [3, 3]], np.float32)
  others = np.array([[5, 5], [6, 6]], np.float32)
  places = np.array([[2, 2], [3, 3], [9, 9], [1, 1]], np.float32)
  seen = np.array([[6, 6], [7, 7], [5, 5], [5, 5]], np.float32)
  assert hloc_files.matches_of(places, seen, (keypoints, others)).tolist() == [0, 1, -1, -1]
  nothing = np.zeros((0, 2), np.float32)
  assert hloc_files.matches_of(nothing, nothing, (keypoints, nothing)).tolist() == [-1] * 4


def test_rankings_without_matches_and_features_that_changed(verified, tmp_path):
  with pytest.raises(UserError, match='these rankings have no matches'):
    run.run(tmp_path / 'rankings', tmp_path / 'm.h5', Options(to='hdf5'))
  (tmp_path / 'features').rename(tmp_path / 'elsewhere')
  write_features(tmp_path / 'features', index_images(), fingerprint='another')
  with pytest.raises(ArtefactError, match=r'verified with features \w{16}, but .*features is \w{16}'):
    run.run(verified.path, tmp_path / 'm.h5', Options(to='hdf5'))
  assert not (tmp_path / 'm.h5').exists()


def test_npz_and_delf_of_one_image(tmp_path):
  features = index_images()[1].region(0)
  legacy_features.write(tmp_path / 'a.delf', features)
  run.run(tmp_path / 'a.delf', tmp_path / 'a.npz')
  run.run(tmp_path / 'a.npz', tmp_path / 'b.delf')
  assert (tmp_path / 'b.delf').read_bytes() == (tmp_path / 'a.delf').read_bytes()


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'keypoints': np.zeros((2, 2))}, 'it lacks descriptors, scores'),
    (
      {'keypoints': np.zeros((2, 2)), 'descriptors': np.zeros((3, 4)), 'scores': np.zeros(2)},
      'expected shape',
    ),
    (
      {'keypoints': np.full((2, 2), np.nan), 'descriptors': np.zeros((3, 2)), 'scores': np.zeros(2)},
      'not finite',
    ),
  ],
)
def test_npz_that_is_none(tmp_path, arrays, message):
  np.savez(tmp_path / 'x.npz', **arrays)
  with pytest.raises(UserError, match=rf'x\.npz: not readable as \.npz of features \(.*{message}'):
    run.run(tmp_path / 'x.npz', tmp_path / 'x.delf')
  (tmp_path / 'y.npz').write_bytes((tmp_path / 'x.npz').read_bytes()[:40])
  with pytest.raises(UserError, match=r'y\.npz: not readable'):
    run.run(tmp_path / 'y.npz', tmp_path / 'y.delf')
