"""What there is to inspect below a folder: artefacts, unfinished work, bare indexes, lost manifests."""

import collections
import dataclasses
import enum
import os
import pathlib
import re
from collections.abc import Collection, Sequence

from delf_d2r.data.artefacts import codebook_files
from delf_d2r.data.artefacts.artefact import MANIFEST, RUN_CONFIG
from delf_d2r.data.artefacts.artefact_writer import PARTIAL_MANIFEST
from delf_d2r.doctor.findings import Finding, FindingCounter, error
from delf_d2r.index import manifest
from delf_d2r.sharding import layout

# Folders below the one that is inspected: a run with distractors has artefacts three below, and the rows of a
# table are runs.
_DEPTH = 4

# Files that only artefacts have.
_SHARD = re.compile(r'(boxes|features|descriptors|rankings|detection)-\d{5}-of-\d{5}\.tfrecord')
_FILES = frozenset((codebook_files.CENTROIDS, layout.LIST_SIZES, 'image_ids.npy', 'per_query.json'))


class State(enum.Enum):
  """What a place is."""

  FINISHED = 'finished'
  UNFINISHED = 'unfinished'
  INDEX = 'inverted index'
  LOST = 'no manifest'


@dataclasses.dataclass(frozen=True)
class Places:
  """What `find` found.

  Attributes:
    found: each place and what it is, in the order of their paths.
    runs: folders that artefacts lie in or that have a `config.pbtxt`: runs, perhaps.
    findings: what lost its manifest, and what could not be looked into.
  """

  found: Sequence[tuple[pathlib.Path, State]]
  runs: Sequence[pathlib.Path]
  findings: Sequence[Finding]


def find(path: pathlib.Path) -> Places:
  """Looks at `path` and the folders below it, also behind links: each once, by its own name if it has one."""
  found, runs, unreadable = [], set(), FindingCounter()
  seen: set[tuple[int, int]] = set()
  folders, links = collections.deque([(path, 0)]), collections.deque()
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
    (manifest.MANIFEST, State.INDEX),
  ):
    if name in names:
      return state
  # Work begins with the partial manifest and ends with the manifest: no kill leaves files without either.
  return State.LOST if any(name in _FILES or _SHARD.fullmatch(name) for name in names) else None


def _lost(place: pathlib.Path) -> Finding:
  return error(
    place,
    f'files of an artefact, but neither {MANIFEST} nor {PARTIAL_MANIFEST}: no command reads or continues it',
    f'Restore {MANIFEST} from a copy; else delete {place} and run its stage again',
  )
