"""An index of photos and distractors from another folder: all of them are shown, each as its own photo."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from support.servers import serving_client

from delf_d2r import config
from delf_d2r.data.artefacts.artefact import MANIFEST, RUN_CONFIG, Artefact
from delf_d2r.data.photos import distractor_list
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ImageError
from delf_d2r.experiments import experiment
from delf_d2r.report import answers
from delf_d2r.serving.app import create_app
from delf_d2r.serving.jpeg_cache import PREVIEW_SIDE, THUMBNAIL_SIDE, JpegCache
from delf_d2r.stages import aggregate_features, build_index


@pytest.fixture(scope='module')
def others(photos, tmp_path_factory):
  """Distractors, called as photos of the index are but for their folder."""
  folder = tmp_path_factory.mktemp('elsewhere') / 'others'
  folder.mkdir()
  for path in sorted(photos.images_dir.iterdir())[:2]:
    Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(folder / path.name)
  return distractor_list.load(folder)


@pytest.fixture(scope='module')
def build(index_dir, others, tmp_path_factory):
  """Makes or opens the index of both; its folder is that of the module."""
  place = tmp_path_factory.mktemp('both')
  loaded = config.load(index_dir / RUN_CONFIG, experiment.STAGES)
  codebook = Artefact.open(index_dir / 'codebook', 'codebook')
  features = experiment.extract_index_features(
    loaded, Dataset(others), place, boxes_path=None, given={}, options=experiment.Options(workers=1)
  )['features']
  descriptors = aggregate_features.run(loaded, features, codebook, place / 'descriptors')
  ours = Artefact.open(index_dir / 'descriptors', 'descriptors')
  return lambda: build_index.run(loaded, ours, codebook, place / 'index', distractors=descriptors)


@pytest.fixture(scope='module')
def joined(build):
  return build().path


@pytest.mark.slow
def test_every_photo_is_served_as_its_own(joined, photos, others):
  engine, jpegs = SearchEngine.load(joined), JpegCache()
  with serving_client(create_app(engine)) as client:
    for number, name in enumerate(engine.index.image_names):
      path = (others.root if name in others.names else photos.images_dir) / name
      for side, address in ((PREVIEW_SIDE, 'photo/{}'), (THUMBNAIL_SIDE, 'photo/{}/thumbnail')):
        assert client.get(f'/api/{address.format(number)}').content == jpegs.get(path, side)
    found = client.post('/api/search', data={'indexed': others.names[0], 'top_k': 1}).json()
    assert found['results'][0]['name'] == others.names[0]


@pytest.mark.parametrize('name', ['others/../others/scene_00000.jpg', '../others/scene_00000.jpg', 'others'])
def test_names_beside_those_of_the_index_are_not_served(joined, name):
  with serving_client(create_app(SearchEngine.load(joined))) as client:
    assert client.post('/api/search', data={'indexed': name}).status_code == 404


def test_a_page_shows_photos_of_both_folders(joined, others, tmp_path):
  engine = SearchEngine.load(joined)
  answer = engine.search(others.path(others.names[0]), top_k=0)
  answers.write_page(engine, answer, others.path(others.names[0]), None, tmp_path / 'a.html', matches=2)
  assert '>no photo<' not in (tmp_path / 'a.html').read_text(encoding='utf-8')
  engine.photos = PhotoFolders(engine.photos.folders[:1])
  answers.write_page(engine, answer, others.path(others.names[1]), None, tmp_path / 'b.html', matches=0)
  page = (tmp_path / 'b.html').read_text(encoding='utf-8')
  assert page.count('>no photo<') == len(others)


def test_photos_that_are_added_are_called_by_their_folder(joined, others):
  engine = SearchEngine.load(joined)
  extra = others.root / 'others' / 'extra.jpg'
  shutil.copy(others.path(others.names[0]), extra)
  engine.add([extra])
  assert engine.photos.find(engine.index.image_names[-1]) == extra


def test_features_are_made_anew_from_the_right_folder(joined, others, tmp_path):
  known, position = SearchEngine.load(joined), len(others)
  shutil.copytree(joined, tmp_path / 'index')
  manifest = tmp_path / 'index' / MANIFEST
  text = manifest.read_text(encoding='utf-8')
  # The descriptors, and what lies behind them, are gone; the photos are not.
  manifest.write_text(re.sub(r'path: "[^"]*descriptors"', 'path: "/nowhere"', text), encoding='utf-8')
  moved, image_id = SearchEngine.load(tmp_path / 'index'), len(known) - position
  anew = moved.features(image_id)
  assert anew.name == others.names[0]
  np.testing.assert_array_equal(anew.features.descriptors, known.features(image_id).features.descriptors)
  moved.photos = PhotoFolders(moved.photos.folders[:1])
  with pytest.raises(ImageError, match=r'others/.*features.*nor its photo in .*Give the folder'):
    moved.features(image_id)


def test_an_index_made_before_opens_and_learns_of_the_folder(build, joined, photos, others):
  manifest = joined / MANIFEST
  text = manifest.read_text(encoding='utf-8')
  old = re.sub(r'inputs \{\n  role: "distractor_images".*?\n\}\n', '', text, flags=re.DOTALL)
  assert old != text
  manifest.write_text(old, encoding='utf-8')
  engine = SearchEngine.load(joined)
  assert engine.photos == PhotoFolders((photos.images_dir,))
  with serving_client(create_app(engine)) as client:
    assert client.get('/api/photo/0').status_code == 200
    refused = client.get(f'/api/photo/{len(engine) - 1}')
    assert refused.status_code == 404
    assert '--images=FOLDER' in refused.text
  files = {file: file.stat().st_mtime_ns for file in joined.rglob('*.npy')}
  build()
  assert manifest.read_text(encoding='utf-8') == text
  assert files == {file: file.stat().st_mtime_ns for file in joined.rglob('*.npy')}
