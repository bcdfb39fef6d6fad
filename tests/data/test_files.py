"""Files are written whole or not at all."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from delf_d2r.data import files
from delf_d2r.errors import ArtefactError, UserError


@pytest.fixture
def full_disk(monkeypatch):
  """Makes every fsync fail with a full disk, as with delayed allocation."""

  def fail(_handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(files.os, 'fsync', fail)


def test_write_replaces_the_old_file(tmp_path):
  path = tmp_path / 'n\u00e4me mit Leerzeichen.json'
  for content in (b'old', 'neu \u00fc', b''):
    files.write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
  assert list(tmp_path.iterdir()) == [path]


def test_write_if_changed_leaves_a_file_of_the_same_text_alone(tmp_path, full_disk):
  path = tmp_path / 'x'
  path.write_text('\u00fc\n', encoding='utf-8')
  files.write_if_changed(path, '\u00fc\n')
  for other in (path, tmp_path / 'missing'):
    with pytest.raises(OSError, match='No space left'):
      files.write_if_changed(other, 'new')
  assert path.read_text(encoding='utf-8') == '\u00fc\n'


def test_new_files_have_the_permissions_of_any_new_file(tmp_path):
  (tmp_path / 'plain').touch()
  files.write_atomically(tmp_path / 'ours', b'')
  assert stat.S_IMODE((tmp_path / 'ours').stat().st_mode) == stat.S_IMODE((tmp_path / 'plain').stat().st_mode)


def test_error_in_the_body_leaves_the_old_file(tmp_path):
  path = tmp_path / 'x'
  path.write_bytes(b'old')

  def write_half():
    with files.atomic_replace(path) as temporary:
      temporary.write_bytes(b'half')
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    write_half()
  assert path.read_bytes() == b'old'
  assert list(tmp_path.iterdir()) == [path]


def test_full_disk_leaves_the_old_file(tmp_path, full_disk):
  path = tmp_path / 'x'
  path.write_bytes(b'old')
  with pytest.raises(OSError, match='No space left'):
    files.write_atomically(path, b'new')
  assert path.read_bytes() == b'old'
  assert list(tmp_path.iterdir()) == [path]


def test_file_size_limit_leaves_the_old_file(tmp_path):
  """Checks a real write that fails half-way, in its own process."""
  path = tmp_path / 'x'
  path.write_bytes(b'old')
  script = """
import pathlib, resource, signal, sys
import numpy as np
from delf_d2r.data import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
files.save_array(pathlib.Path(sys.argv[1]), np.zeros(10_000))
"""
  process = subprocess.run([sys.executable, '-c', script, path], capture_output=True, text=True, check=False)
  assert process.returncode == 1
  assert 'OSError' in process.stderr
  assert path.read_bytes() == b'old'
  assert list(tmp_path.iterdir()) == [path]


def test_user_errors_says_what_was_done_and_what_to_do(tmp_path, full_disk):
  converted = files.user_errors('cannot write', tmp_path)
  with pytest.raises(UserError, match=r'cannot write .*No space left.*run the same command again'), converted:
    files.write_atomically(tmp_path / 'x', b'new')


def test_user_errors_leaves_other_errors_alone(tmp_path):
  with pytest.raises(ArtefactError, match=r'^mine$'), files.user_errors('cannot write', tmp_path):
    raise ArtefactError('mine')
  with pytest.raises(ZeroDivisionError), files.user_errors('cannot write', tmp_path):
    raise ZeroDivisionError


# Files that the user has named


def test_an_output_is_written_through_links(tmp_path):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'real/a.html').write_text('old')
  (tmp_path / 'folder').symlink_to('real')
  (tmp_path / 'first').symlink_to('second')
  (tmp_path / 'second').symlink_to(tmp_path / 'folder/a.html')
  (tmp_path / 'dangling').symlink_to('real/b.html')
  files.write_output(tmp_path / 'first', 'new')
  files.write_output(tmp_path / 'dangling', b'more')
  assert all((tmp_path / name).is_symlink() for name in ('folder', 'first', 'second', 'dangling'))
  assert (tmp_path / 'real/a.html').read_text() == 'new'
  assert (tmp_path / 'real/b.html').read_bytes() == b'more'
  assert sorted(path.name for path in (tmp_path / 'real').iterdir()) == ['a.html', 'b.html']
  files.write_output(tmp_path / 'plain', 'text')
  assert (tmp_path / 'plain').read_text() == 'text'


def test_an_output_that_fails_leaves_link_and_target(tmp_path, full_disk):
  (tmp_path / 'a').write_text('old')
  (tmp_path / 'link').symlink_to('a')
  with pytest.raises(OSError, match='No space left'):
    files.write_output(tmp_path / 'link', 'new')
  assert (tmp_path / 'link').is_symlink()
  assert (tmp_path / 'a').read_text() == 'old'


def test_links_in_circles_are_an_error(tmp_path):
  (tmp_path / 'a').symlink_to('b')
  (tmp_path / 'b').symlink_to('a')
  with pytest.raises(OSError, match='Too many levels'):
    files.write_output(tmp_path / 'a', 'new')
  assert (tmp_path / 'a').is_symlink()


def test_an_output_to_a_device_is_written_to_it(tmp_path):
  (tmp_path / 'null').symlink_to('/dev/null')
  files.write_output(tmp_path / 'null', 'x' * 100_000)
  files.write_output_if_changed(tmp_path / 'null', 'x')
  assert os.readlink(tmp_path / 'null') == '/dev/null'
  (tmp_path / 'full').symlink_to('/dev/full')
  with pytest.raises(OSError, match='No space left'):
    files.write_output(tmp_path / 'full', 'x' * 100_000)
  try:
    os.mknod(tmp_path / 'device', 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    files.write_output(tmp_path / 'device', 'x')
  except PermissionError:
    pytest.skip('this user may not make devices')
  assert stat.S_ISCHR((tmp_path / 'device').stat().st_mode)
  assert {path.name for path in tmp_path.iterdir()} == {'null', 'full', 'device'}


def test_an_output_to_a_pipe_is_written_to_it(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  reader = threading.Thread(target=lambda: read.append((tmp_path / 'pipe').read_bytes()))
  read = []
  reader.start()
  files.write_output(tmp_path / 'pipe', b'y' * 200_000)
  reader.join(10)
  assert read == [b'y' * 200_000]
  assert stat.S_ISFIFO((tmp_path / 'pipe').stat().st_mode)


@pytest.mark.parametrize('name', ['/dev/stdout', '/dev/fd/1', '/proc/self/fd/1', 'link'])
@pytest.mark.parametrize('to_file', [True, False])
def test_an_output_to_a_descriptor_keeps_its_place_in_it(tmp_path, name, to_file):
  if name == 'link':
    (tmp_path / 'link').symlink_to('/dev/stdout')
    name = str(tmp_path / 'link')
  script = f"""
