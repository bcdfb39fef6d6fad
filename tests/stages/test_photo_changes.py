"""Photos that cannot be read for a moment, that are replaced, and that change while they are read."""

import errno
import json
import os
import pathlib
import shutil

import cv2
import pytest
from google.protobuf import text_format
from PIL import Image

from delf_d2r import config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import feature_files, read_photos
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.shard_ledger import ShardLedger
from delf_d2r.data.photos import images, photo_state
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.doctor import inspect
from delf_d2r.errors import ArtefactError, ImageError, PhotoUnavailableError, UserError
from delf_d2r.extractors.region_extractor import RegionExtractor
from delf_d2r.stages import extract_features, train_codebook
from tests.support.synthetic_photos import texture

NAMES = ['a.png', 'b.png', 'c.png', 'd.png']


def settings(**extraction):
  config = configs.default('extraction', 'codebook')
  config.extraction.images_per_shard = 2
  config.extraction.max_features = 20
  config.codebook.num_words = 4
  config.codebook.iterations = 2
  for field, value in extraction.items():
    setattr(config.extraction, field, value)
  return config


def save(path, seed):
  # Not compressed, so that all photos have the same size.
  Image.fromarray(texture(60, 80, seed)).save(path, compress_level=0)


@pytest.fixture
def folder(tmp_path):
  root = tmp_path / 'photos'
  root.mkdir()
  for seed, name in enumerate(NAMES):
    save(root / name, seed)
  return root


@pytest.fixture
def run(folder, tmp_path):
  def extract(output='features', **options):
    dataset = Dataset.load(options.pop('root', folder))
    place = tmp_path / output
    return extract_features.run(settings(), dataset, place, boxes=None, workers=1, **options)

  return extract


def names(artefact):
  return [image.name for image in feature_files.read(artefact)]


def shards(artefact):
  return {path.name: path.read_bytes() for path in sorted(artefact.path.glob('*.tfrecord'))}


@pytest.fixture
def reads(monkeypatch):
  """Counts the photos that are decoded, and runs actions before or after the next reading of a photo."""
  log: list[str] = []
  before: dict[str, list] = {}
  after: dict[str, list] = {}
  read = photo_state.read

  def logged(path):
    name = pathlib.Path(path).name
    log.append(name)
    for action in before.pop(name, ()):
      action()
    found = read(path)
    for action in after.pop(name, ()):
      action()
    return found

  monkeypatch.setattr(photo_state, 'read', logged)
  logged.log, logged.before, logged.after = log, before, after
  return logged


def failing(error):
  def fail():
    raise error

  return fail


def problems(path):
  return [finding.problem for finding in inspect.diagnose(path).findings if finding.severity.name != 'NOTE']


# Failures for a moment


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.EIO, 'Input/output error'),
    OSError(errno.EMFILE, 'Too many'),
    FileNotFoundError(2, 'gone'),
    MemoryError(),
  ],
)
def test_failure_for_a_moment_stops_and_is_not_recorded(run, reads, error):
  undisturbed = run('undisturbed')
  reads.before['c.png'] = [failing(error)]
  with pytest.raises(PhotoUnavailableError, match=r'c\.png: .*[Rr]un'):
    run()
  del reads.log[:]
  artefact = run()
  assert reads.log == ['c.png', 'd.png']  # The first shard was kept.
  assert shards(artefact) == shards(undisturbed)
  assert artefact.manifest.fingerprint == undisturbed.manifest.fingerprint
  assert artefact.counts['failed'] == 0


@pytest.mark.parametrize('kind', ['MemoryError', 'OpenCV'])
def test_want_of_memory_in_the_extractor_is_the_same(run, monkeypatch, kind):
  def fail(*_arguments):
    if kind == 'MemoryError':
      raise MemoryError
    error = cv2.error('Insufficient memory')
    error.code = -4
    raise error

  with monkeypatch.context() as patched:
    patched.setattr(RegionExtractor, 'extract', fail)
    with pytest.raises(PhotoUnavailableError, match=r'a\.png: there is not enough memory'):
      run()
  assert names(run()) == NAMES


