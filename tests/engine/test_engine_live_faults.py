"""Changes of a live index that fail, that other processes make meanwhile, and paths that lead elsewhere.

Two engines stand for two processes: each has its own lock and its own snapshot.
"""

import errno
import gc
import itertools
import os
import shutil

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.data.artefacts.artefact import Artefact, read_manifest
from delf_d2r.doctor.inspect import diagnose
from delf_d2r.engine import SearchEngine, photo_reader
from delf_d2r.errors import UserError
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.stages import aggregate_features, build_index

# Distinct photos of noise, which have features.
PHOTOS = [
  np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8).repeat(2, 0) for seed in range(4)
]


def load(directory):
  return SearchEngine.load(directory, verification=VerificationConfig(num_images=2))


def names_in(directory):
  return list(load(directory).index.image_names)


def contents(directory):
  """Returns the bytes of every file by its path."""
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in sorted(directory.rglob('*'))
    if path.is_file()
  }


def times(directory):
  """Returns identity, size and modification time of every file and folder."""
  found = {path: path.stat() for path in directory.rglob('*')}
  return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def found_first(engine, photo):
  return engine.search(photo, top_k=1, verify=True).results[0].name


@pytest.fixture
def live_dir(index_dir, tmp_path):
  """A copy of the run that may be changed."""
  return shutil.copytree(index_dir, tmp_path / 'out')


# Paths that lead elsewhere ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('place', ['out', 'out/index'])
def test_another_working_folder_leads_to_the_same_index(index_dir, tmp_path, monkeypatch, caplog, place):
  folders = [tmp_path / name for name in ('a', 'b')]
  for folder in folders:
    shutil.copytree(index_dir, folder / 'out')
  untouched = contents(folders[1])
  monkeypatch.chdir(folders[0])
  engine = load(place)
  monkeypatch.chdir(folders[1])
  engine.add({'new': PHOTOS[0]})
  engine.save()
  assert found_first(engine, PHOTOS[0]) == 'new'
  assert contents(folders[1]) == untouched
  again = load(folders[0] / 'out')
  assert found_first(again, PHOTOS[0]) == 'new'
  # Features and photos beside the index are found, too.
  for image_id in (0, len(again) - 1):
    for one in (engine, again):
      assert one.features(image_id).name == engine.index.image_names[image_id]
  assert 'extracted from its photos again' not in caplog.text


@pytest.mark.parametrize('turned', ['current', 'current/index'])
def test_a_link_that_is_turned_leads_to_the_same_index(index_dir, tmp_path, caplog, turned):
  for version in ('v1', 'v2'):
    shutil.copytree(index_dir, tmp_path / version)
  link = tmp_path / 'current'
  if turned == 'current':
    link.symlink_to('v1')
  else:
    shutil.copytree(index_dir, link, ignore=shutil.ignore_patterns('index'))
    link = link / 'index'
    link.symlink_to('../v1/index')
  engine = load(tmp_path / 'current')
  untouched = contents(tmp_path / 'v2')
  link.unlink()
  link.symlink_to('v2' if turned == 'current' else '../v2/index')
  engine.add({'new': PHOTOS[0]})
  engine.save()
  assert contents(tmp_path / 'v2') == untouched
  assert names_in(tmp_path / 'v1')[-1] == 'new'
  assert engine.features(0).name == engine.index.image_names[0]
  assert 'extracted from its photos again' not in caplog.text


def test_a_network_that_a_relative_path_names_is_loaded_from_there(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'net.onnx').write_bytes(b'')
  config = configs.default('extraction')
  config.extraction.patches.model_path = 'net.onnx'
  config.extraction.delf.model_path = 'https://tfhub.dev/a/b'
  config.regions.detector.model_path = '/absolute'
  changed = photo_reader._with_absolute_paths(config)
  assert changed.extraction.patches.model_path == str(tmp_path / 'net.onnx')
  assert changed.extraction.delf.model_path == 'https://tfhub.dev/a/b'
  assert changed.regions.detector.model_path == '/absolute'
  assert config.extraction.patches.model_path == 'net.onnx'


# Another process -------------------------------------------------------------------------------------


CHANGES = {
  'add': lambda engine: engine.add({'other': PHOTOS[1]}),
  'remove': lambda engine: engine.remove([engine.index.image_names[0]]),
  'save': lambda engine: engine.save(),
}


