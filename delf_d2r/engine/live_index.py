"""An index that changes while other threads search it, and while other processes save changes of it.

The index on the disk is locked from the first change until it is saved, so that only one engine at a time
changes it. Every change and every `save` begins with the lock and with the check that the index is still the
one that was loaded; only then are files touched. What a kill, a power failure or an error leaves behind:

    moment                           the index on the disk
    before the lock                  the old one; nothing was touched
    in `add` or `remove`             the old one. New files of features (added/) and postings are not named
                                     anywhere. Those of features are removed at once after an error, and all
                                     of them by the next change after a kill
    in `save`, before index.json     the old one, with a live.next.npz that does not count, and a manifest of
      is replaced                    another fingerprint, so that stages ask for --redo. After an error both
                                     are put back, and `save` can be repeated
    index.json is replaced           the new one, with the boxes of live.next.npz
    live.next.npz is renamed         the new one; the counts in the manifest are still those of the old one
    manifest.pbtxt is replaced       the new one

The changes are saved once index.json is replaced: an error after that is logged as a warning, and `save`
returns. The next `save` of a change completes what was left undone. The lock ends with `save`, `reload`, the
engine, its process, or a first change that fails, even if its exception is kept.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import logging
from google.protobuf import text_format

from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, index_files, live_files
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Plan, read_manifest
from delf_d2r.data.artefacts.index_files import ImageBoxes
from delf_d2r.data.artefacts.live_files import LiveState, Version
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.index.directory import ChangedIndexError, IndexFormatError
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.protos.manifest_pb2 import Manifest
from delf_d2r.structures import ImageFeatures

if TYPE_CHECKING:
  # It needs httpx, which only an engine with shards needs.
  from delf_d2r.sharding.sharded_index import ShardedIndex

# How often an index is read that other processes save meanwhile, and the seconds between two attempts.
_ATTEMPTS = 50
_PAUSE = 0.02


# From the name of an image to its features and its aggregated descriptors.
Describe = Callable[[str], tuple[ImageFeatures, ImageDescriptors]]


class RebuiltIndexError(ArtefactError):
  """An index of another config or of other inputs was built in the place of the one that was loaded."""


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
  """The images of an index at one moment. It never changes, so threads may search it.

  Attributes:
    index: the postings of the images.
    state: the boxes of the images, and where the features of added images are stored.
  """

  index: 'InvertedIndex | ShardedIndex'
  state: LiveState

  def boxes(self, image_id: int) -> np.ndarray:
    """Returns float32 [R - 1, 4], the boxes of an image without the whole image."""
    return self.state.boxes.of(image_id)[1:]


class LiveIndex:
  """The current snapshot of an index artefact, and the changes that lead to the next one.

  A change copies the parts that it touches and replaces the snapshot by a new one; searches that have begun
  finish on the old one. Only one change runs at a time. Other processes see changes once `save` has written
  them and they call `refresh`.

  Attributes:
    artefact: the index artefact as it was loaded or last saved.
    snapshot: the images to search.
  """

  def __init__(self, artefact: Artefact, index: 'InvertedIndex | ShardedIndex | None' = None):
    """Opens an index.

    Args:
      artefact: the index artefact.
      index: searched instead of the postings in the artefact.

    Raises:
      IndexFormatError: the postings are damaged.
      ArtefactError: another file of the artefact is damaged.
    """
    self.artefact = artefact
    self.snapshot: Snapshot
    self._lock = threading.Lock()
    self._has_swept = False
    self._is_stored = index is None
    self._version: Version = ()  # of the files that the snapshot was loaded from, or saved to
    self._complaint = ''  # why another process's changes could not be loaded
    if index is None:
      self.artefact, self.snapshot, self._version = _load(artefact)
    else:
      self.snapshot = Snapshot(index, live_files.load(artefact.path, index.checksum))

  @property
  def has_changed(self) -> bool:
    """Whether there are changes that are not saved yet."""
    index = self.snapshot.index
    return isinstance(index, InvertedIndex) and index.has_changed

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Keeps other processes and threads from changing the index while the body runs.

    Raises:
      UserError: another process is changing the index or has saved changes of it.
    """
    with self._changing():
      yield

  def add(
    self,
    names: Sequence[str],
    describe: Describe,
    *,
    beforehand: Callable[[Mapping[str, str]], None] = lambda digests: None,
  ) -> None:
    """Adds images behind the existing ones.

    Args:
      names: the names of the new images.
      describe: returns the features and the aggregated descriptors of the image of a name; if it raises,
        nothing is added.
      beforehand: called with the digests of the features by name, when all images are described and before
        they are added, while the index is locked; if it raises, nothing is added.

    Raises:
      UserError: a name is in the index already, or is given twice; another process is changing the index or
        has saved changes of it.
    """
    if not names:
      return
    with self._changing() as index:
      self._require_new(names)
      self._sweep()
      with self._removing_features_after_errors():
        descriptors, boxes = [], []
        digests: dict[str, str] = {}
        for name in names:
          features, described = describe(name)
          digests[name] = live_files.add_features(self.artefact.path, features)
          descriptors.append(described.descriptors)
          boxes.append(described.boxes)
        beforehand(digests)
        owners = [number for number, image in enumerate(descriptors) for _ in image]
        index.add(
          (descriptor for image in descriptors for descriptor in image),
          names,
          entry_images=owners if index.is_regional else None,
        )
      before = self.snapshot.state
      state = LiveState(before.boxes + ImageBoxes.of_images(boxes), {**before.added, **digests})
      self.snapshot = Snapshot(index, state)

  def remove(self, names: Collection[str]) -> None:
    """Removes images; the image ids behind them close the gaps.

    Raises:
      UserError: a name is not in the index; nothing is removed. Or another process is changing the index or
        has saved changes of it.
    """
    removed = set(names)
    if not removed:
      return
    with self._changing() as index:
      unknown = sorted(removed - set(index.image_names))
      if unknown:
        raise UserError(f'not among the {len(index)} images of the index: {abbreviated(unknown)}')
      self._sweep()
      before = self.snapshot.state
      kept = [image_id for image_id, name in enumerate(index.image_names) if name not in removed]
      index.remove(removed)
      added = {name: digest for name, digest in before.added.items() if name not in removed}
      self.snapshot = Snapshot(index, LiveState(before.boxes.take(kept), added))

  def save(self) -> None:
    """Writes all changes; without any, nothing is written.

    If the process is killed, the directory holds either the old index or the new one; see the table above.
    The manifest gets another fingerprint, so that no stage mistakes the index for the one that it built.

    Raises:
      UserError: the files cannot be written, or another process has changed them. The directory holds the old
        index.
    """
    with self._changing() as index:
      if index.has_changed:
        with artefact_writer.locked(self.artefact.path):
          self._save(index)

  def refresh(self, *, wait: bool = False) -> Snapshot:
    """Takes over the changes that another process has saved.

    It costs the lookup of a few files if there are none. Changes that are not saved yet are kept: their lock
    keeps other processes from saving. An index that cannot be loaded is logged, and the snapshot stays.

    Args:
      wait: wait for a change, a save or a refresh in another thread, instead of returning its old snapshot.

    Returns:
      The current snapshot.

    Raises:
      RebuiltIndexError: the index is another one now.
    """
    if self._has_moved() and self._lock.acquire(blocking=wait):
      try:
        if self._has_moved():
          self._reload()
          self._complaint = ''
      except RebuiltIndexError:
        raise
      except (ArtefactError, IndexFormatError, OSError) as error:
        if str(error) != self._complaint:
          logging.warning('%s: the changed index cannot be loaded: %s', self.artefact.path, error)
          self._complaint = str(error)
      finally:
        self._lock.release()
    return self.snapshot

  def reload(self) -> None:
    """Abandons the changes that are not saved and loads the index from its directory.

    Raises:
      IndexFormatError, ArtefactError: it is damaged.
      RebuiltIndexError: the index is another one now.
    """
    with self._lock:
      index = self.snapshot.index
      if not self._is_stored or not isinstance(index, InvertedIndex):
        return
      try:
        self._reload()
      except RebuiltIndexError:
        index.abandon_changes()
        raise
      index.abandon_changes()

  def _save(self, index: InvertedIndex) -> None:
    """Writes the changes, while the index and its artefact are locked."""
    path, state, before = self.artefact.path, self.snapshot.state, index.checksum
    if before is None:
      raise ValueError('it was not loaded from a directory')
    manifest = read_manifest(path / MANIFEST)
    try:
      _write_manifest(path, _changing_manifest(manifest, before))
      live_files.prepare(path, state, replacing=before)
      index.save()
    except BaseException:
      if index.has_changed:  # The old index still counts.
        _put_back(path, manifest)
      raise
    finally:
      self.snapshot = Snapshot(index, state)
    if index.checksum == before:
      # The postings are what they were, so that the boxes count when their file has its final name.
      try:
        live_files.finish(path)
      finally:
        _write_manifest(path, manifest)
    else:
      self.artefact = Artefact(path, manifest, named=self.artefact.named)
      with _warning_after_saving(path):
        live_files.finish(path)
      with _warning_after_saving(path):
        self.artefact = _stamped(self.artefact, index)
    self._version = live_files.version(path)

  def _has_moved(self) -> bool:
    """Whether another process has saved the index since it was loaded or saved here."""
    index = self.snapshot.index
    if not self._is_stored or not isinstance(index, InvertedIndex) or index.has_changed:
      return False
    # The last file is only there while a change is being saved.
    return live_files.version(self.artefact.path)[:-1] != self._version[:-1]

  def _reload(self) -> None:
    artefact, snapshot, version = _load(self.artefact)
    if _plan(artefact) != _plan(self.artefact):
      raise RebuiltIndexError(
        f'{artefact.path}: an index of another config or of other inputs was built there; load it again'
      )
    self.artefact, self.snapshot, self._version = artefact, snapshot, version

  def _require_new(self, names: Sequence[str]) -> None:
    seen = set(self.snapshot.index.image_names)
    known = sorted(name for name in names if name in seen)
    if known:
      raise UserError(f'in the index already: {abbreviated(known)}. Remove them first, or give other names')
    if len(set(names)) < len(names):
      twice = sorted({name for name in names if names.count(name) > 1})
      raise UserError(f'given twice: {abbreviated(twice)}. Each image needs a name of its own')

  @contextlib.contextmanager
  def _changing(self) -> Iterator[InvertedIndex]:
    """Locks the index for one change and yields a copy of it to change, after the check that it is current.

    Errors that a user can fix become UserErrors.
    """
    path = self.artefact.path
    with self._lock:
      try:
        with self._changed_index() as index:
          yield index
      except ChangedIndexError as error:
        raise UserError(f'{path}: the index cannot be changed: {error}{self._loaded_again()}') from error
      except UserError:
        raise
      except (OSError, ValueError) as error:  # No space, locked by another process, damaged.
        raise UserError(f'{path}: the index cannot be changed: {error}') from error

  @contextlib.contextmanager
  def _changed_index(self) -> Iterator[InvertedIndex]:
    """Yields a copy of the index, locked; raises ChangedIndexError if it is not the one on the disk."""
    try:
      index = self.snapshot.index.copy_on_write()
    except IndexFormatError:
      if self._has_moved():  # Its files were removed before they were used for the first time.
        raise _changed(self.artefact.path) from None
      raise
    with index.updating():
      if not index.has_changed:
        self._require_current(index)
      yield index

  def _require_current(self, index: InvertedIndex) -> None:
    """Raises ChangedIndexError if boxes or features have changed though the postings have not."""
    path = self.artefact.path
    version = live_files.version(path)
    if version != self._version:
      if not live_files.load(path, index.checksum).equals(self.snapshot.state):
        raise _changed(path)
      self._version = version

  def _loaded_again(self) -> str:
    """Loads the index that another process has saved; returns the end of the message that says so."""
    if not self._has_moved():
      return ''
    try:
      self._reload()
    except (UserError, IndexFormatError, OSError) as error:
      return f'. It cannot be loaded again: {error}'
    return '. It is loaded again now: look at it, and repeat the changes'

  def _sweep(self) -> None:
    """Removes features that no image has; only once, before the first change.

    After a change, searches of an older snapshot may still read features of removed images.
    """
    if not self._has_swept:
      live_files.remove_unused_features(self.artefact.path, self.snapshot.state)
      self._has_swept = True

  @contextlib.contextmanager
  def _removing_features_after_errors(self) -> Iterator[None]:
    """If the body raises, removes the features that it has stored."""
    path = self.artefact.path
    before = live_files.stored_features(path)
    try:
      yield
    except BaseException:
      with contextlib.suppress(OSError):
        live_files.remove_features(path, live_files.stored_features(path) - before)
      raise


