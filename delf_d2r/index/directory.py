"""The index on the disk: a directory of plain `.npy` arrays and `index.json`, which names their checksums.

    index.json                                   sizes, kernel, CRC-32C of every array, codebook
    segment-00000-offsets-<crc>.npy              and entry_ids, values, word_counts (segments.Segment)
    segment-00000-masks-<crc>.npy                and region_counts: region masks only, which are version 2
    segment-00000-values-<crc>.npy               and scales, and no other: dense_segment.py, version 3
    segment-00000-removed-<crc>.npy              ids of removed rows (index_state.IndexState): version 5
    names_offsets-<crc>.npy, names_utf8-<crc>.npy            (images.ImageTable)
    entry_offsets-<crc>.npy, entry_regions-<crc>.npy         regional search only

A file is named by its content and never changed. An update writes new files, then replaces `index.json` by a
rename: if it is killed at any moment, the directory holds the old index or the new one. The same images give
the same files in whatever order they were added, if the index is small or compact (updates.py). Files of an
update that did not finish are ignored, and removed by the next update.

Arrays are little-endian and in C order. Size, header and checksum of a file are known before it is opened:
headers are compared with the only one that is expected, so nothing of a damaged file is ever interpreted.
"""

import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from absl import logging

MANIFEST = 'index.json'
FORMAT = 'delf_d2r inverted index'
VERSION = 1
# Of an index with region masks: a release that does not know them would ignore their files.
MASKS_VERSION = 2
# Of an index whose segments are matrices.
DENSE_VERSION = 3
# Of an index of postings that names its codebook, with or without masks: a release that does not know
# projections of residuals would search it with queries that are not projected.
CODEBOOK_VERSION = 4

# Of an index of any kind that is not compact (updates.py), or whose codes take columns of 32 bits: a release
# that does not know removed images would find them.
FULL_VERSION = 5

_VERSIONS = (VERSION, MASKS_VERSION, DENSE_VERSION, CODEBOOK_VERSION, FULL_VERSION)

_CHUNK = 1 << 24  # bytes read or written at once
_REMEDY = 'build the index again or restore it from a copy'
_OWN_FILES = re.compile(
  r'(segment-\d+-\w+|names_offsets|names_utf8|entry_offsets|entry_regions)-[0-9a-f]{8}\.npy|\.index-\w+\.tmp'
)

Manifest = dict[str, Any]


class IndexFormatError(ValueError):
  """A file of an index is missing, damaged or of another version; the message says which and what to do."""


class ChangedIndexError(ValueError):
  """The directory holds another index than the one that was loaded from there."""


# The manifest ----------------------------------------------------------------------------------------


def read_manifest(directory: str | os.PathLike[str]) -> tuple[Manifest, int]:
  """Reads `index.json` and checks it against its own checksum.

  Returns:
    The manifest, and the checksum.

  Raises:
    IndexFormatError: it is missing, damaged, or of another format or version.
  """
  path = os.path.join(directory, MANIFEST)
  try:
    with open(path, 'rb') as file:
      manifest: Manifest = json.load(file)
    checksum = manifest.pop('checksum')
    intact = google_crc32c.value(json.dumps(manifest, sort_keys=True).encode()) == checksum
  except OSError as error:
    raise IndexFormatError(f'{path}: {error.strerror}; no index was saved here, build one') from error
  except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
    raise IndexFormatError(f'{path}: not a manifest of an index ({error!r}); {_REMEDY}') from error
  for field, expected in (('format', (FORMAT,)), ('version', _VERSIONS)):
    if manifest.get(field) not in expected:
      raise IndexFormatError(
        f'{path}: {field}: expected {" or ".join(map(repr, expected))}, found {manifest.get(field)!r};'
        ' use the release of delf_d2r that wrote it, or build the index again'
      )
  if not intact:
    raise IndexFormatError(f'{path}: the content does not have its checksum {checksum!r}; {_REMEDY}')
  return manifest, checksum


def _encode_manifest(manifest: Manifest) -> tuple[bytes, int]:
  """Returns the manifest as JSON that includes its checksum, and that checksum."""
  checksum = google_crc32c.value(json.dumps(manifest, sort_keys=True).encode())
  return json.dumps({**manifest, 'checksum': checksum}, indent=1, sort_keys=True).encode(), checksum


def stems(manifest: Manifest) -> Iterator[tuple[str, int]]:
  """Yields the file stem and the checksum of every array that a manifest names."""
  yield from manifest['arrays'].items()
  for number, segment in enumerate(manifest['segments']):
    for name, crc in segment['arrays'].items():
      yield segment_stem(number, name), crc