@pytest.mark.parametrize('has_searched', [False, True])
@pytest.mark.parametrize('change', CHANGES)
def test_a_change_on_what_another_process_has_saved_touches_nothing(live_dir, change, has_searched):
  first, second = load(live_dir), load(live_dir)
  if has_searched:
    second.search(PHOTOS[0])
  first.add({'new': PHOTOS[0]})
  first.save()
  before = contents(live_dir)
  with pytest.raises(UserError, match=r'holds another index than the one loaded.*loaded again now'):
    CHANGES[change](second)
  assert contents(live_dir) == before
  assert found_first(load(live_dir), PHOTOS[0]) == 'new'
  assert diagnose(live_dir / 'index').exit_code == 0
  # It goes on from what was saved.
  CHANGES[change](second)
  second.save()
  assert 'new' in names_in(live_dir)
  assert found_first(first, PHOTOS[0]) == 'new'


@pytest.mark.parametrize('change', CHANGES)
def test_a_change_beside_one_that_is_not_saved_touches_nothing(live_dir, change):
  first, second = load(live_dir), load(live_dir)
  first.add({'new': PHOTOS[0]})
  before = contents(live_dir)
  with pytest.raises(UserError, match='another update of the index is not finished'):
    CHANGES[change](second)
  assert contents(live_dir) == before
  first.save()
  assert found_first(load(live_dir), PHOTOS[0]) == 'new'


def test_other_features_with_equal_postings_are_another_index(live_dir, tmp_path):
  """Without regions, the postings do not depend on boxes: only features and their digests have changed."""
  features, codebook = (Artefact.open(live_dir / kind, kind) for kind in ('features', 'codebook'))
  config = configs.default('aggregation')
  config.aggregation.regions = config.aggregation.WHOLE_IMAGE
  descriptors = aggregate_features.run(config, features, codebook, tmp_path / 'descriptors')
  index = build_index.run(config, descriptors, codebook, tmp_path / 'index').path
  first, second = load(index), load(index)
  first.add({'new': PHOTOS[0]})
  first.save()
  second.refresh()
  first.remove(['new'])
  first.add({'new': PHOTOS[0]}, boxes={'new': [(0, 0, 0.5, 0.5)]})
  first.save()
  with pytest.raises(UserError, match='holds another index than the one loaded'):
    second.remove([second.index.image_names[0]])
  second.remove([second.index.image_names[0]])
  second.save()
  np.testing.assert_allclose(load(index).features(len(second) - 1).boxes[1:], [(0, 0, 0.5, 0.5)])
  assert found_first(load(index), PHOTOS[0]) == 'new'


def test_without_a_change_nothing_is_written(live_dir):
  engine = load(live_dir)
  for change in (engine.save, lambda: engine.add({}), lambda: engine.remove([]), engine.save):
    before = times(live_dir)
    change()
    assert times(live_dir) == before
  load(live_dir).remove([engine.index.image_names[0]])  # Nor is anything locked.


def test_a_search_takes_over_what_another_process_has_saved(live_dir):
  before = names_in(live_dir)
  fresh, searched, verified = (load(live_dir) for _ in range(3))
  searched.search(PHOTOS[0])
  verified.search(PHOTOS[0], verify=True)
  writer = load(live_dir)
  for number, photo in enumerate(PHOTOS[:3]):
    writer.add({f'new {number}': photo})
    writer.remove([before[number]])
    writer.save()
    for reader in (fresh, searched, verified):
      assert found_first(reader, photo) == f'new {number}'
      assert list(reader.index.image_names) == list(writer.index.image_names)
      assert reader.artefact.counts['images'] == len(writer)
      assert reader.artefact.manifest.fingerprint == writer.artefact.manifest.fingerprint
    writer = load(live_dir)  # Its first change removes the features of removed photos.


def test_a_save_in_the_middle_of_a_search(live_dir, monkeypatch):
  """Files of the snapshot vanish between its choice and its first use."""
  writer = load(live_dir)
  writer.add({'new': PHOTOS[0]})
  writer.save()
  reader = load(live_dir)
  other = load(live_dir)
  refresh, moments = SearchEngine.refresh, iter([True])

  def refresh_before_a_save(self, **options):
    refresh(self, **options)
    if self is reader and next(moments, False):
      other.remove(['new'])
      other.add({'newer': PHOTOS[0]})
      other.save()
      load(live_dir).remove([other.index.image_names[0]])  # Removes the features of `new`.

  monkeypatch.setattr(SearchEngine, 'refresh', refresh_before_a_save)
  assert found_first(reader, PHOTOS[0]) == 'newer'


def test_changes_that_are_not_saved_are_kept(live_dir):
  first, second = load(live_dir), load(live_dir)
  first.add({'new': PHOTOS[0]})
  assert found_first(first, PHOTOS[0]) == 'new'
  (live_dir / 'index' / 'manifest.pbtxt').touch()
  assert found_first(first, PHOTOS[0]) == 'new'
  first.reload()
  assert 'new' not in first.index.image_names
  second.add({'other': PHOTOS[1]})
  second.save()
  assert found_first(first, PHOTOS[1]) == 'other'


