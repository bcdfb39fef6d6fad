"""An index that changes while other threads search it."""

import contextlib
import dataclasses
import hashlib
import pathlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf import text_format

from delf_d2r.data import files
from delf_d2r.data.artefacts import index_files, live_files
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact
from delf_d2r.data.artefacts.index_files import ImageBoxes
from delf_d2r.data.artefacts.live_files import LiveState
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.errors import UserError
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.structures import ImageFeatures

if TYPE_CHECKING:
  # It needs httpx, which only an engine with shards needs.
  from delf_d2r.sharding.sharded_index import ShardedIndex


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
  them.

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
    index = index or InvertedIndex.load(artefact.path / index_files.INVERTED)
    self.snapshot = Snapshot(index, live_files.load(artefact.path, index.checksum))
    self._lock = threading.Lock()
    self._has_changed = False

  def add(
    self, names: Sequence[str], describe: Callable[[str], tuple[ImageFeatures, ImageDescriptors]]
  ) -> None:
    """Adds images behind the existing ones.

    Args:
      names: the names of the new images.
      describe: returns the features and the aggregated descriptors of the image of a name; if it raises,
        nothing is added.

    Raises:
      UserError: a name is in the index already, or is given twice.
    """
    with self._changing():
      self._require_new(names)
      descriptors, boxes = [], []
      digests: dict[str, str] = {}
      for name in names:
        features, described = describe(name)
        digests[name] = live_files.add_features(self.artefact.path, features)
        descriptors.append(described.descriptors)
        boxes.append(described.boxes)
      before = self.snapshot
      index = before.index.copy_on_write()
      owners = [number for number, image in enumerate(descriptors) for _ in image]
      index.add(
        (descriptor for image in descriptors for descriptor in image),
        names,
        entry_images=owners if index.is_regional else None,
      )
      state = LiveState(before.state.boxes + ImageBoxes.of_images(boxes), {**before.state.added, **digests})
      self.snapshot = Snapshot(index, state)

  def remove(self, names: Collection[str]) -> None:
    """Removes images; the image ids behind them close the gaps.

    Raises:
      UserError: a name is not in the index; nothing is removed.
    """
    removed = set(names)
    with self._changing():
      before = self.snapshot
      unknown = sorted(removed - set(before.index.image_names))
      if unknown:
        raise UserError(f'not among the {len(before.index)} images of the index: {_abbreviated(unknown)}')
      kept = [image_id for image_id, name in enumerate(before.index.image_names) if name not in removed]
      index = before.index.copy_on_write()
      index.remove(removed)
      added = {name: digest for name, digest in before.state.added.items() if name not in removed}
      self.snapshot = Snapshot(index, LiveState(before.state.boxes.take(kept), added))

  def save(self) -> None:
    """Writes all changes. If the process is killed, the directory holds either the old index or the new one.

    The manifest gets another fingerprint, so that no stage mistakes the index for the one that it built.

    Raises:
      UserError: the files cannot be written, or another process has changed them.
    """
    with self._changing():
      path = self.artefact.path
      index, state = self.snapshot.index.copy_on_write(), self.snapshot.state
      before = index.checksum
      if before is None:
        raise ValueError('it was not loaded from a directory')
      live_files.prepare(path, state, replacing=before)
      try:
        index.save()
      finally:
        # Even if saving failed: the copy now owns the unsaved update.
        self.snapshot = Snapshot(index, state)
      live_files.finish(path)
      if index.checksum != before:
        self.artefact = _stamped(self.artefact, index)

  def _require_new(self, names: Sequence[str]) -> None:
    seen = set(self.snapshot.index.image_names)
    known = sorted(name for name in names if name in seen)
    if known:
      raise UserError(f'in the index already: {_abbreviated(known)}. Remove them first, or give other names')
    if len(set(names)) < len(names):
      twice = sorted({name for name in names if names.count(name) > 1})
      raise UserError(f'given twice: {_abbreviated(twice)}. Each image needs a name of its own')

  @contextlib.contextmanager
  def _changing(self) -> Iterator[None]:
    """Locks the index for one change and turns errors that a user can fix into UserErrors."""
    path = self.artefact.path
    with self._lock:
      try:
        if not self._has_changed:
          # Only once: after a change, searches of an older snapshot may still read features of removed
          # images.
          live_files.remove_unused_features(path, self.snapshot.state)
          self._has_changed = True
        yield
      except UserError:
        raise
      except (OSError, ValueError) as error:  # No space, changed by another process, damaged.
        raise UserError(f'{path}: the index cannot be changed: {error}') from error


def _stamped(artefact: Artefact, index: InvertedIndex) -> Artefact:
  """Writes a manifest with new counts and another fingerprint; returns the artefact with it."""
  manifest = type(artefact.manifest)()
  manifest.CopyFrom(artefact.manifest)
  digest = hashlib.sha256(f'{manifest.fingerprint} {index.checksum}'.encode())
  manifest.fingerprint = digest.hexdigest()[:16]
  counts = {
    'images': len(index),
    'entries': index.num_entries,
    'postings': index.num_postings,
    'index_bytes': index.nbytes,
  }
  for count in manifest.counts:
    count.value = counts.get(count.name, count.value)
  files.write_atomically(artefact.path / MANIFEST, text_format.MessageToString(manifest, as_utf8=True))
  return Artefact(pathlib.Path(artefact.path), manifest)


def _abbreviated(names: Sequence[str], most: int = 5) -> str:
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more