def test_photo_that_cannot_be_listed_for_a_moment(folder, monkeypatch):
  dataset = Dataset.load(folder)
  monkeypatch.setattr('builtins.open', failing_open('b.png', OSError(errno.EIO, 'Input/output error')))
  with pytest.raises(PhotoUnavailableError, match=r'b\.png: cannot be read \(Input/output error\)'):
    dataset.images.as_input()


def failing_open(name, error):
  real = open

  def opening(path, *arguments, **options):
    if pathlib.Path(str(path)).name == name:
      raise error
    return real(path, *arguments, **options)

  return opening


def test_forbidden_photo_is_left_out_and_tried_again(run, monkeypatch):
  undisturbed = run('undisturbed')
  with monkeypatch.context() as patched:
    patched.setattr('builtins.open', failing_open('c.png', PermissionError(13, 'Permission denied')))
    assert names(run()) == ['a.png', 'b.png', 'd.png']
    before = run()
    assert before.counts['failed'] == 1
    assert 'Permission denied' in (before.path / 'errors.jsonl').read_text(encoding='utf-8')
    with pytest.raises(ImageError, match=r'c\.png.*Permission denied.*--strict'):
      run(strict=True)
    with pytest.raises(ImageError, match=r'c\.png.*Permission denied.*--strict'):
      run('other', strict=True)
  artefact = run()
  assert shards(artefact) == shards(undisturbed)
  assert artefact.manifest.fingerprint == undisturbed.manifest.fingerprint
  assert artefact.counts['failed'] == 0
  assert not (artefact.path / 'errors.jsonl').exists()
  assert list(artefact.manifest.supersedes) == [before.manifest.fingerprint]
  assert problems(artefact.path) == []


