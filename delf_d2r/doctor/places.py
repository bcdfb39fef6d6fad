"""The places to inspect below a folder: artefacts, unfinished ones, bare indexes, and lost manifests."""

import collections
import dataclasses
import enum
import os
import pathlib
import re
from collections.abc import Collection, Sequence

from delf_d2r.data.artefacts import background_files, codebook_files
from delf_d2r.data.artefacts.artefact import MANIFEST, RUN_CONFIG
from delf_d2r.data.artefacts.artefact_writer import PARTIAL_MANIFEST
from delf_d2r.doctor.findings import Finding, FindingCounter, error
from delf_d2r.index import directory
from delf_d2r.sharding import layout

# Depth of the folders that are inspected: a run with distractors has artefacts three levels below, and the
# rows of a table are runs.
_DEPTH = 4

# Files that only artefacts have.
_SHARD = re.compile(r'(boxes|features|descriptors|rankings|detection)-\d{5}-of-\d{5}\.tfrecord')
_FILES = frozenset(
  (
    background_files.FACTS,
    codebook_files.CENTROIDS,
    codebook_files.PROJECTIONS,
    layout.LIST_SIZES,
    'image_ids.npy',
    'per_query.json',
  )
)


class State(enum.Enum):
  """The state of a place."""

  FINISHED = 'finished'
  UNFINISHED = 'unfinished'
  INDEX = 'inverted index'
  LOST = 'no manifest'


@dataclasses.dataclass(frozen=True)
class Places:
  """The places to inspect below a folder.

  Attributes:
    found: each place with its state, in the order of the paths.
    runs: folders that hold artefacts or have a `config.pbtxt`, and that may be runs.
    findings: lost manifests, and folders that cannot be read.
  """

  found: Sequence[tuple[pathlib.Path, State]]
  runs: Sequence[pathlib.Path]
  findings: Sequence[Finding]


def find(path: pathlib.Path) -> Places:
  """Finds the places in `path` and the folders below it.

  Links are followed. Each folder is visited once, if possible not by a link.
  """
  found, runs, unreadable = [], set(), FindingCounter()
  seen: set[tuple[int, int]] = set()
  folders = collections.deque([(path, 0)])
  links: collections.deque[tuple[pathlib.Path, int]] = collections.deque()
  while folders or links:
    folder, depth = (folders or links).popleft()
    try:
      status = os.stat(folder)
      if (status.st_dev, status.st_ino) in seen:
        continue
      seen.add((status.st_dev, status.st_ino))
      entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
      below = [entry for entry in entries if entry.is_symlink() or entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
      continue
    except OSError as problem:
      unreadable.add(f'{folder}: {problem.strerror}')
      continue
    names = {entry.name for entry in entries}
    state = _state(names)
    if state:
      found.append((folder, state))
      runs |= {folder.parent} if folder != path else set()
    elif RUN_CONFIG in names:
      runs.add(folder)
    if not state and depth < _DEPTH:
      for entry in below:
        if not entry.name.startswith('.'):
          (links if entry.is_symlink() else folders).append((folder / entry.name, depth + 1))
  found.sort(key=lambda entry: entry[0])
  findings = [_lost(place) for place, state in found if state is State.LOST]
  if unreadable:
    findings.append(
      error(path, f'folders that cannot be read: {unreadable}', 'Make them readable, or inspect others')
    )
  return Places(found, sorted(runs), findings)


def _state(names: Collection[str]) -> State | None:
  for name, state in (
    (MANIFEST, State.FINISHED),
    (PARTIAL_MANIFEST, State.UNFINISHED),
    (directory.MANIFEST, State.INDEX),
  ):
    if name in names:
      return state
  # Writing begins with the partial manifest and ends with the manifest, so that a stopped command never
  # leaves files without either.
  return State.LOST if any(name in _FILES or _SHARD.fullmatch(name) for name in names) else None


def _lost(place: pathlib.Path) -> Finding:
  return error(
    place,
    f'files of an artefact without {MANIFEST} and {PARTIAL_MANIFEST}: no command can read or continue it',
    f'Restore {MANIFEST} from a copy; else delete {place} and run its stage again',
  )