def _load(artefact: Artefact) -> tuple[Artefact, Snapshot, Version]:
  """Loads files that belong together, although another process may be saving.

  Raises:
    IndexFormatError, ArtefactError: a file is damaged or missing.
  """
  path = artefact.path
  for _ in range(_ATTEMPTS):
    version = live_files.version(path)
    try:
      manifest = read_manifest(path / MANIFEST)
      index = InvertedIndex.load(path / index_files.INVERTED)
      state = live_files.load(path, index.checksum)
      num_boxes = len(state.boxes.offsets) - 1
      if num_boxes != len(index):
        raise ArtefactError(
          f'{path}: boxes of {num_boxes} images, the index has {len(index)}. Delete {path} and build it again'
        )
    except (ArtefactError, IndexFormatError, OSError):
      if live_files.version(path) == version:
        raise
    else:
      if live_files.version(path) == version:
        return Artefact(path, manifest, named=artefact.named), Snapshot(index, state), version
    time.sleep(_PAUSE)
  raise ArtefactError(f'{path}: other processes save it all the time. Try again in a moment')


def _plan(artefact: Artefact) -> str:
  """Returns the fingerprint that the index had when it was built, whatever changes were saved since."""
  return Plan(artefact.manifest.kind, artefact.config, artefact.inputs).fingerprint


