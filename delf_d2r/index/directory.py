"""The index on the disk: a directory of plain `.npy` arrays and `index.json`, which names their checksums.

    index.json                                   sizes, kernel, CRC-32C of every array
    segment-00000-offsets-<crc>.npy              and entry_ids, values, word_counts (segments.Segment)
    names_offsets-<crc>.npy, names_utf8-<crc>.npy            (images.ImageTable)
    entry_offsets-<crc>.npy, entry_regions-<crc>.npy         regional search only

A file is named by its content and never changed. An update writes new files, then replaces
`index.json` by a rename: a kill at any moment leaves the old index or the new one, and the same images
give the same files whatever way they came in. Files of a dead update are ignored, and removed by the
next update.
"""

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator

import google_crc32c
import numpy as np

from delf_d2r.index.array_files import CHUNK, array_header, array_path
from delf_d2r.index.manifest import MANIFEST, encode_manifest, read_manifest, stems

_OWN_FILES = re.compile(
  r'(segment-\d+-\w+|names_offsets|names_utf8|entry_offsets|entry_regions)-[0-9a-f]{8}\.npy|\.index-\w+\.tmp'
)


class Directory:
  """Writes arrays and the manifest of an index that is being updated; one writer at a time.

  Args:
    path: made if it is not there.
    expected: checksum of the manifest that may be replaced; None where no index is expected.
    overwrite: replace any.

  Raises:
    BlockingIOError: another writer is at work in the directory.
    ValueError: the directory holds another index than expected.
  """

  def __init__(self, path: str, *, expected: int | None = None, overwrite: bool = False):
    self.path = path
    os.makedirs(path, exist_ok=True)
    # The lock goes with the process, however that ends.
    self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if not overwrite:
        self._check_unchanged(expected)
    except BlockingIOError as error:
      self.close()
      raise BlockingIOError(
        error.errno, 'another update of the index is not finished; wait for it', path
      ) from error
    except BaseException:
      self.close()
      raise

  def close(self) -> None:
    if self._lock is not None:
      os.close(self._lock)
      self._lock = None

  def __del__(self):
    with contextlib.suppress(AttributeError, OSError):
      self.close()

  def _check_unchanged(self, expected: int | None) -> None:
    if os.path.exists(os.path.join(self.path, MANIFEST)) and read_manifest(self.path)[1] != expected:
      raise ValueError(
        f'{self.path}: holds another index than the one loaded from there; load it again and repeat'
        ' the changes, or save to another directory'
      )

  def scratch(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """A writable array in a file that vanishes with it, for what does not fit into memory."""
    del name
    if 0 in shape:
      return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=self.path) as file:
      return np.memmap(file, dtype, 'w+', 0, shape).view(np.ndarray)

  def write(self, stem: str, array: np.ndarray) -> int:
    """Writes an array, synced, under the name of its content; returns its checksum."""
    crc = google_crc32c.Checksum()
    with self._temporary() as (file, temporary):
      for part in _pieces(array):
        crc.update(part)
        file.write(part)
      checksum = int.from_bytes(crc.digest(), 'big')
      _sync(file)
      os.replace(temporary, array_path(self.path, stem, checksum))
    return checksum

  def commit(self, manifest: dict) -> int:
    """Makes `manifest` the one that counts and removes files it does not name; returns its checksum."""
    os.fsync(self._lock)
    content, checksum = encode_manifest(manifest)
    with self._temporary() as (file, temporary):
      file.write(content)
      _sync(file)
      os.replace(temporary, os.path.join(self.path, MANIFEST))
    os.fsync(self._lock)
    named = {os.path.basename(array_path('', stem, crc)) for stem, crc in stems(manifest)}
    for name in os.listdir(self.path):
      if _OWN_FILES.fullmatch(name) and name not in named:
        os.unlink(os.path.join(self.path, name))
    return checksum

  @contextlib.contextmanager
  def _temporary(self):
    descriptor, temporary = tempfile.mkstemp(prefix='.index-', suffix='.tmp', dir=self.path)
    try:
      # mkstemp's file is for its owner alone; an index is read by others as any file is.
      umask = os.umask(0)
      os.umask(umask)
      os.fchmod(descriptor, 0o666 & ~umask)
      with os.fdopen(descriptor, 'wb') as file:
        yield file, temporary
    except BaseException:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
      raise


def _pieces(array: np.ndarray) -> Iterator[bytes]:
  """Header and data of an array, in pieces of bounded size."""
  yield array_header(array.dtype, array.shape)
  flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
  for start in range(0, flat.size, CHUNK):
    yield flat[start : start + CHUNK].tobytes()


def _sync(file) -> None:
  file.flush()
  os.fsync(file.fileno())
