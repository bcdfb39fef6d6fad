"""A live engine: verified answers, photos that come and go while others search, what is on the disk."""

import concurrent.futures
import gc
import itertools
import pathlib
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

from delf_d2r import config as configs
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ArtefactError, ImageError, UserError
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.stages import aggregate_features, build_index


@pytest.fixture
def live_dir(index_dir, tmp_path):
  """A copy of the run that may be changed."""
  return shutil.copytree(index_dir, tmp_path / 'out')


def load(directory):
  """An engine that looks at few images: what it does with one of them it does with all."""
  return SearchEngine.load(directory, verification=VerificationConfig(num_images=4))


@pytest.fixture
def live(live_dir):
  return load(live_dir)


@pytest.fixture(scope='session')
def new_photo(query_path):
  """A small photo of an object that the index shows."""
  image = Image.open(query_path).convert('RGB')
  image.thumbnail((240, 240))
  return np.asarray(image)


def answers(engine, paths, **options):
  return [
    [(r.name, r.score, r.boxes.tolist(), r.inliers) for r in engine.search(path, top_k=0, **options).results]
    for path in paths
  ]


@pytest.fixture(scope='session')
def query_paths(photos):
  return sorted(photos.queries_dir.iterdir())[:2]


@pytest.mark.slow
def test_verified_results_stand_by_inliers(engine, query_path):
  before = engine.search(query_path, top_k=0).results
  assert {(r.inliers, r.match) for r in before} == {(None, None)}
  answer = engine.search(query_path, top_k=0, verify=True)
  inliers = [r.inliers for r in answer.results]
  assert inliers == sorted(inliers, reverse=True)
  assert inliers[0] >= 5
  assert [r.rank for r in answer.results] == list(range(1, len(before) + 1))
  unverified = [r.name for r in answer.results if not r.inliers]
  assert unverified == [r.name for r in before if r.name in unverified]
  assert {r.name: (r.score, r.best_region) for r in answer.results} == {
    r.name: (r.score, r.best_region) for r in before
  }
  first = answer.results[0].match
  assert engine.index.image_names[first.image_id] == answer.results[0].name
  moved = np.column_stack([first.index_locations, np.ones(len(first))]) @ first.matrix.T
  assert np.linalg.norm(moved[:, :2] / moved[:, 2:] - first.query_locations, axis=1).max() <= 10.01
  assert answer.seconds.keys() == {'decode', 'extract', 'describe', 'search', 'verify'}


def test_the_head_that_the_config_names_is_looked_at(index_dir, engine, query_path):
  some = SearchEngine.load(index_dir, verification=VerificationConfig(num_images=3))
  before = [r.name for r in engine.search(query_path, top_k=0).results]
  found = some.search(query_path, top_k=5, verify=True).results
  assert [r.inliers is None for r in found] == [False] * 3 + [True] * 2
  assert {r.name for r in found[:3]} == set(before[:3])
  assert [r.name for r in found[3:]] == before[3:5]
  # An image beyond top_k can come to the front.
  (first,) = engine.search(query_path, top_k=1, verify=True).results
  assert first.name == engine.search(query_path, top_k=0, verify=True).results[0].name


def test_the_config_of_the_run_says_how_to_verify(live_dir, query_path):
  config = live_dir / 'config.pbtxt'
  config.write_text(config.read_text() + 'verification { num_images: 2 }\n')
  found = SearchEngine.load(live_dir).search(query_path, top_k=4, verify=True).results
  assert [r.inliers is None for r in found] == [False, False, True, True]


def test_an_added_photo_is_found_and_verified(live, photos, query_path):
  size = len(live)
  live.add({'new/astronaut.jpg': query_path.read_bytes(), 'flat.png': np.full((90, 90, 3), 9, np.uint8)})
  assert len(live) == size + 2
  first = live.search(query_path, top_k=3, verify=True).results[0]
  assert first.name == 'new/astronaut.jpg'
  assert first.inliers > 50
  assert len(first.boxes) == 4  # The run's grid.
  with pytest.raises(UserError, match=r'in the index already: flat\.png'):
    live.add({'flat.png': query_path})
  with pytest.raises(UserError, match=r'not among the \d+ images of the index: nobody\.jpg'):
    live.remove(['flat.png', 'nobody.jpg'])
  assert len(live) == size + 2


def test_a_photo_that_comes_back_is_what_it_was(live, query_paths):
  """As the last image, so that ids are the same, too: features, words and boxes are made as the stages do."""
  name = live.index.image_names[len(live) - 1]
  before = answers(live, query_paths, verify=True)
  live.remove([name])
  assert all(name not in [result[0] for result in found] for found in answers(live, query_paths))
  live.add([live.photos.folders[0] / name])
  assert answers(live, query_paths, verify=True) == before