import pathlib
from delf_d2r.data import files
print('before')
files.write_output(pathlib.Path({name!r}), 'output\\n')
files.write_output_if_changed(pathlib.Path({name!r}), 'again\\n')
print('after')
"""
  with open(tmp_path / 'out', 'w') as out:
    sink = out if to_file else subprocess.PIPE
    done = subprocess.run([sys.executable, '-c', script], stdout=sink, text=True, check=True)
  text = (tmp_path / 'out').read_text() if to_file else done.stdout
  assert text.splitlines() == ['before', 'output', 'again', 'after']


@pytest.mark.parametrize('shape', [(0,), (0, 4), (3, 0), (2, 3)])
def test_arrays_round_trip(tmp_path, shape):
  array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
  files.save_array(tmp_path / 'a.npy', array)
  found = files.load_array(tmp_path / 'a.npy')
  np.testing.assert_array_equal(found, array)
  assert (found.shape, found.dtype) == (shape, np.float32)
  assert not found.flags.writeable


def test_object_arrays_are_neither_written_nor_read(tmp_path):
  with pytest.raises(ValueError, match='pickle'):
    files.save_array(tmp_path / 'a.npy', np.array([{}]))
  assert not list(tmp_path.iterdir())
  np.save(tmp_path / 'a.npy', np.array([{}]), allow_pickle=True)
  with pytest.raises(ArtefactError, match=r'a\.npy: missing or damaged'):
    files.load_array(tmp_path / 'a.npy')


def test_missing_empty_and_foreign_arrays(tmp_path):
  path = tmp_path / 'a.npy'
  with pytest.raises(ArtefactError, match='missing or damaged'):
    files.load_array(path)
  np.savez(tmp_path / 'b.npz', np.zeros(3))
  for content in (b'', b'\x93NUMPY', (tmp_path / 'b.npz').read_bytes()):
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match='missing or damaged'):
      files.load_array(path)


@pytest.mark.filterwarnings('ignore')  # NumPy warns of headers of old versions.
def test_damaged_arrays_raise_nothing_else(tmp_path):
  path = tmp_path / 'a.npy'
  np.save(path, np.ones((3, 4), np.float32))
  content = path.read_bytes()
  refused = 0
  for position in range(0, 128, 2):
    for value in b"\x00\xff('{9\n":
      damaged = bytearray(content)
      damaged[position] = value
      path.write_bytes(damaged)
      try:
        assert files.load_array(path).nbytes <= len(content)
      except ArtefactError:
        refused += 1
  assert refused > 100
  for size in range(0, len(content), 13):
    path.write_bytes(content[:size])
    with pytest.raises(ArtefactError):
      files.load_array(path)


@pytest.mark.parametrize('name', ['a.jpg', 'b/c.jpg', '..a/b..jpg', 'k\u00e4fer 1.jpg'])
def test_names_below_a_folder(tmp_path, name):
  assert files.safe_join(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize('name', ['', '../a.jpg', 'b/../../a.jpg', '/etc/passwd', 'a\0.jpg', '..'])
def test_names_that_lead_out_of_a_folder(tmp_path, name):
  with pytest.raises(UserError, match='leads out of it'):
    files.safe_join(tmp_path, name)


def test_lines_of_json_end_with_a_line_feed_alone():
  rows = [{'name': 'a\u2028b\x85c\x0bd\re\nf'}, {'name': 'g'}]
  text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  assert files.parse_json_lines(text) == rows
  with pytest.raises(ValueError, match='Expecting'):
    files.parse_json_lines('{"name": \n')


def test_json_nested_too_deeply_is_a_value_error():
  with pytest.raises(ValueError, match='nested too deeply'):
    files.parse_json('[' * 100_000)


def test_a_pipe_has_no_fingerprint(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(UserError, match='a pipe or a device, expected a file'):
    files.content_fingerprint(tmp_path / 'pipe')