@pytest.mark.parametrize('redo', [False, True])
@pytest.mark.parametrize('strict', [False, True])
def test_mended_photo_is_taken_in(folder, run, reads, tmp_path, redo, strict):
  whole = (folder / 'c.png').read_bytes()
  broken = bytearray(whole)
  broken[len(whole) // 2] ^= 0xFF
  (folder / 'c.png').write_bytes(broken)
  features = run()
  assert names(features) == ['a.png', 'b.png', 'd.png']
  train_codebook.run(settings(), features, tmp_path / 'codebook')
  del reads.log[:]
  assert names(run()) == ['a.png', 'b.png', 'd.png']
  assert reads.log == ['c.png']
  (remedy,) = [f.remedy for f in inspect.diagnose(features.path).findings if 'could not be read' in f.problem]
  assert 'run the same command again' in remedy
  (folder / 'c.png').write_bytes(whole)
  del reads.log[:]
  mended = run(redo=redo, strict=strict)
  assert names(mended) == NAMES
  assert reads.log == ['c.png', 'c.png', 'd.png']  # Tried first, then its shard.
  assert mended.manifest.fingerprint != features.manifest.fingerprint
  assert problems(mended.path) == []
  # What was made from it is made again, without --redo.
  codebook = train_codebook.run(settings(), mended, tmp_path / 'codebook')
  assert codebook.counts['descriptors'] > 0
  assert [item.fingerprint for item in codebook.inputs] == [mended.manifest.fingerprint]
  del reads.log[:]
  assert names(run()) == NAMES
  assert reads.log == []


@pytest.mark.parametrize('moment', ['write_atomically', 'forget'])
def test_killed_while_a_finished_artefact_is_opened_again(folder, run, monkeypatch, moment):
  undisturbed = run('undisturbed')
  whole = (folder / 'c.png').read_bytes()
  (folder / 'c.png').write_bytes(b'no photo')
  run()
  (folder / 'c.png').write_bytes(whole)
  owner = ShardLedger if moment == 'forget' else files
  real = getattr(owner, moment)

  def killed(*arguments):
    if moment == 'write_atomically':
      real(*arguments)
    raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr(owner, moment, killed)
    with pytest.raises(KeyboardInterrupt):
      run()
  artefact = run()
  assert shards(artefact) == shards(undisturbed)
  assert artefact.manifest.fingerprint == undisturbed.manifest.fingerprint
  assert problems(artefact.path) == []


def test_unknown_file_that_cannot_be_read_for_a_moment(folder, monkeypatch):
  (folder / 'a.png').rename(folder / 'unnamed')
  error = OSError(errno.EIO, 'Input/output error')
  monkeypatch.setattr('builtins.open', failing_open('unnamed', error))
  with pytest.raises(PhotoUnavailableError, match=r'unnamed: cannot be read'):
    Dataset.load(folder)


def test_photo_mended_by_one_of_another_size(folder, run):
  (folder / 'c.png').write_bytes(b'no photo')
  assert len(names(run())) == 3
  save(folder / 'c.png', 9)
  assert names(run()) == NAMES
  assert names(run()) == NAMES


def test_mended_and_another_one_changed(folder, run):
  (folder / 'c.png').write_bytes(b'no photo')
  run()
  save(folder / 'c.png', 9)
  save(folder / 'a.png', 10)
  with pytest.raises(ArtefactError, match='made by another run'):
    run()
  assert names(run(redo=True)) == NAMES


def test_photo_that_gives_nan_is_tried_again_when_it_has_changed(folder, run, reads, monkeypatch):
  extract = RegionExtractor.extract

  def fail_for_c(self, name, *arguments):
    if name == 'c.png':
      raise ImageError('c.png: the extractor returned NaN')
    return extract(self, name, *arguments)

  with monkeypatch.context() as patched:
    patched.setattr(RegionExtractor, 'extract', fail_for_c)
    run()
  del reads.log[:]
  assert len(names(run())) == 3
  assert reads.log == []
  with pytest.raises(ImageError, match=r'c\.png.*--strict'):
    run(strict=True)
  save(folder / 'c.png', 9)
  assert names(run()) == NAMES


def test_finished_shards_with_broken_photos_are_kept(folder, run, reads):
  (folder / 'a.png').write_bytes(b'no photo')
  reads.before['d.png'] = [failing(OSError(errno.EIO, 'not now'))]
  with pytest.raises(PhotoUnavailableError):
    run()
  del reads.log[:]
  assert names(run()) == ['b.png', 'c.png', 'd.png']
  assert reads.log == ['c.png', 'd.png']


def as_before(artefact):
  """Makes an artefact as it was before the bytes of its photos were noted."""
  shutil.rmtree(artefact.path / '.progress')
  manifest = artefact.manifest
  manifest.inputs.remove(next(item for item in manifest.inputs if item.role == read_photos.ROLE))
  found = Artefact(artefact.path, manifest)
  manifest.fingerprint = inspect.artefact_files.planned_fingerprint(found)
  (artefact.path / 'manifest.pbtxt').write_text(text_format.MessageToString(manifest), encoding='utf-8')
  return manifest.fingerprint


def test_artefact_made_before_is_still_used(folder, run, reads):
  fingerprint = as_before(run())
  del reads.log[:]
  artefact = run()
  assert artefact.manifest.fingerprint == fingerprint
  assert reads.log == []
  assert problems(artefact.path) == []


def test_failures_of_an_artefact_made_before_are_tried_again(folder, run):
  whole = (folder / 'c.png').read_bytes()
  (folder / 'c.png').write_bytes(whole[:8000] + bytes(1) + whole[8001:])
  fingerprint = as_before(run())
  assert run().manifest.fingerprint == fingerprint
  (folder / 'c.png').write_bytes(whole)
  artefact = run()
  assert names(artefact) == NAMES
  assert list(artefact.manifest.supersedes) == [fingerprint]


# The identity of a photo


@pytest.fixture
def twins(tmp_path):
  """Two photos of the same size whose first and last 4 KiB agree, and a folder with the first."""
  first = texture(120, 120, 1)
  second = first.copy()
  second[50:70] = texture(120, 120, 2)[50:70]
  contents = []
  for pixels in (first, second):
    path = tmp_path / 'x.ppm'
    Image.fromarray(pixels).save(path)
    contents.append(path.read_bytes())
    path.unlink()
  assert contents[0][:4200] == contents[1][:4200]
  assert contents[0][-4200:] == contents[1][-4200:]
  return contents


def test_photo_of_the_same_size_head_and_tail(folder, run, twins, tmp_path):
  # A compressed extension: of the others, all bytes are in the fingerprint of the list.
  (folder / 'b.png').write_bytes(twins[0])
  features = run()
  before = shards(features)
  train_codebook.run(settings(), features, tmp_path / 'codebook')
  (folder / 'b.png').write_bytes(twins[1])
  assert Dataset.load(folder).images.as_input().fingerprint == features.input('images').fingerprint
  with pytest.raises(ArtefactError, match=r'1 photos of .*photos have changed since .* b\.png.*--redo'):
    run()
  again = run(redo=True)
  assert again.manifest.fingerprint != features.manifest.fingerprint
  assert shards(again) != before
  # Another photo is no mended one: what was made from it is refused as ever.
  with pytest.raises(ArtefactError, match='input features is'):
    train_codebook.run(settings(), again, tmp_path / 'codebook')
  (folder / 'b.png').write_bytes(twins[0])
  assert run(redo=True).manifest.fingerprint == features.manifest.fingerprint


def test_doctor_reads_photos_whatever_their_times(folder, run, twins):
  (folder / 'b.png').write_bytes(twins[0])
  features = run()
  assert problems(features.path) == []
  times = os.stat(folder / 'b.png')
  (folder / 'b.png').write_bytes(twins[1])
  os.utime(folder / 'b.png', ns=(times.st_atime_ns, times.st_mtime_ns))
  run()  # Size and modification time are the same.
  (found,) = problems(features.path)
  assert 'other bytes' in found
  assert 'b.png' in found


@pytest.mark.parametrize('how', ['copied', 'touched', 'moved'])
def test_other_times_are_no_other_photos(folder, run, tmp_path, monkeypatch, how):
  features = run()
  root = folder
  if how == 'touched':
    for name in NAMES:
      os.utime(folder / name, (1, 1))
  elif how == 'copied':
    root = tmp_path / 'copy'
    shutil.copytree(folder, root, copy_function=shutil.copyfile)
  else:
    root = folder.rename(tmp_path / 'moved')
  digested = []
  digest = photo_state.digest
  monkeypatch.setattr(photo_state, 'digest', lambda path: digested.append(path) or digest(path))
  again = run(root=root)
  assert again.manifest.fingerprint == features.manifest.fingerprint
  assert len(digested) == (0 if how == 'moved' else 4)
  run(root=root)  # The times are known by now.
  assert len(digested) == (0 if how == 'moved' else 4)
  assert problems(features.path) == []
  assert run('new', root=root).manifest.fingerprint == features.manifest.fingerprint


def test_photo_replaced_between_two_parts_of_a_run(folder, run, reads, twins):
  (folder / 'a.png').write_bytes(twins[0])
  reads.before['d.png'] = [failing(OSError(errno.EIO, 'not now'))]
  with pytest.raises(PhotoUnavailableError):
    run()
  (folder / 'a.png').write_bytes(twins[1])
  artefact = run()
  assert shards(artefact) == shards(run('undisturbed'))


def test_ledger_that_is_lost(folder, run, twins):
  (folder / 'b.png').write_bytes(twins[0])
  features = run()
  shutil.rmtree(features.path / '.progress')
  assert run().manifest.fingerprint == features.manifest.fingerprint
  (folder / 'b.png').write_bytes(twins[1])
  with pytest.raises(ArtefactError, match=r'photos of .* have changed since'):
    run()


def test_ledger_in_a_folder_that_cannot_be_written(folder, run, monkeypatch):
  features = run()
  os.utime(folder / 'a.png', (1, 1))
  monkeypatch.setattr(
    'delf_d2r.data.files.write_atomically', lambda *_: failing(OSError(errno.EROFS, 'read-only'))()
  )
  assert run().manifest.fingerprint == features.manifest.fingerprint


# Photos that change while they are read


def test_changed_and_changed_back(folder, run, reads):
  undisturbed = run('undisturbed')
  first = (folder / 'a.png').read_bytes()
  times = os.stat(folder / 'a.png')

  def change_back():
    (folder / 'a.png').write_bytes(first)
    os.utime(folder / 'a.png', ns=(times.st_atime_ns, times.st_mtime_ns))

  def change():
    save(folder / 'a.png', 77)
    os.utime(folder / 'a.png', ns=(times.st_atime_ns, times.st_mtime_ns))

  reads.before['a.png'] = [change]
  reads.after['a.png'] = [change_back]
  artefact = run()
  assert reads.log.count('a.png') == 3
  assert shards(artefact) == shards(undisturbed)
  assert artefact.manifest.fingerprint == undisturbed.manifest.fingerprint


@pytest.mark.parametrize('when', ['before', 'after'])
def test_changed_for_good(folder, run, reads, when):
  getattr(reads, when)['c.png'] = [lambda: save(folder / 'c.png', 55)]
  artefact = run()
  fresh = run('fresh')
  assert shards(artefact) == shards(fresh)
  assert artefact.manifest.fingerprint == fresh.manifest.fingerprint
  assert run().manifest.fingerprint == fresh.manifest.fingerprint
  assert problems(artefact.path) == []


def test_changes_without_end(folder, run, reads, monkeypatch):
  monkeypatch.setattr(photo_state, '_TICK_NS', 0)
  seeds = iter(range(100, 200))

  def change():
    save(folder / 'c.png', next(seeds))
    reads.after['c.png'] = [change]

  reads.after['c.png'] = [change]
  with pytest.raises(PhotoUnavailableError, match='photos change whenever they are read'):
    run()


def test_file_that_grows_while_it_is_read(folder, monkeypatch):
  path = folder / 'a.png'
  content = path.read_bytes()
  real = open
  grown = []

  class Growing:
    def __init__(self, file):
      self._file = file

    def __enter__(self):
      return self

    def __exit__(self, *_):
      self._file.close()

    def fileno(self):
      return self._file.fileno()

    def read(self):
      half = self._file.read(1000)
      if len(grown) < 1:
        grown.append(True)
        path.write_bytes(content[::-1])
      return half + self._file.read()

  monkeypatch.setattr(photo_state, 'open', lambda *arguments: Growing(real(*arguments)), raising=False)
  data, state = photo_state.read(path)
  assert data == content[::-1]
  assert state.digest == photo_state.of_bytes(data).digest


def test_pixels_are_those_of_the_digest(folder):
  photo = images.read_photo(folder / 'a.png')
  assert photo.state.digest == photo_state.digest(folder / 'a.png')
  assert photo.state.size == (folder / 'a.png').stat().st_size


def test_ledger_names_every_photo(run):
  artefact = run()
  entry = json.loads((artefact.path / '.progress' / 'features-00000-of-00002.tfrecord.json').read_text())
  assert [(photo[0], photo[5]) for photo in entry['photos']] == [('a.png', ''), ('b.png', '')]


def test_truncated_photo_is_counted(folder, run, caplog):
  Image.fromarray(texture(300, 400, 5)).save(folder / 'e.jpg')
  (folder / 'e.jpg').write_bytes((folder / 'e.jpg').read_bytes()[:-5])
  artefact = run()
  assert artefact.counts['truncated'] == 1
  assert 'e.jpg: truncated' in caplog.text
  (found,) = problems(artefact.path)
  assert '1 photos lack the end' in found


def test_none_can_be_read(folder, run):
  for name in NAMES:
    (folder / name).write_bytes(b'no photo')
  with pytest.raises(UserError, match='none of the 4 index images'):
    run()
