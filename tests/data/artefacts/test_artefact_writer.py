"""Making artefacts: resuming, refusing, locking, and what a kill or a full disk leaves behind."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import google_crc32c
import pytest

from delf_d2r import config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, tfrecord
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Input, Plan, read_manifest
from delf_d2r.data.artefacts.artefact_writer import ERRORS, PARTIAL_MANIFEST
from delf_d2r.errors import ArtefactError, UserError

NUM_ITEMS = 10
PER_SHARD = 3


def plan(kind='features', fingerprint='f00d', path='/photos', **extraction):
  config = configs.default('extraction')
  for field, value in extraction.items():
    setattr(config.extraction, field, value)
  return Plan(kind, config, (Input('images', fingerprint, pathlib.Path(path)),))


def make(path, wanted=None, *, stop_at=None, redo=False):
  """Writes items 0 to 9 three to a shard; item 4 fails. Returns the items that were worked on."""
  worked = []
  with artefact_writer.writing(path, wanted or plan(), redo=redo) as writer:
    if writer.finished:
      return worked
    for shard in writer.ledger.missing(NUM_ITEMS, PER_SHARD):
      with writer.ledger.write(shard) as file:
        for item in shard.items:
          if item == stop_at:
            raise KeyboardInterrupt
          worked.append(item)
          if item == 4:
            file.add_error('k\u00e4fer 4.jpg', 'is broken')
          else:
            file.add(b'item %d' % item, images=1, features=item)
    writer.finish({'extra': 7})
  return worked


def contents(path):
  """Every file but the manifest's wall time."""
  found = {}
  for file in path.rglob('*'):
    if file.is_file():
      lines = file.read_bytes().splitlines(keepends=True)
      found[str(file.relative_to(path))] = [line for line in lines if not line.startswith(b'seconds:')]
  return found


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'new' / 'fe\u00e4tures 1'


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  directory = tmp_path_factory.mktemp('undisturbed') / 'x'
  make(directory)
  return contents(directory)


# The usual course


def test_finished_artefact(path):
  assert make(path) == list(range(NUM_ITEMS))
  artefact = Artefact.open(path, 'features')
  assert list(artefact.records()) == [b'item %d' % item for item in range(NUM_ITEMS) if item != 4]
  assert artefact.counts == {'images': 9, 'features': 41, 'failed': 1, 'extra': 7}
  assert [shard.records for shard in artefact.manifest.shards] == [3, 2, 3, 1]
  names = [f'features-{number:05d}-of-00004.tfrecord' for number in range(4)]
  assert sorted(file.name for file in path.iterdir()) == sorted([*names, ERRORS, MANIFEST])
  assert artefact.manifest.bytes == sum((path / name).stat().st_size for name in [*names, ERRORS])
  error = json.loads((path / ERRORS).read_text(encoding='utf-8'))
  assert error == {'name': 'k\u00e4fer 4.jpg', 'error': 'is broken'}
  assert artefact_writer.read_errors(artefact) == [error]


def test_checksum_in_the_manifest_is_that_of_the_file(path):
  make(path)
  (shard, *_) = Artefact.open(path, 'features').manifest.shards
  assert shard.crc32c == google_crc32c.value((path / shard.file).read_bytes())


def test_finished_artefact_is_skipped_and_not_touched(path):
  make(path)
  before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
  assert make(path) == []
  assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_artefact_of_no_items_has_one_empty_shard(path):
  with artefact_writer.writing(path, plan()) as writer:
    for shard in writer.ledger.missing(0, PER_SHARD):
      assert len(shard.items) == 0
      with writer.ledger.write(shard):
        pass
    writer.finish()
  artefact = Artefact.open(path, 'features')
  assert [shard.file for shard in artefact.manifest.shards] == ['features-00000-of-00001.tfrecord']
  assert list(artefact.records()) == []
  assert artefact.counts == {'failed': 0}
  assert not (path / ERRORS).exists()


def test_errors_of_the_artefact_before_come_first(path, tmp_path):
  make(path)
  with artefact_writer.writing(tmp_path / 'next', plan('descriptors')) as writer:
    for shard in writer.ledger.missing(1, 1):
      with writer.ledger.write(shard) as file:
        file.add_error('new.jpg', 'too')
    artefact = writer.finish(upstream=Artefact.open(path, 'features'))
  names = [error['name'] for error in artefact_writer.read_errors(artefact)]
  assert names == ['k\u00e4fer 4.jpg', 'new.jpg']
  assert artefact.counts['failed'] == 2


