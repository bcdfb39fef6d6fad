"""The engine itself, shared by threads from its first photo on."""

import concurrent.futures

import numpy as np
import pytest

from delf_d2r.data.photos import images
from delf_d2r.engine import SearchEngine
from delf_d2r.extractors import region_extractor


@pytest.mark.slow
def test_threads_share_an_engine(index_dir, photos, monkeypatch):
  paths = sorted(photos.queries_dir.iterdir())[:4]
  alone = SearchEngine.load(index_dir)
  expected = {path: alone.search(path, top_k=0).results for path in paths}
  built = []
  build = region_extractor.build
  monkeypatch.setattr(region_extractor, 'build', lambda config: built.append(1) or build(config))
  shared = SearchEngine.load(index_dir)
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = list(pool.map(lambda path: shared.search(path, top_k=0).results, paths * 8))
  assert built == [1]
  for path, results in zip(paths * 8, found, strict=True):
    assert [(r.name, r.score) for r in results] == [(r.name, r.score) for r in expected[path]]


def test_a_file_and_what_is_in_it_are_one_photo(engine, query_path):
  np.testing.assert_array_equal(images.load_image(query_path.read_bytes()), images.load_image(query_path))
  by_path, by_bytes = (engine.search(photo, top_k=3) for photo in (query_path, query_path.read_bytes()))
  assert [r.score for r in by_bytes.results] == [r.score for r in by_path.results]
  with pytest.raises(images.ImageError, match=r'upload\.jpg: the file is empty'):
    images.load_image(b'', name='upload.jpg')