def _changed(path: pathlib.Path) -> ChangedIndexError:
  return ChangedIndexError(
    f'{path}: holds another index than the one loaded from there; load it again and repeat the changes'
  )


def _changing_manifest(manifest: Manifest, checksum: int) -> Manifest:
  """Returns a manifest with a fingerprint that neither the old index nor the new one has."""
  return _with_fingerprint(manifest, f'{manifest.fingerprint} changing {checksum}')


def _with_fingerprint(manifest: Manifest, text: str) -> Manifest:
  """Returns a copy of a manifest, with a digest of `text` as its fingerprint."""
  changed = Manifest()
  changed.CopyFrom(manifest)
  changed.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
  return changed


def _write_manifest(path: pathlib.Path, manifest: Manifest) -> None:
  files.write_atomically(path / MANIFEST, text_format.MessageToString(manifest, as_utf8=True))


def _put_back(path: pathlib.Path, manifest: Manifest) -> None:
  """Undoes what `save` has written before it failed; what cannot be undone does no harm."""
  with contextlib.suppress(OSError):
    live_files.abandon(path)
  with contextlib.suppress(OSError):
    _write_manifest(path, manifest)


@contextlib.contextmanager
def _warning_after_saving(path: pathlib.Path) -> Iterator[None]:
  """Logs an OSError of the body, which comes after the new index is in place."""
  try:
    yield
  except OSError as error:
    logging.warning(
      '%s: the changes are saved, but their files are not all in order (%s); the next save completes them',
      path,
      error,
    )


def _stamped(artefact: Artefact, index: InvertedIndex) -> Artefact:
  """Writes a manifest with new counts and another fingerprint; returns the artefact with it."""
  manifest = _with_fingerprint(artefact.manifest, f'{artefact.manifest.fingerprint} {index.checksum}')
  counts = {
    'images': len(index),
    'entries': index.num_entries,
    'postings': index.num_postings,
    'index_bytes': index.nbytes,
  }
  for count in manifest.counts:
    count.value = counts.get(count.name, count.value)
  _write_manifest(artefact.path, manifest)
  return Artefact(artefact.path, manifest, named=artefact.named)


def abbreviated(names: Sequence[str], most: int = 5) -> str:
  """Returns the first names of several, for a message."""
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more