def test_discard_leaves_an_empty_directory(path):
  with artefact_writer.writing(path, plan()) as writer:
    for shard in writer.ledger.missing(1, 1):
      with writer.ledger.write(shard) as file:
        file.add(b'x')
    writer.discard()
  assert list(path.iterdir()) == []


# Resuming


@pytest.mark.parametrize('stop_at', range(NUM_ITEMS))
def test_resume_keeps_finished_shards_and_ends_in_the_same_bytes(path, undisturbed, stop_at):
  with pytest.raises(KeyboardInterrupt):
    make(path, stop_at=stop_at)
  assert not (path / MANIFEST).exists()
  with pytest.raises(ArtefactError, match='no finished artefact'):
    Artefact.open(path, 'features')
  assert make(path) == list(range(stop_at - stop_at % PER_SHARD, NUM_ITEMS))
  assert contents(path) == undisturbed


def test_resume_removes_leftovers_of_a_kill(path, undisturbed):
  with pytest.raises(KeyboardInterrupt):
    make(path, stop_at=5)
  (path / '.features-00001-of-00004.tfrecord.abc.tmp').write_bytes(b'half')
  (path / '.progress' / '.features-00001-of-00004.tfrecord.json.abc.tmp').write_bytes(b'{')
  make(path)
  assert contents(path) == undisturbed


def test_kill_between_account_and_shard(path, undisturbed):
  with pytest.raises(KeyboardInterrupt):
    make(path, stop_at=5)
  (path / 'features-00000-of-00004.tfrecord').unlink()
  assert make(path) == list(range(NUM_ITEMS))
  assert contents(path) == undisturbed


@pytest.mark.parametrize('account', [b'', b'{', b'[]', b'{}', b'\xff', b'{"bytes": 1}'])
def test_shard_with_a_damaged_account_is_written_again(path, undisturbed, account):
  with pytest.raises(KeyboardInterrupt):
    make(path, stop_at=5)
  (path / '.progress' / 'features-00000-of-00004.tfrecord.json').write_bytes(account)
  assert make(path)[0] == 0
  assert contents(path) == undisturbed


def test_kill_right_after_the_manifest_leaves_traces_that_go(path, undisturbed):
  make(path)
  (path / PARTIAL_MANIFEST).write_bytes((path / MANIFEST).read_bytes())
  (path / '.progress').mkdir()
  assert make(path) == []
  assert contents(path) == undisturbed


def test_kill_while_the_very_first_file_is_written(path, undisturbed):
  path.mkdir(parents=True)
  (path / f'.{PARTIAL_MANIFEST}.abc.tmp').write_bytes(b'ki')
  make(path)
  assert contents(path) == undisturbed


KILLED = textwrap.dedent("""
  import os, pathlib, signal, sys
  sys.path.insert(0, sys.argv[1])
  import test_artefact_writer as tests
  from delf_d2r.data.artefacts import artefact_writer
  from delf_d2r.data import files

  # Dies at the n-th call that makes or removes something.
  left = int(sys.argv[3])
  def dying(function):
    def call(*arguments, **options):
      global left
      left -= 1
      if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
      return function(*arguments, **options)
    return call

  for name in ('replace', 'fsync', 'chmod', 'unlink', 'rmdir', 'mkdir'):
    setattr(os, name, dying(getattr(os, name)))
  tests.make(pathlib.Path(sys.argv[2]), tests.plan(max_features=int(sys.argv[4])), redo=True)
""")


def run_killed(path, moment, *, max_features=1000):
  here = str(pathlib.Path(__file__).parent)
  command = [sys.executable, '-c', KILLED, here, str(path), str(moment), str(max_features)]
  return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.parametrize('moment', [0, 1, 2, 4, 7, 12, 20, 33, 41])
def test_sigkill_and_resume(path, undisturbed, moment):
  assert run_killed(path, moment) == -signal.SIGKILL
  assert not (path / MANIFEST).exists()
  make(path)
  assert contents(path) == undisturbed


