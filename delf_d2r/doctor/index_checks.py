"""Checks of an inverted index: checksums, values, and the distribution of its posting lists."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from delf_d2r.data.artefacts import index_files, live_files
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact
from delf_d2r.doctor.artefact_files import blocks
from delf_d2r.doctor.findings import Finding, FindingCounter, error, note, warning
from delf_d2r.doctor.record_checks import UNIT_TOLERANCE, Names
from delf_d2r.engine import paired_index
from delf_d2r.engine.live_index import LiveIndex
from delf_d2r.errors import ArtefactError
from delf_d2r.index import stored_index
from delf_d2r.index.index_state import kept_ids
from delf_d2r.index.search import count_words
from delf_d2r.index.stored_segment import StoredSegment
from delf_d2r.index.updates import MOST_REMOVED
from delf_d2r.kernels.aggregation import Kernel

# K sum p_k^2 with p_k the share of word k: 1 for equal shares. Indexes of real photos have less than 10.
IMBALANCE = 30.0


class IndexCheck:
  """One pass over an inverted index.

  Attributes:
    names: names of its images, in order; complete after `run`.
    num_words, dimensions: K and D; 0 before `run`.
  """

  def __init__(self, directory: pathlib.Path):
    self._directory = directory
    self._again = f'Build the index again: delete {directory} and run build_index'
    self.names = Names()
    self.num_words = self.dimensions = 0

  def run(self) -> Iterator[Finding]:
    """Yields findings.

    Raises:
      IndexFormatError: a file is damaged; the message names it.
    """
    stored_index.verify(str(self._directory))
    contents, _ = stored_index.read(str(self._directory))
    self.num_words, self.dimensions = contents.layout.num_words, contents.layout.dimensions
    for name in contents.images.names:
      self.names.add(name)
    twice = self.names.twice(lambda: iter(contents.images.names))
    if twice:
      yield error(self._directory, f'images that occur twice: {twice}', self._again)
    lists = np.zeros(self.num_words, np.int64)
    empty, first, broken = FindingCounter(), 0, FindingCounter()
    for segment, removed in contents.parts:
      arrays = segment.load()
      offsets = arrays.offsets.astype(np.int64)
      lists += offsets[1:] - offsets[:-1]
      if len(removed):
        lists -= count_words(arrays, removed)
      counts = arrays.word_counts[kept_ids(segment, removed)]
      for entry in np.flatnonzero(counts == 0).tolist():
        empty.add(_name_of(contents.images, first + entry))
      if not contents.kernel.is_binary:
        for rows in blocks(arrays.values):
          broken.add('values', int(np.count_nonzero(~_sound(rows, contents.kernel))))
      first += len(counts)
      if isinstance(segment, StoredSegment):
        segment.unload()
    if broken:
      yield error(
        self._directory,
        f'{broken.count} postings whose values are not finite or not of length 1',
        self._again,
      )
    if empty:
      what = 'regions' if contents.images.is_regional else 'images'
      yield warning(self._directory, f'{what} without visual words: {empty}', 'No search can find them')
    if contents.num_removed:
      what = 'regions' if contents.images.is_regional else 'images'
      yield note(
        self._directory,
        f'has the postings of {contents.num_removed} {what} that were removed, of {contents.num_rows} in all;'
        ' no search finds them',
        f'Nothing: they vanish when there are more than {MOST_REMOVED:.0%} of them',
      )
    yield from self._balance(lists)

  def _balance(self, lists: np.ndarray) -> Iterator[Finding]:
    total = int(lists.sum())
    if not total:
      yield error(self._directory, 'no postings at all: every search finds nothing', self._again)
      return
    dead = int(np.count_nonzero(lists == 0))
    if dead:
      yield note(
        self._directory,
        f'{dead} of {len(lists)} visual words ({dead / len(lists):.0%}) occur in no image',
        'Nothing, in a small index; for a large one train the codebook on more or other photos',
      )
    shares = lists / total
    imbalance = float(len(lists) * np.square(shares).sum())
    if imbalance > IMBALANCE:
      yield warning(
        self._directory,
        f'unbalanced lists: factor {imbalance:.1f} (1: all equal), visual word {int(shares.argmax())} has'
        f' {shares.max():.1%} of all postings',
        'Searches are slow and inaccurate: train the codebook on more photos, or on photos of this kind',
      )


def _sound(rows: np.ndarray, kernel: Kernel) -> np.ndarray:
  norms = np.linalg.norm(rows, axis=1)
  # Only the whole VLAD has length 1. NaN compares false.
  return np.abs(norms - 1) <= UNIT_TOLERANCE if kernel.is_selective else np.isfinite(norms)


def _name_of(images, entry: int) -> str:
  if not images.is_regional:
    return images.names[entry]
  return images.names[int(np.searchsorted(images.entry_offsets, entry, side='right')) - 1]


def boxes(artefact: Artefact, num_images: int, checksum: int) -> Iterator[Finding]:
  """Yields findings on the boxes of an index artefact.

  Args:
    artefact: the index.
    num_images: number of images in its postings.
    checksum: of its postings.
  """
  again = f'Delete {artefact.path} and run build_index again'
  found = live_files.load(artefact.path, checksum).boxes
  if len(found.offsets) - 1 != num_images:
    yield error(
      artefact.path / index_files.BOXES,
      f'boxes of {len(found.offsets) - 1} images, the index has {num_images}',
      again,
    )
  for rows in blocks(found.coordinates):
    # Written so that NaN counts as an error.
    if not ((rows[:, :2] >= 0) & (rows[:, :2] < rows[:, 2:]) & (rows[:, 2:] <= 1)).all():
      yield error(artefact.path / index_files.BOXES, 'has boxes outside [0, 1] or without area', again)
      return


def added(artefact: Artefact, image_names: Sequence[str], checksum: int) -> Iterator[Finding]:
  """Yields findings on the images that were added to an index since it was built, and on stopped saves.

  Args:
    artefact: the index.
    image_names: the names in its postings.
    checksum: of its postings.
  """
  path = artefact.path
  state = live_files.load(path, checksum)
  known = set(image_names) if state.added else set()
  broken, strangers = FindingCounter(), FindingCounter()
  for name, digest in state.added.items():
    if name not in known:
      strangers.add(name)
    try:
      if live_files.read_features(path, digest).name != paired_index.name_of(name):
        raise ArtefactError('features of another image')
    except ArtefactError:
      broken.add(name)
  again = 'Remove these images from the index and add them again (SearchEngine.remove, add, save)'
  if broken:
    yield error(path / 'added', f'features of added images that are missing or damaged: {broken}', again)
  if strangers:
    yield error(
      path, f'added images that have no postings: {strangers}', f'Delete {path} and run build_index again'
    )
  unused = live_files.stored_features(path) - set(state.added.values())
  if unused:
    yield note(
      path / 'added',
      f'{len(unused)} features of images that are not in the index: a change is not saved, or was stopped',
      'Nothing: the next change of the index removes them',
    )
  if live_files.is_interrupted(path):
    yield note(
      path,
      'a change is being saved, or saving was stopped; the index is the old one or the new one',
      'Nothing, if another process is saving it; else the next save puts it in order',
    )
  counted = artefact.counts.get('images', len(image_names))
  if counted != len(image_names):
    yield note(
      path / MANIFEST,
      f'the manifest counts {counted} images, the index has {len(image_names)}: saving was stopped',
      'Nothing: the next save corrects it',
    )


def pair(first: Artefact, other: Artefact) -> Iterator[Finding]:
  """Yields findings on the two indexes of a run with fusion, which must have the same images.

  Args:
    first: the index that says which images there are.
    other: the index of the other search.
  """
  missing, leftover = paired_index.differences(LiveIndex(first).snapshot, LiveIndex(other).snapshot)
  if missing:
    counter = FindingCounter()
    for name in missing:
      counter.add(name)
    problem, _, remedy = paired_index.why_missing(first).partition('. ')
    yield error(other.path, f'lacks images of {first.path}, {counter}: {problem}', remedy)
  if leftover:
    counter = FindingCounter()
    for name in leftover:
      counter.add(name)
    yield note(
      other.path,
      f'images that {first.path} does not have, and that are not searched: {counter}; a change is being'
      ' saved, or saving was stopped',
      'Nothing: the next save of the run removes them',
    )