def test_an_index_that_is_rebuilt_with_another_config(live_dir):
  engine = load(live_dir)
  before = engine.search(PHOTOS[0], top_k=0).results
  assert before[0].best_region == -1
  features, codebook = (Artefact.open(live_dir / kind, kind) for kind in ('features', 'codebook'))
  config = configs.default('aggregation')
  config.aggregation.regions = config.aggregation.REGIONAL_SEARCH
  descriptors = aggregate_features.run(config, features, codebook, live_dir / 'descriptors', redo=True)
  build_index.run(config, descriptors, codebook, live_dir / 'index', redo=True)
  after = engine.search(PHOTOS[0], top_k=0).results
  assert [(r.name, r.score, r.best_region) for r in after] == [
    (r.name, r.score, r.best_region) for r in load(live_dir).search(PHOTOS[0], top_k=0).results
  ]
  assert after[0].best_region >= 0


def test_an_index_that_cannot_be_loaded_does_not_end_the_old_one(live_dir, caplog):
  reader, writer = load(live_dir), load(live_dir)
  before = [result.name for result in reader.search(PHOTOS[0]).results]
  writer.add({'new': PHOTOS[0]})
  writer.save()
  manifest = live_dir / 'index' / 'manifest.pbtxt'
  text = manifest.read_text()
  manifest.write_text('not a manifest')
  for _ in range(3):
    assert [result.name for result in reader.search(PHOTOS[0]).results] == before
  assert caplog.text.count('the changed index cannot be loaded') == 1
  manifest.write_text(text)
  assert found_first(reader, PHOTOS[0]) == 'new'


def test_features_that_are_made_again_while_they_are_open(live_dir, query_path, caplog):
  """Features of another config do not belong to the index: they are extracted from the photos again."""
  engine = load(live_dir)
  before = [engine.features(image_id) for image_id in range(2)]
  for shard in (live_dir / 'features').glob('*.tfrecord'):
    shard.unlink()
  (live_dir / 'features' / 'manifest.pbtxt').unlink()
  for image_id, expected in enumerate(before):
    np.testing.assert_array_equal(
      engine.features(image_id).features.descriptors, expected.features.descriptors
    )
  assert caplog.text.count('are extracted from its photos again') == 1


def test_an_engine_that_nobody_uses_any_more_is_not_locked(live_dir):
  gc.collect()
  gc.disable()
  try:
    engine = load(live_dir)
    engine.search(PHOTOS[0], verify=True)
    engine.add({'new': PHOTOS[0]})
    engine.search(PHOTOS[0], verify=True)
    del engine
    load(live_dir).remove([names_in(live_dir)[0]])
  finally:
    gc.enable()


# Faults ----------------------------------------------------------------------------------------------


def failing(name, monkeypatch, *, at, code=errno.ENOSPC, real=None):
  """Makes call number `at` of a function of `os` fail; returns the list of calls so far."""
  real = real or getattr(os, name)
  calls = []

  def call(*args, **options):
    calls.append(args)
    if len(calls) == at:
      raise OSError(code, os.strerror(code))
    return real(*args, **options)

  monkeypatch.setattr(os, name, call)
  return calls


@pytest.mark.parametrize('change', ['add', 'remove'])
def test_a_failed_change_leaves_no_lock(live_dir, monkeypatch, change):
  engine = load(live_dir)
  before = contents(live_dir / 'index')
  for at in (1, 3):
    with monkeypatch.context() as patch:
      failing('fsync', patch, at=at)
      with pytest.raises(UserError, match='No space left') as kept:
        CHANGES[change](engine)
    # Nothing is named that was not there before, and no features are left behind.
    after = contents(live_dir / 'index')
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.startswith('added/')]
    load(live_dir).remove([engine.index.image_names[0]])  # Another process may change it.
  CHANGES[change](engine)
  engine.save()
  assert kept.value.__traceback__ is not None
  assert names_in(live_dir) == list(engine.index.image_names) != names_in(live_dir)[:-1]