@pytest.mark.parametrize('moment', [0, 1, 2, 3, 4, 6, 7, 8, 9, 11])
def test_sigkill_while_an_old_artefact_is_removed(path, undisturbed, moment):
  make(path, plan(max_features=5))
  for name in 'abcdef':
    (path / name).touch()  # Files that the new artefact does not replace.
  assert run_killed(path, moment) == -signal.SIGKILL
  make(path, redo=True)
  assert contents(path) == undisturbed


# What is refused


def test_other_config_is_refused_naming_field_values_and_remedy(path):
  make(path)
  before = contents(path)
  with pytest.raises(ArtefactError) as raised:
    make(path, plan(max_features=5, min_attention=0.5))
  for part in (
    str(path),
    'made by another run',
    'extraction.max_features is 1000 there, 5 here',
    'extraction.min_attention is 0 there, 0.5 here',
    '--redo',
  ):
    assert part in str(raised.value)
  assert contents(path) == before


def test_other_input_is_refused(path):
  make(path)
  with pytest.raises(ArtefactError, match=r'input images is f00d \(/photos\) there, beef \(/photos\) here'):
    make(path, plan(fingerprint='beef'))


def test_unfinished_work_of_another_config_is_refused(path):
  with pytest.raises(KeyboardInterrupt):
    make(path, stop_at=5)
  with pytest.raises(ArtefactError, match=r'begun by another run: extraction\.max_features'):
    make(path, plan(max_features=5))


@pytest.mark.parametrize('finished', [True, False])
def test_redo_replaces_what_another_config_made(path, undisturbed, finished):
  if finished:
    make(path, plan(max_features=5))
  else:
    with pytest.raises(KeyboardInterrupt):
      make(path, plan(max_features=5), stop_at=8)
  (path / 'folder').mkdir()
  assert make(path, redo=True) == list(range(NUM_ITEMS))
  assert contents(path) == undisturbed


def test_redo_skips_and_resumes_what_the_same_config_made(path):
  with pytest.raises(KeyboardInterrupt):
    make(path, stop_at=5)
  assert make(path, redo=True) == list(range(3, NUM_ITEMS))
  assert make(path, redo=True) == []


@pytest.mark.parametrize('redo', [False, True])
def test_artefact_of_another_stage_is_never_replaced(path, redo):
  make(path)
  before = contents(path)
  with pytest.raises(ArtefactError, match=r'holds features, not boxes; .*Nothing was touched'):
    make(path, plan('boxes'), redo=redo)
  assert contents(path) == before


def test_redo_replaces_an_artefact_of_another_version(path, undisturbed):
  make(path)
  text = (path / MANIFEST).read_text(encoding='utf-8')
  text = text.replace('format_version: 1', 'format_version: 0').replace(plan().fingerprint, 'of old')
  (path / MANIFEST).write_text(text, encoding='utf-8')
  with pytest.raises(ArtefactError, match=r'format version 0.*--redo'):
    make(path)
  make(path, redo=True)
  assert contents(path) == undisturbed


@pytest.mark.parametrize('name', ['thesis.docx', '.hidden', 'x.tmp', '.x.tmp', 'manifest.pbtxt.bak'])
@pytest.mark.parametrize('redo', [False, True])
def test_foreign_directory_is_refused_untouched(path, name, redo):
  path.mkdir(parents=True)
  (path / name).write_bytes(b'years of work')
  with pytest.raises(ArtefactError, match=r'not empty and no artefact \(it holds .*nothing was touched'):
    make(path, redo=redo)
  assert contents(path) == {name: [b'years of work']}


def test_output_that_is_a_file(tmp_path):
  (tmp_path / 'x').write_bytes(b'mine')
  for path in (tmp_path / 'x', tmp_path / 'x' / 'below'):
    with pytest.raises(UserError, match='cannot write'):
      make(path)
  assert (tmp_path / 'x').read_bytes() == b'mine'


# Changes that make nothing stale


def test_comparison_is_refreshed_in_the_manifest(path):
  def descriptors(alpha, place):
    config = configs.default('aggregation')
    config.aggregation.alpha = alpha
    return Plan('descriptors', config, (Input('features', 'f00d', pathlib.Path(place)),))

  make(path, descriptors(3, '/old'))
  records = list(Artefact.open(path, 'descriptors').records())
  counts = Artefact.open(path, 'descriptors').counts
  assert make(path, descriptors(1.5, '/new')) == []
  artefact = Artefact.open(path, 'descriptors')
  assert artefact.config.aggregation.alpha == 1.5
  assert artefact.input('features').path == pathlib.Path('/new')
  assert (list(artefact.records()), artefact.counts) == (records, counts)