def segment_stem(number: int, name: str) -> str:
  """Returns the name of the file of an array of a segment, up to its checksum."""
  return f'segment-{number:05d}-{name}'


def array_path(directory: str, stem: str, checksum: int) -> str:
  """Returns the path of the file of an array of a given content."""
  return os.path.join(directory, f'{stem}-{checksum:08x}.npy')


# Arrays ----------------------------------------------------------------------------------------------


def array_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
  """Returns the header of an `.npy` file, version 1.0, padded to a multiple of 64 bytes."""
  text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}".encode('latin1')
  padding = -(10 + len(text) + 1) % 64
  size = (len(text) + padding + 1).to_bytes(2, 'little')
  return b'\x93NUMPY\x01\x00' + size + text + b' ' * padding + b'\n'


def check_size(path: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
  """Raises IndexFormatError unless the file exists and is as long as the array needs."""
  expected = len(array_header(dtype, shape)) + dtype.itemsize * int(np.prod(shape, dtype=object))
  try:
    found = os.stat(path).st_size
  except OSError as error:
    raise IndexFormatError(
      f'{path}: {error.strerror}. If another process has updated the index, load it again; else {_REMEDY}'
    ) from error
  if found != expected:
    raise IndexFormatError(f'{path}: expected {expected} bytes, found {found}; {_REMEDY}')


def map_array(path: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
  """Memory-maps an array, read-only.

  Raises:
    IndexFormatError: the file is missing, or its size or header is not that of `dtype` and `shape`.
  """
  check_size(path, dtype, shape)
  header = array_header(dtype, shape)
  with open(path, 'rb') as file:
    if file.read(len(header)) != header:
      raise IndexFormatError(f'{path}: the header is not that of {dtype.str} {shape}; {_REMEDY}')
    if 0 in shape:
      array = np.zeros(shape, dtype)
      array.flags.writeable = False
      return array
    return np.memmap(file, dtype, 'r', len(header), shape).view(np.ndarray)


def check_offsets(offsets: npt.NDArray[Any], end: int, path: str) -> None:
  """Raises IndexFormatError unless `offsets`, the content of `path`, rise from 0 to `end`."""
  if offsets[0] != 0 or offsets[-1] != end or not (offsets[1:] >= offsets[:-1]).all():
    raise IndexFormatError(
      f'{path}: expected offsets that rise from 0 to {end}, found {offsets[0]} to {offsets[-1]}'
      f' with {int((offsets[1:] < offsets[:-1]).sum())} descents; {_REMEDY}'
    )


def check_checksum(path: str, expected: int) -> None:
  """Reads a whole file and raises IndexFormatError unless it has the CRC-32C that is expected."""
  found = 0
  try:
    with open(path, 'rb') as file:
      while chunk := file.read(_CHUNK):
        found = google_crc32c.extend(found, chunk)
  except OSError as error:
    raise IndexFormatError(f'{path}: {error.strerror}; {_REMEDY}') from error
  if found != expected:
    raise IndexFormatError(f'{path}: expected checksum {expected:08x}, found {found:08x}; {_REMEDY}')


def read_sequentially(paths: Iterable[str]) -> Iterator[int]:
  """Reads files from beginning to end, so that they are in the page cache; yields the bytes of each piece.

  The posting lists of a query are spread all over the index. A disk that has to seek them takes many times
  longer than one that reads everything sequentially.

  Raises:
    IndexFormatError: a file is missing or cannot be read.
  """
  buffer = bytearray(_CHUNK)
  for path in paths:
    try:
      with open(path, 'rb', buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while count := file.readinto(buffer):
          yield count
    except OSError as error:
      raise IndexFormatError(f'{path}: {error.strerror}; {_REMEDY}') from error


# Updates ---------------------------------------------------------------------------------------------


class Directory:
  """Writes arrays and the manifest of an index that is being updated; one writer at a time.

  Args:
    path: made if it does not exist.
    expected: checksum of the manifest that may be replaced; None where no index is expected.
    overwrite: whether any other index may be replaced, too.

  Raises:
    BlockingIOError: another process is updating the index in the directory.
    ChangedIndexError: the directory holds another index than expected.
  """

  def __init__(self, path: str, *, expected: int | None = None, overwrite: bool = False) -> None:
    self.path = path
    self._process = os.getpid()
    self._committing: int | None = None  # the checksum of the manifest that `commit` puts in place
    os.makedirs(path, exist_ok=True)
    # The operating system drops the lock with the process, however that ends.
    self._lock: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
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
    """Ends the update; another one may begin."""
    if self._lock is not None:
      if os.getpid() == self._process:
        # Otherwise a forked process, which has a copy of the descriptor, would keep the lock.
        fcntl.flock(self._lock, fcntl.LOCK_UN)
      os.close(self._lock)
      self._lock = None

  def __del__(self) -> None:
    with contextlib.suppress(AttributeError, OSError):
      self.close()

  @property
  def committed(self) -> int | None:
    """The checksum of the manifest that `commit` has put in place; None if it has not.

    It is asked after an error that may have come before or after the manifest was replaced.
    """
    with contextlib.suppress(IndexFormatError):
      if self._committing is not None and read_manifest(self.path)[1] == self._committing:
        return self._committing
    return None

  def _check_unchanged(self, expected: int | None) -> None:
    if os.path.exists(os.path.join(self.path, MANIFEST)) and read_manifest(self.path)[1] != expected:
      raise ChangedIndexError(
        f'{self.path}: holds another index than the one loaded from there; load it again and repeat'
        ' the changes, or save to another directory'
      )

  def scratch(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Makes a writable array in a file that vanishes with it, for data that does not fit into memory."""
    del name
    if 0 in shape:
      return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=self.path) as file:
      return np.memmap(file, dtype, 'w+', 0, shape).view(np.ndarray)

  def write(self, stem: str, array: npt.NDArray[Any]) -> int:
    """Writes an array, synced, under the name of its content; returns its checksum."""
    checksum = 0
    with self._temporary() as (file, temporary):
      for piece in _pieces(array):
        checksum = google_crc32c.extend(checksum, piece)
        file.write(piece)
      _sync(file)
      os.replace(temporary, array_path(self.path, stem, checksum))
    return checksum

  def commit(self, manifest: Manifest) -> int:
    """Makes `manifest` that of the index and removes files it does not name; returns its checksum.

    From the moment when the manifest is replaced, the new index counts. What fails after that is logged as a
    warning and does not fail the update.

    Raises:
      OSError: the old index is still in place.
      ChangedIndexError: the directory was replaced by another one since the update began.
    """
    self._sync_directory()
    self._require_same_place()
    content, checksum = _encode_manifest(manifest)
    with self._temporary() as (file, temporary):
      file.write(content)
      _sync(file)
      self._committing = checksum
      os.replace(temporary, os.path.join(self.path, MANIFEST))
    try:
      self._sync_directory()
    except OSError as error:
      logging.warning(
        '%s: the index is saved, but a power failure now may bring the old one back (%s). Check the disk',
        self.path,
        error,
      )
    self._remove_others({os.path.basename(array_path('', stem, crc)) for stem, crc in stems(manifest)})
    return checksum

  def _remove_others(self, named: set[str]) -> None:
    """Removes the files of older indexes and of updates that did not finish; the next update tries again."""
    try:
      for name in os.listdir(self.path):
        if _OWN_FILES.fullmatch(name) and name not in named:
          os.unlink(os.path.join(self.path, name))
    except OSError as error:
      logging.warning('%s: the index is saved, but files of the old one remain (%s)', self.path, error)

  def _require_same_place(self) -> None:
    """Raises ChangedIndexError if the directory is no longer the one that was locked."""
    if self._lock is not None and not os.path.samestat(os.fstat(self._lock), os.stat(self.path)):
      raise ChangedIndexError(
        f'{self.path}: was removed and made again since the update began; load it again and repeat the'
        ' changes'
      )

  def _sync_directory(self) -> None:
    if self._lock is None:
      raise ValueError(f'{self.path}: the update is closed; begin another one')
    os.fsync(self._lock)

  @contextlib.contextmanager
  def _temporary(self) -> Iterator[tuple[IO[bytes], str]]:
    descriptor, temporary = tempfile.mkstemp(prefix='.index-', suffix='.tmp', dir=self.path)
    try:
      # mkstemp makes a file that its owner alone may read; an index may be read as any other file.
      umask = os.umask(0)
      os.umask(umask)
      os.fchmod(descriptor, 0o666 & ~umask)
      with os.fdopen(descriptor, 'wb') as file:
        yield file, temporary
    except BaseException:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
      raise


def _pieces(array: npt.NDArray[Any]) -> Iterator[bytes]:
  """Yields header and data of an array, in pieces of bounded size."""
  yield array_header(array.dtype, array.shape)
  flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
  for start in range(0, flat.size, _CHUNK):
    yield flat[start : start + _CHUNK].tobytes()


def _sync(file: IO[bytes]) -> None:
  file.flush()
  os.fsync(file.fileno())
