"""Why a result matched: the shares of words, where they are, and what stands in for lost features."""

import shutil

import numpy as np
import pytest

from delf_d2r.data.boxes.csv_file import check_box
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine, attribution
from delf_d2r.errors import ImageError


@pytest.fixture(scope='module')
def answer(engine, query_path):
  return engine.search(query_path, box=(0.1, 0.1, 0.9, 0.9), top_k=5)


def test_terms_add_up_to_the_score_of_every_result(engine, answer):
  for result in answer.results:
    image_id = list(engine.index.image_names).index(result.name)
    why = attribution.explain(engine, answer.features, image_id, engine.features(image_id))
    assert why.score == pytest.approx(result.score, rel=1e-5)
    assert why.score == pytest.approx(sum(word.term for word in why.words))
    terms = [word.term for word in why.words]
    assert terms == sorted(terms, reverse=True)


def test_words_are_shown_where_their_features_are(engine, answer):
  image_id = list(engine.index.image_names).index(answer.results[0].name)
  image = engine.features(image_id)
  why = attribution.explain(engine, answer.features, image_id, image)
  assert why.words
  words = engine.words(answer.features.features, of_query=True)
  for found in why.words:
    own = answer.features.features.locations[(words == found.word).any(axis=1)]
    assert len(found.query_locations) == len(np.unique(own.round(2), axis=0)) > 0
    assert len(found.index_locations) > 0
    assert (found.index_locations >= 0).all()
    assert (found.index_locations <= (image.height, image.width)).all()
  np.testing.assert_array_equal(why.boxes, engine.boxes(image_id))
  assert (why.box_terms <= why.score + 1e-9).all()
  assert why.box_terms.max() > 0


def test_regions_get_the_terms_of_the_words_they_show(engine, answer):
  image_id = list(engine.index.image_names).index(answer.results[0].name)
  image = engine.features(image_id)
  why = attribution.explain(engine, answer.features, image_id, image)
  for r, (box, term) in enumerate(zip(why.boxes, why.box_terms, strict=True), start=1):
    check_box(box, 'box')
    own = set(engine.words(image.region(r), of_query=False).ravel().tolist())
    assert term == pytest.approx(sum(word.term for word in why.words if word.word in own))


def test_features_are_made_anew_where_they_are_gone(index_dir, engine, photos, tmp_path):
  shutil.copytree(index_dir / 'index', tmp_path / 'index')
  manifest = tmp_path / 'index' / 'manifest.pbtxt'
  manifest.write_text(manifest.read_text().replace(str(index_dir), str(tmp_path / 'nowhere')))
  moved = SearchEngine.load(tmp_path / 'index')
  stored = engine.features(3)
  moved.photos = PhotoFolders((photos.images_dir,))
  anew = moved.features(3)
  assert anew.name == stored.name
  np.testing.assert_array_equal(anew.region_offsets, stored.region_offsets)
  np.testing.assert_array_equal(anew.features.descriptors, stored.features.descriptors)
  moved.photos = PhotoFolders()
  with pytest.raises(ImageError, match=r'cannot find the features.*Give the folder'):
    moved.search(photos.images_dir / stored.name, verify=True)
