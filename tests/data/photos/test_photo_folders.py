"""Photos of several folders: each name leads to its own photo, and none out of the folders."""

import pathlib

import pytest

from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.photos import photo_folders
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.errors import UserError
from delf_d2r.protos import experiment_pb2


@pytest.fixture
def folders(tmp_path):
  for name in ('photos/a.jpg', 'photos/sub/b.jpg', 'data/more/a.jpg', 'secret.jpg'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(name)
  return PhotoFolders.of([str(tmp_path / 'photos'), str(tmp_path / 'data')])


@pytest.mark.parametrize(
  ('name', 'file'),
  [('a.jpg', 'photos/a.jpg'), ('sub/b.jpg', 'photos/sub/b.jpg'), ('more/a.jpg', 'data/more/a.jpg')],
)
def test_each_name_leads_to_its_photo_and_back(folders, tmp_path, name, file):
  assert folders.find(name) == tmp_path / file
  assert folders.name_of(tmp_path / file) == name


@pytest.mark.parametrize(
  'name', ['../secret.jpg', 'more/../../secret.jpg', 'sub', '', 'b.jpg', 'a.jpg\0', 'a' * 5000]
)
def test_other_names_lead_nowhere(folders, name):
  assert folders.find(name) is None


def test_absolute_names_lead_nowhere(folders, tmp_path):
  assert folders.find(str(tmp_path / 'photos' / 'a.jpg')) is None


def test_the_first_folder_that_has_a_photo_counts(folders, tmp_path):
  (tmp_path / 'data' / 'a.jpg').write_text('another')
  assert folders.find('a.jpg') == tmp_path / 'photos' / 'a.jpg'
  assert PhotoFolders(folders.folders[::-1]).find('a.jpg') == tmp_path / 'data' / 'a.jpg'


def test_photos_elsewhere_are_called_by_the_last_part_of_their_path(folders, tmp_path):
  assert folders.name_of(tmp_path / 'secret.jpg') == 'secret.jpg'
  assert PhotoFolders().name_of(tmp_path / 'photos' / 'a.jpg') == 'a.jpg'


def test_a_folder_that_is_not_there(tmp_path):
  with pytest.raises(UserError, match=r'nowhere: no such folder of photos\. Check the path'):
    PhotoFolders.of([tmp_path, tmp_path / 'nowhere'])


def _artefact(*inputs):
  plan = Plan('index', experiment_pb2.ExperimentConfig(), inputs)
  return plan, Artefact(pathlib.Path('out'), plan.to_manifest())


def test_an_index_says_where_its_photos_lie():
  photos, others = Input('images', 'f', pathlib.Path('/a')), Input('images', 'g', pathlib.Path('/b'))
  _, descriptors = _artefact(others)
  alone, index = _artefact(photos)
  assert PhotoFolders.of_index(index).folders == (pathlib.Path('/a'),)
  joined, index = _artefact(photos, *photo_folders.of_distractors(descriptors))
  assert PhotoFolders.of_index(index).folders == (pathlib.Path('/a'), pathlib.Path('/b'))
  # Their descriptors are what counts: indexes made before are neither stale nor refused.
  assert joined.fingerprint == alone.fingerprint
  assert joined.differences(alone.to_manifest()) == alone.differences(joined.to_manifest()) == []
  other = Plan('index', joined.config, (Input('images', 'h', pathlib.Path('/a')),))
  assert len(other.differences(joined.to_manifest())) == len(joined.differences(other.to_manifest())) == 1