@pytest.mark.parametrize(
  ('regions', 'masks'), [('REGIONAL_SEARCH', False), ('WHOLE_IMAGE', False), ('REGIONAL_AGGREGATION', True)]
)
def test_a_photo_comes_back_with_an_entry_for_each_region_or_one(
  index_dir, query_path, tmp_path, regions, masks
):
  features, codebook = (Artefact.open(index_dir / kind, kind) for kind in ('features', 'codebook'))
  config = configs.default('aggregation')
  config.aggregation.regions = config.aggregation.Regions.Value(regions)
  if masks:
    config.aggregation.region_masks = True
  descriptors = aggregate_features.run(config, features, codebook, tmp_path / 'descriptors')
  live = load(build_index.run(config, descriptors, codebook, tmp_path / 'index').path)
  name = live.index.image_names[len(live) - 1]
  before = answers(live, [query_path], verify=True)
  live.remove([name])
  live.add([live.photos.folders[0] / name])
  assert answers(live, [query_path], verify=True) == before
  has_regions = regions != 'WHOLE_IMAGE'
  answer = live.search(query_path, top_k=3)
  assert all((result.best_region >= 0) == has_regions for result in answer.results)
  first = answer.results[0]
  image_id = list(live.index.image_names).index(first.name)
  explained = live.word_scores(live.describe(answer.features), image_id, region=first.best_region)
  np.testing.assert_allclose(explained[1].sum(), first.score, rtol=1e-4)


def test_boxes_of_ones_own(live, query_path):
  boxes = [(0.1, 0.2, 0.6, 0.7), (0, 0, 1, 0.5)]
  live.add([query_path], boxes={query_path.name: boxes})
  np.testing.assert_allclose(live.boxes(len(live) - 1), boxes)
  with pytest.raises(UserError, match=r'boxes of x\.jpg: .*not pixels'):
    live.add({'x.jpg': query_path}, boxes={'x.jpg': [(0, 0, 30, 40)]})
  with pytest.raises(UserError, match=r'boxes of y\.jpg, which is not among the 1 photos'):
    live.add({'x.jpg': query_path}, boxes={'y.jpg': boxes})


def test_boxes_that_came_from_a_file_must_be_given(live_dir, query_path):
  manifest = live_dir / 'index' / 'manifest.pbtxt'
  manifest.write_text(manifest.read_text().replace('source: UNIFORM', 'source: FILE'))
  live = SearchEngine.load(live_dir)
  with pytest.raises(UserError, match='FILE, which has boxes only for the photos of its file'):
    live.add({'x.jpg': query_path})
  live.add({'x.jpg': query_path}, boxes={'x.jpg': []})
  assert live.boxes(len(live) - 1).shape == (0, 4)


def test_an_undecodable_photo_adds_nothing(live, query_path):
  size = len(live)
  with pytest.raises(ImageError, match=r'broken\.jpg: not an image'):
    live.add({'good.jpg': query_path, 'broken.jpg': b'no photo'})
  assert len(live) == size
  live.add({'good.jpg': query_path})
  assert len(live) == size + 1


def test_two_paths_of_one_name(live, query_path, tmp_path):
  shutil.copy(query_path, tmp_path)
  with pytest.raises(UserError, match=r'would both be called astronaut\.jpg'):
    live.add([query_path, tmp_path / query_path.name])
  with pytest.raises(TypeError, match='photos: expected several names, found the string'):
    live.add(str(query_path))


@pytest.mark.slow
def test_threads_search_while_images_come_and_go(live, new_photo, query_paths):
  """Every answer is that of a state that there was: without the photo, or with it."""
  without = answers(live, query_paths, verify=True)
  live.add({'new.jpg': new_photo})
  with_it = answers(live, query_paths, verify=True)
  assert with_it != without
  live.remove(['new.jpg'])
  allowed = [[one, other] for one, other in zip(without, with_it, strict=True)]
  done = threading.Event()
  sizes = set()

  def search(seed: int) -> None:
    for number in itertools.islice(itertools.cycle(range(len(query_paths))), seed % 2, None):
      (found,) = answers(live, query_paths[number : number + 1], verify=seed % 4 < 2)
      if seed % 4 >= 2:
        plain = [sorted(result[:2] for result in one) for one in allowed[number]]
        assert sorted(result[:2] for result in found) in plain
      else:
        assert found in allowed[number]
      sizes.add(len(found))
      if done.is_set():
        return

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    searches = [pool.submit(search, seed) for seed in range(8)]

    def save_and_wait_for_a_search():
      live.save()
      while len(live) not in sizes and not any(found.done() for found in searches):
        time.sleep(0.01)

    try:
      for _ in range(3):
        live.add({'new.jpg': new_photo})
        save_and_wait_for_a_search()
        live.remove(['new.jpg'])
        save_and_wait_for_a_search()
    finally:
      done.set()
    for found in searches:
      found.result()
  assert sizes == {len(live), len(live) + 1}
  assert answers(live, query_paths, verify=True) == without