# Two writers


def test_second_writer_in_this_process_is_refused(path):
  refused = pytest.raises(UserError, match='another process is writing this artefact')
  with artefact_writer.writing(path, plan()), refused:
    make(path)
  make(path)


def test_second_writer_in_another_process_is_refused(path, undisturbed):
  path.mkdir(parents=True)
  lock = 'fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)'
  script = f'import fcntl, os, sys; {lock}; print(flush=True); input()'
  other = subprocess.Popen(
    [sys.executable, '-c', script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
  )
  with other:
    other.stdout.readline()
    with pytest.raises(UserError, match='another process'):
      make(path)
    assert contents(path) == {}
    other.kill()
  make(path)
  assert contents(path) == undisturbed


def test_lock_goes_with_the_writer_even_after_an_error(path):
  with pytest.raises(KeyboardInterrupt):
    make(path, stop_at=0)
  handle = os.open(path, os.O_RDONLY)
  fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  os.close(handle)


# Places that cannot be written


@pytest.mark.parametrize('code', [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_place_that_cannot_be_written(path, monkeypatch, code):
  def fail(*_arguments, **_options):
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(files.tempfile, 'mkstemp', fail)
  with pytest.raises(UserError, match=rf'cannot write .*{os.strerror(code)}.*run the same command again'):
    make(path)
  assert contents(path) == {}


@pytest.mark.parametrize('moment', range(12))
def test_disk_that_fills_up_leaves_nothing_half_written(path, undisturbed, monkeypatch, moment):
  fsync, calls = os.fsync, []

  def fail_at_moment(handle):
    calls.append(handle)
    if len(calls) > moment:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(handle)

  monkeypatch.setattr(files.os, 'fsync', fail_at_moment)
  with pytest.raises(UserError, match=r'No space left.*run the same command again'):
    make(path)
  monkeypatch.undo()
  assert not (path / MANIFEST).exists()
  assert not list(path.rglob('*.tmp'))
  for shard in path.glob('*.tfrecord'):
    assert list(tfrecord.read_file(shard))
  make(path)
  assert contents(path) == undisturbed


def test_read_only_place_is_no_obstacle_to_a_finished_artefact(path, monkeypatch):
  make(path)

  def fail(*_arguments, **_options):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  for name in ('unlink', 'rmdir', 'replace', 'mkdir'):
    monkeypatch.setattr(os, name, fail)
  monkeypatch.setattr(
    pathlib.Path, 'mkdir', lambda *_, **__: None
  )  # Exists already: the kernel says so first.
  assert make(path) == []


def refuse_writing(monkeypatch, code):
  def fail(*_arguments, **_options):
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(files.tempfile, 'mkstemp', fail)


@pytest.mark.parametrize('code', [errno.EROFS, errno.EACCES, errno.EPERM])
def test_finished_artefact_serves_where_its_paths_cannot_be_brought_up_to_date(
  path, monkeypatch, caplog, code
):
  make(path)
  before = contents(path)
  refuse_writing(monkeypatch, code)
  caplog.set_level('INFO', 'absl')
  assert make(path, plan(path='/elsewhere')) == []
  assert contents(path) == before
  assert os.strerror(code) in caplog.text


def test_full_disk_is_said_of_a_finished_artefact_too(path, monkeypatch):
  make(path)
  refuse_writing(monkeypatch, errno.ENOSPC)
  with pytest.raises(UserError, match='No space left'):
    make(path, plan(path='/elsewhere'))


def test_partial_manifest_tells_the_plan(path):
  with artefact_writer.writing(path, plan()) as writer:
    assert not writer.resumed
    found = read_manifest(path / PARTIAL_MANIFEST)
  assert found == plan().to_manifest()
  with artefact_writer.writing(path, plan()) as writer:
    assert writer.resumed


def test_a_finished_artefact_is_opened_again(path, caplog):
  caplog.set_level('INFO', logger='absl')
  make(path)
  with artefact_writer.writing(path, plan()) as writer:
    assert writer.finished
    assert writer.reuse('things').counts['images'] == 9
  assert f'things: {path} is up to date, skipped' in caplog.text