def test_a_failed_description_leaves_no_lock_and_no_features(live_dir):
  engine = load(live_dir)
  with pytest.raises(UserError) as kept:
    engine.add({'good': PHOTOS[0], 'broken': b'no photo'})
  assert list((live_dir / 'index' / 'added').iterdir()) == []
  other = load(live_dir)
  other.add({'other': PHOTOS[1]})
  other.save()
  assert kept.value.__traceback__ is not None


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'code'),
  [('fsync', errno.ENOSPC), ('replace', errno.EIO), ('unlink', errno.EIO), ('open', errno.ENOSPC)],
)
def test_whichever_call_fails_the_index_is_the_old_one_or_the_new_one(
  index_dir, tmp_path, monkeypatch, caplog, name, code
):
  """Either the error is told, and the old index is there; or it is saved, and the new one is there."""
  directory = tmp_path / 'index'
  for kind in ('features', 'descriptors'):
    shutil.copytree(index_dir / kind, tmp_path / kind)
  outcomes = []
  for at in itertools.count(1):
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(index_dir / 'index', directory)
    engine = load(directory)
    engine.add({'kept': PHOTOS[1]})
    engine.save()
    engine.add({'gone': PHOTOS[3]})
    engine.remove(['gone'])
    gone = engine.index.image_names[0]
    before, fingerprint = names_in(directory), engine.artefact.manifest.fingerprint
    caplog.clear()
    kept = None
    with monkeypatch.context() as patch:
      calls = failing(name, patch, at=at, code=code)
      try:
        engine.add({'new': PHOTOS[0]})
        engine.remove([gone])
        engine.save()
      except UserError as error:
        kept = error
    if len(calls) < at:
      break
    stored = names_in(directory)
    if kept is None:
      assert stored == [*before[1:], 'new']
      assert read_manifest(directory / 'manifest.pbtxt').fingerprint != fingerprint
      outcomes.append('new')
    else:
      assert os.strerror(code) in str(kept)
      assert stored == before
      outcomes.append('old')
    assert found_first(load(directory), PHOTOS[1]) == 'kept'
    assert diagnose(directory).exit_code == 0
    # The engine can still save, and so can the next one.
    engine.add({'later': PHOTOS[2]})
    engine.save()
    assert names_in(directory) == list(engine.index.image_names)
    assert load(directory).artefact.counts['images'] == len(engine)
    other = load(directory)
    other.remove(['later'])
    other.save()
    assert diagnose(directory).exit_code == 0
  assert outcomes[0] == 'old'
  assert sorted(outcomes, reverse=True) == outcomes


def test_errors_after_the_new_index_is_in_place_are_warnings(live_dir, monkeypatch, caplog):
  engine = load(live_dir)
  gone, other, *rest = engine.index.image_names
  replace = os.replace

  def replace_index_alone(source, target):
    if os.path.basename(target) == 'index.json':
      replace(source, target)
      monkeypatch.setattr(os, 'fsync', full)
      monkeypatch.setattr(os, 'unlink', full)
    else:
      replace(source, target)

  def full(*args, **options):
    raise OSError(errno.EIO, 'Input/output error')

  engine.remove([gone])
  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', replace_index_alone)
    patch.setattr(os, 'fsync', os.fsync)
    patch.setattr(os, 'unlink', os.unlink)
    engine.save()
    monkeypatch.undo()
  assert 'the index is saved, but a power failure now may bring the old one back' in caplog.text
  assert 'files of the old one remain' in caplog.text
  assert names_in(live_dir) == list(engine.index.image_names) == [other, *rest]
  engine.remove([other])
  engine.save()
  assert names_in(live_dir) == rest


class Killed(BaseException):
  pass


@pytest.mark.parametrize('killed_at', ['finish', 'stamp'])
def test_a_new_index_never_has_the_fingerprint_of_the_old_one(live_dir, monkeypatch, killed_at):
  engine = load(live_dir)
  before = engine.artefact.manifest.fingerprint
  engine.add({'new': PHOTOS[0]})

  def kill(*args, **options):
    raise Killed

  with monkeypatch.context() as patch:
    place = {'finish': 'data.artefacts.live_files.finish', 'stamp': 'engine.live_index._stamped'}[killed_at]
    patch.setattr(f'delf_d2r.{place}', kill)
    with pytest.raises(Killed):
      engine.save()
  survivor = load(live_dir)
  assert survivor.index.image_names[-1] == 'new'
  assert survivor.artefact.manifest.fingerprint != before
  assert diagnose(live_dir / 'index').exit_code == 0
  # Interrupted only, as by Ctrl-C, it goes on, too.
  for one in (engine, survivor):
    one.refresh()
    one.remove([one.index.image_names[0]])
    one.save()
  assert load(live_dir).artefact.counts['images'] == len(survivor) == len(names_in(live_dir))


def test_a_build_in_the_same_place_is_not_overwritten(live_dir):
  engine = load(live_dir)
  engine.remove([engine.index.image_names[0]])
  kept = shutil.copytree(live_dir / 'index', live_dir / 'copy')
  shutil.rmtree(live_dir / 'index' / 'inverted')
  shutil.copytree(kept / 'inverted', live_dir / 'index' / 'inverted')
  with pytest.raises(UserError, match='was removed and made again'):
    engine.save()
  assert len(load(live_dir)) == len(engine) + 1
