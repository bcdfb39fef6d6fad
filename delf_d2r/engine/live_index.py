"""An index that changes while threads search it."""

import contextlib
import dataclasses
import hashlib
import pathlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence

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


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
  """The images of an index at one moment; it never changes, so threads may search it.

  Attributes:
    index: their postings.
    state: their boxes, and where the features of added ones are.
  """

  index: InvertedIndex
  state: LiveState

  def boxes(self, image_id: int) -> np.ndarray:
    """float32 [R - 1, 4]: the boxes of an image, the whole image left out."""
    return self.state.boxes.of(image_id)[1:]


class LiveIndex:
  """The current snapshot of an index artefact, and the changes that make the next one.

  A change copies what it touches and puts a new snapshot in the place of the old one, which those who have it
  go on searching. One change at a time; changes count for other processes once `save` has written them.

  Attributes:
    artefact: the index artefact as it was loaded or last saved.
    snapshot: what to search.
  """

  def __init__(self, artefact: Artefact, index: InvertedIndex | None = None):
    """Opens an index; errors as of InvertedIndex.load and ArtefactError.

    Args:
      artefact: the index artefact.
      index: what to search instead of the postings there.
    """
    self.artefact = artefact
    index = index or InvertedIndex.load(artefact.path / index_files.INVERTED)
    self.snapshot = Snapshot(index, live_files.load(artefact.path, index.checksum))
    self._lock = threading.Lock()
    self._has_changed = False

  def add(
    self, names: Sequence[str], describe: Callable[[str], tuple[ImageFeatures, ImageDescriptors]]
  ) -> None:
    """Adds images after those present.

    Args:
      names: of the images.
      describe: makes what is kept of an image from its name; if it raises, nothing is added.

    Raises:
      UserError: a name is in the index already, or given twice.
    """
    with self._changing():
      self._require_new(names)
      descriptors, boxes, digests = [], [], {}
      for name in names:
        features, described = describe(name)
        digests[name] = live_files.add_features(self.artefact.path, features)
        descriptors.append(described.descriptors)
        boxes.append(described.boxes)
      before = self.snapshot
      index = before.index.fork()
      owners = np.repeat(np.arange(len(names)), list(map(len, descriptors)))
      index.add(
        (descriptor for image in descriptors for descriptor in image),
        names,
        entry_images=owners if index.is_regional else None,
      )
      state = LiveState(before.state.boxes + ImageBoxes.of_images(boxes), {**before.state.added, **digests})
      self.snapshot = Snapshot(index, state)

  def remove(self, names: Collection[str]) -> None:
    """Removes images; those after them move up.

    Raises:
      UserError: a name is not in the index; nothing is removed.
    """
    gone = set(names)
    with self._changing():
      before = self.snapshot
      unknown = sorted(gone - set(before.index.image_names))
      if unknown:
        raise UserError(f'not among the {len(before.index)} images of the index: {_listed(unknown)}')
      kept = [image_id for image_id, name in enumerate(before.index.image_names) if name not in gone]
      index = before.index.fork()
      index.remove(gone)
      added = {name: digest for name, digest in before.state.added.items() if name not in gone}
      self.snapshot = Snapshot(index, LiveState(before.state.boxes.take(kept), added))

  def save(self) -> None:
    """Writes all changes. A kill at any moment leaves the old index or the new one.

    The manifest gets another fingerprint, so that no stage takes the index for what it built.

    Raises:
      UserError: the files cannot be written, or another process has changed them.
    """
    with self._changing():
      path = self.artefact.path
      index, state = self.snapshot.index.fork(), self.snapshot.state
      before = index.checksum
      live_files.prepare(path, state, replacing=before)
      try:
        index.save()
      finally:
        # Whatever became of it, the copy has taken the update over.
        self.snapshot = Snapshot(index, state)
      live_files.finish(path)
      if index.checksum != before:
        self.artefact = _stamped(self.artefact, index)

  def _require_new(self, names: Sequence[str]) -> None:
    seen = set(self.snapshot.index.image_names)
    known = sorted(name for name in names if name in seen)
    if known:
      raise UserError(f'in the index already: {_listed(known)}. Remove them first, or give other names')
    if len(set(names)) < len(names):
      twice = sorted({name for name in names if names.count(name) > 1})
      raise UserError(f'given twice: {_listed(twice)}. Each image needs a name of its own')

  @contextlib.contextmanager
  def _changing(self) -> Iterator[None]:
    """One change at a time, and what hinders it as a UserError."""
    path = self.artefact.path
    with self._lock:
      try:
        if not self._has_changed:
          # Once: later on, searches of an older snapshot may still read the features of removed images.
          live_files.remove_unused_features(path, self.snapshot.state)
          self._has_changed = True
        yield
      except UserError:
        raise
      except (OSError, ValueError) as error:  # No space, changed by another process, damaged.
        raise UserError(f'{path}: the index cannot be changed: {error}') from error


def _stamped(artefact: Artefact, index: InvertedIndex) -> Artefact:
  """The artefact with a manifest that tells what is in it now; the manifest is written."""
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


def _listed(names: Sequence[str], most: int = 5) -> str:
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more
