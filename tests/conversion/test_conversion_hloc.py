"""Exports for hloc, read by oracles/hloc_oracle.py."""

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from oracles import hloc_oracle
from support.stored_features import NAMES, index_images, query_images, write_features, write_rankings

from delf_d2r import config as configs
from delf_d2r.conversion import run
from delf_d2r.conversion.run import Options
from delf_d2r.data.artefacts import match_records, ranking_files
from delf_d2r.data.foreign import hloc_files
from delf_d2r.data.legacy import delf_files
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.extractors import region_extractor
from delf_d2r.stages import rerank_results
from delf_d2r.structures import Boxes


@pytest.fixture
def verified(tmp_path):
  queries = write_features(tmp_path / 'query_features', query_images()[1], fingerprint='q')
  features = write_features(tmp_path / 'features', index_images())
  rankings = write_rankings(tmp_path / 'rankings', queries)
  options = configs.load_or_default(None, ['verification'])
  return rerank_results.run(options, rankings, features, queries, tmp_path / 'reranked')


def test_features_in_hdf5(verified, tmp_path):
  path = tmp_path / 'out' / 'features.h5'
  run.run(tmp_path / 'features', path, Options(to='hdf5'))
  assert hloc_oracle.image_names(path) == set(NAMES)
  for image in index_images():
    whole = image.region(0)
    assert_array_equal(hloc_oracle.colmap_keypoints(path, image.name), whole.locations[:, [1, 0]])
    given = hloc_oracle.matcher_input(path, image.name)
    assert given['image'] == (1, 400, 500)
    assert_array_equal(given['descriptors'], whole.descriptors.T)
    assert_array_equal(given['scores'], whole.attention)
  before, inode = path.read_bytes(), path.stat().st_ino
  run.run(tmp_path / 'features', path, Options(to='hdf5'))
  run.run(tmp_path / 'features', path, Options(to='hdf5', redo=True))
  assert (path.read_bytes(), path.stat().st_ino) == (before, inode)
  path.write_bytes(before[:-1])
  with pytest.raises(UserError, match=r'features\.h5: exists already, with other contents'):
    run.run(tmp_path / 'features', path, Options(to='hdf5'))
  assert [file.name for file in path.parent.iterdir()] == ['features.h5']
  run.run(tmp_path / 'features', path, Options(to='hdf5', redo=True))
  assert path.read_bytes() == before


def test_a_dot_stands_where_colmap_sees_it(tmp_path):
  photo = np.full((200, 240, 3), 255, np.uint8)
  # Symmetric about the centre of the pixel in row 90 and column 150.
  distances = np.hypot(*np.mgrid[-90:110, -150:90])
  photo[distances < 8] = 0
  extractor = region_extractor.build(configs.default('extraction').extraction)
  features = extractor.extract('', photo, Boxes.empty()).region(0)
  hloc_files.write_features(tmp_path / 'f.h5', [('dot.png', hloc_files.arrays(features, photo.shape[:2]))])
  found = hloc_oracle.colmap_keypoints(tmp_path / 'f.h5', 'dot.png')
  # COLMAP counts from the edge of the photo, so that pixel is at (150.5, 90.5).
  assert np.abs(found[np.argmax(features.attention)] - [150.5, 90.5]).max() < 0.05


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
      assert_array_equal(found['keypoints'] + 0.5, image.region(0).locations[:, ::-1])
      assert found['image_size'].tolist() == [500, 400]
      assert found['descriptors'].shape == (32, len(image.region(0)))


def test_matches_in_hdf5(verified, tmp_path):
  path, features, queries = (tmp_path / f'{name}.h5' for name in ('matches', 'features', 'queries'))
  run.run(verified.path, path, Options(to='hdf5'))
  run.run(verified.path, tmp_path / 'pairs.txt', Options(to='pairs'))
  run.run(tmp_path / 'features', features, Options(to='hdf5'))
  run.run(tmp_path / 'query_features', queries, Options(to='hdf5'))
  pairs = hloc_oracle.listed_pairs(tmp_path / 'pairs.txt')
  found = {query.query: query.matches for query in match_records.read(verified)}
  assert pairs == {query: [NAMES[match.image_id] for match in own] for query, own in found.items()}
  assert sum(len(match) > 0 for own in found.values() for match in own) >= 4
  for query, own in found.items():
    for match in own:
      name = NAMES[match.image_id]
      # In either order of the pair.
      (rows, columns), scores = hloc_oracle.matches(path, query, name)
      turned, _ = hloc_oracle.matches(path, name, query)
      assert_array_equal(turned, [columns, rows])
      assert_array_equal(scores, np.ones(len(rows)))
      matched = np.concatenate(
        [
          hloc_oracle.colmap_keypoints(queries, query)[rows],
          hloc_oracle.colmap_keypoints(features, name)[columns],
        ],
        axis=1,
      )
      expected = np.concatenate([match.query_locations[:, ::-1], match.index_locations[:, ::-1]], axis=1)
      assert {*map(tuple, matched.tolist())} == {*map(tuple, expected.tolist())}


def test_nearest_neighbours_of_the_file_are_those_of_the_features(verified, tmp_path):
  run.run(tmp_path / 'features', tmp_path / 'f.h5', Options(to='hdf5'))
  run.run(tmp_path / 'query_features', tmp_path / 'q.h5', Options(to='hdf5'))
  query = hloc_oracle.matcher_input(tmp_path / 'q.h5', 'q0')
  image = hloc_oracle.matcher_input(tmp_path / 'f.h5', 'e.jpg')
  # The first 60 features of that photo are those of the query.
  assert_array_equal(np.argmax(query['descriptors'].T @ image['descriptors'], axis=1), np.arange(60))


def test_pairs_of_rankings_that_are_not_verified(verified, tmp_path):
  run.run(tmp_path / 'rankings', tmp_path / 'pairs.txt', Options(to='pairs'))
  stored = ranking_files.load(tmp_path / 'rankings')
  assert hloc_oracle.listed_pairs(tmp_path / 'pairs.txt') == {
    ranking.query: [stored.image_names[i] for i in ranking.image_ids] for ranking in stored.rankings
  }


def test_names_that_hloc_cannot_tell_apart(tmp_path):
  assert hloc_files.format_pairs([]) == ''
  with pytest.raises(UserError, match=r"'a b\.jpg': hloc does not support spaces"):
    hloc_files.format_pairs([('q', 'a b.jpg')])
  pairs = [('q', 'db/a.jpg', np.array([0])), ('q', 'db-a.jpg', np.array([0]))]
  with pytest.raises(UserError, match=r'q and db-a\.jpg: another pair is named q/db-a\.jpg'):
    hloc_files.write_matches(tmp_path / 'm.h5', pairs)


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
  delf_files.write(tmp_path / 'a.delf', features)
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