@pytest.mark.slow
def test_save_and_load(live, live_dir, new_photo, query_paths):
  untouched = answers(live, query_paths, verify=True)
  gone = live.index.image_names[1]
  live.add({'a.jpg': new_photo, 'b.jpg': new_photo[::-1]}, boxes={'a.jpg': [(0, 0, 0.5, 0.5)]})
  live.remove([gone, 'b.jpg'])
  expected = answers(live, query_paths, verify=True)
  assert answers(load(live_dir), query_paths, verify=True) == untouched
  before = live.artefact.manifest.fingerprint
  live.save()
  again = load(live_dir)
  assert answers(again, query_paths, verify=True) == answers(live, query_paths, verify=True) == expected
  assert again.artefact.manifest.fingerprint != before
  assert again.artefact.counts['images'] == len(again)
  descriptors, codebook = (Artefact.open(live_dir / kind, kind) for kind in ('descriptors', 'codebook'))
  with pytest.raises(ArtefactError, match=r'made by another run.*--redo'):
    build_index.run(descriptors.config, descriptors, codebook, live_dir / 'index')
  # Features of b.jpg, which was never saved, go with the next change of another process.
  assert len(list((live_dir / 'index' / 'added').iterdir())) == 2
  again.remove(['a.jpg'])
  again.add({gone: live.photos.folders[0] / gone})
  again.save()
  assert sorted(load(live_dir).index.image_names) == sorted(name for name, *_ in untouched[0])


def test_another_process_has_changed_the_index(live, live_dir, new_photo, query_path):
  other = load(live_dir)
  other.remove([other.index.image_names[0]])
  with pytest.raises(UserError, match='another update of the index is not finished'):
    live.add({'new.jpg': new_photo})
  other.save()
  with pytest.raises(UserError, match='holds another index than the one loaded'):
    live.add({'new.jpg': new_photo})
  assert len(live.search(query_path, top_k=0).results) == len(live)


@pytest.mark.slow
@pytest.mark.parametrize('killed_at', ['prepare', 'save', 'finish', 'stamp'])
def test_a_kill_while_saving_leaves_boxes_that_fit(live_dir, new_photo, query_path, monkeypatch, killed_at):
  """Twice, so that what is left behind by the first kill is there at the second."""

  class Killed(BaseException):
    pass

  def kill(*args, **options):
    raise Killed

  has_changed = killed_at in ('finish', 'stamp')
  for name in ('a.jpg', 'b.jpg'):
    engine = load(live_dir)
    before = answers(engine, [query_path], verify=True)
    engine.add({name: new_photo}, boxes={name: [(0, 0, 0.5, 0.5)]})
    engine.remove([engine.index.image_names[0]])
    after = answers(engine, [query_path], verify=True)
    with monkeypatch.context() as patch:
      places = {'save': 'delf_d2r.index.stored_index.write', 'stamp': 'delf_d2r.engine.live_index._stamped'}
      patch.setattr(places.get(killed_at, f'delf_d2r.data.artefacts.live_files.{killed_at}'), kill)
      with pytest.raises(Killed):
        engine.save()
    del engine
    gc.collect()  # As a killed process does, it lets go of the index.
    found = answers(load(live_dir), [query_path], verify=True)
    assert found == (after if has_changed else before)
  survivor = load(live_dir)
  survivor.remove(['b.jpg' if has_changed else survivor.index.image_names[0]])
  survivor.save()
  assert answers(load(live_dir), [query_path], verify=True) == answers(survivor, [query_path], verify=True)


def test_damaged_features_of_an_added_photo(live, live_dir, query_path):
  live.add({'new.jpg': query_path})
  (path,) = (live_dir / 'index' / 'added').iterdir()
  path.write_bytes(path.read_bytes()[:-1] + b'x')
  with pytest.raises(UserError, match=r'damaged\. Remove the image and add it again'):
    live.features(len(live) - 1)


def test_the_example_of_the_readme(live_dir, query_path, tmp_path, monkeypatch, capsys):
  readme = pathlib.Path(__file__).parents[2] / 'README.md'
  (example,) = (
    block.split('```')[0] for block in readme.read_text().split('```python\n') if 'SearchEngine.load' in block
  )
  live_dir.rename(tmp_path / 'OUT')
  for name in ('PHOTO.jpg', 'NEW.jpg'):
    shutil.copy(query_path, tmp_path / name)
  monkeypatch.chdir(tmp_path)
  exec(example, {})
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 10
  assert int(lines[0].split()[-1]) >= 5
  assert 'NEW.jpg' in SearchEngine.load('OUT').index.image_names
