"""What should be there and is not: what artefacts of a run were made from, its results, shards of a split."""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from delf_d2r.data.artefacts.artefact import RUN_CONFIG, Artefact, Input
from delf_d2r.doctor.findings import Finding, error, note, warning
from delf_d2r.protos import experiment_pb2
from delf_d2r.sharding import layout

# Folders of a run that hold artefacts of their own.
_DISTRACTORS = 'distractors'
_PARTS_OF_A_RUN = frozenset(('other', 'verification', 'with_distractors', _DISTRACTORS))

# Roles of inputs that are artefacts.
_ARTEFACTS = frozenset(
  (
    'boxes',
    'features',
    'codebook',
    'descriptors',
    'distractors',
    'index',
    'query_features',
    'rankings',
    'rankings_before',
    'rankings_hard',
    'first',
    'other',
    'distractor_features',
  )
)

# What a run with queries ends with, by part of its config.
_RESULTS = {
  'search': ('rankings', 'metrics'),
  'fusion': ('fused', 'fused_metrics'),
  'verification': ('reranked', 'reranked_metrics'),
  'expansion': ('expanded', 'expanded_metrics'),
}


def run_of(artefact: Artefact) -> pathlib.Path:
  """The folder of the run that an artefact is of; absolute."""
  folder = _absolute(artefact.path).parent
  while folder.name in _PARTS_OF_A_RUN:
    folder = folder.parent
  return folder


def are_distractors(artefact: Artefact) -> bool:
  """Whether it was made from a run's distractors, which are called from the folder that their own lies in."""
  return _DISTRACTORS in _absolute(artefact.path).relative_to(run_of(artefact)).parent.parts


def place_of(artefact: Artefact, item: Input, siblings: Iterable[Artefact]) -> pathlib.Path:
  """Where an input is now: where it was, or in the run that it moved with; absolute if the artefact is."""
  place = _absolute(item.path)
  if not os.path.exists(place):
    run = run_of(artefact)
    tails = [_absolute(other.path).relative_to(run).parts for other in siblings if run_of(other) == run]
    fitting = [tail for tail in tails if place.parts[-len(tail) :] == tail]
    place = run.joinpath(*max(fitting, key=len)) if fitting else place
  return place if artefact.path.is_absolute() else pathlib.Path(os.path.relpath(place))


def _absolute(path: pathlib.Path) -> pathlib.Path:
  # As it is called: whoever replaced a folder of a run by a link to another disk still means the run's.
  return pathlib.Path(os.path.abspath(path))


def inputs(artefacts: Sequence[Artefact]) -> dict[pathlib.Path, list[str]]:
  """Places in the folder of a run that are gone, with the names of artefacts there that were made from them.

  An artefact that lies alone was copied to where it is, and its inputs are elsewhere.
  """
  company = collections.Counter(map(run_of, artefacts))
  gone: dict[pathlib.Path, list[str]] = {}
  for artefact in artefacts:
    run = run_of(artefact)
    if company[run] < 2 and not os.path.isfile(run / RUN_CONFIG):
      continue
    for item in artefact.manifest.inputs:
      place = place_of(artefact, artefact.input(item.role), artefacts)
      if item.role in _ARTEFACTS and _lies_in_run(artefact, place) and _is_gone(place):
        gone.setdefault(place, []).append(artefact.path.name)
  return gone


def _lies_in_run(artefact: Artefact, place: pathlib.Path) -> bool:
  place = _absolute(place)
  # Manifests of 2026-11-24 and before call inputs from a folder that nobody knows: as if below the artefact.
  return place.is_relative_to(run_of(artefact)) and not place.is_relative_to(_absolute(artefact.path))


def _is_gone(place: pathlib.Path) -> bool:
  try:
    return not os.listdir(place)
  except OSError as problem:
    # What may not be read is there.
    return isinstance(problem, FileNotFoundError)


def in_runs(gone: Mapping[pathlib.Path, Sequence[str]]) -> Iterator[Finding]:
  """What `inputs` found."""
  for place, users in gone.items():
    yield _finding(place, f'gone, but {", ".join(sorted(set(users)))} in this run came of it')


def results(
  folder: pathlib.Path, config: experiment_pb2.ExperimentConfig, artefacts: Sequence[Artefact]
) -> Iterator[Finding]:
  """What a finished run in `folder` made, by its config and what else is there, and is gone.

  What `inputs` finds in the same artefacts is left out.
  """
  made = [name for part, names in _RESULTS.items() if config.HasField(part) for name in names]
  had_queries = any(os.path.exists(folder / name) for name in ('query_features', *made))
  had_index = os.path.exists(folder / 'descriptors')
  told = inputs(artefacts)
  for name in [*(['index'] if had_index else []), *(made if had_queries else [])]:
    if _is_gone(folder / name) and folder / name not in told:
      yield _finding(folder / name, f'gone, but {RUN_CONFIG} says that the run was finished')


def _finding(place: pathlib.Path, problem: str) -> Finding:
  # Without an index nothing can be searched; the results that there are can do without all else.
  severity = error if place.name == 'index' else warning
  return severity(place, problem, 'Restore it, or run the same command again, which makes it anew')


def shards(artefacts: Sequence[Artefact]) -> Iterator[Finding]:
  """Parts of a split index that are not beside the others.

  Shards may each be moved to a machine of their own; a front that has some of them beside it has all.
  """
  splits = collections.defaultdict(set)
  for artefact in artefacts:
    if (artefact.path / layout.SPLIT).is_file():
      split, number = layout.load_split(artefact.path)
      splits[artefact.path.parent, split].add(number)
  for (folder, split), numbers in splits.items():
    names = [layout.FRONT, *(layout.shard_directory(shard, len(split)) for shard in range(len(split)))]
    gone = [name for name in names if _is_gone(folder / name)]
    problem = f'{len(gone)} of the {len(names)} parts of a split index are gone: {", ".join(gone[:3])}'
    if gone and None in numbers and len(numbers) > 1:
      yield error(folder, problem, 'Fetch them from where they are, or run split_index again')
    elif gone and len(numbers) > 1:
      yield note(folder, problem, 'Nothing, if they serve on other machines')
