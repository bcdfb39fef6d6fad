"""Checks for missing artefacts: inputs of others in a run, results of a run, shards of a split index."""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from delf_d2r.data.artefacts.artefact import RUN_CONFIG, Artefact, Input
from delf_d2r.doctor.findings import Finding, error, note, warning
from delf_d2r.engine.fused_search import SECONDARY
from delf_d2r.protos import experiment_pb2
from delf_d2r.sharding import layout

# Folders of a run that hold artefacts of their own.
_DISTRACTORS = 'distractors'
_PARTS_OF_A_RUN = frozenset((SECONDARY, 'verification', 'with_distractors', _DISTRACTORS))

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
    'other_descriptors',
    'background',
    'distractor_features',
  )
)

# The results of a run with queries, by part of its config.
_RESULTS = {
  'search': ('rankings', 'metrics'),
  'fusion': ('fused', 'fused_metrics'),
  'verification': ('reranked', 'reranked_metrics'),
  'expansion': ('expanded', 'expanded_metrics'),
}


def run_of(artefact: Artefact) -> pathlib.Path:
  """Returns the absolute path of the run that an artefact belongs to."""
  folder = _absolute(artefact.path).parent
  while folder.name in _PARTS_OF_A_RUN:
    folder = folder.parent
  return folder


def are_distractors(artefact: Artefact) -> bool:
  """Returns whether an artefact was made from the distractors of a run.

  Names of distractors are relative to the parent of their folder.
  """
  return _DISTRACTORS in _absolute(artefact.path).relative_to(run_of(artefact)).parent.parts


def place_of(artefact: Artefact, item: Input, siblings: Iterable[Artefact]) -> pathlib.Path:
  """Returns where an input is now: at its recorded place, or in the run if the run was moved.

  The path is absolute if that of the artefact is.

  Args:
    artefact: the artefact that was made from the input.
    item: the input.
    siblings: other artefacts of the run.
  """
  place = _absolute(item.path)
  if not os.path.exists(place):
    run = run_of(artefact)
    tails = [_absolute(other.path).relative_to(run).parts for other in siblings if run_of(other) == run]
    fitting = [tail for tail in tails if place.parts[-len(tail) :] == tail]
    place = run.joinpath(*max(fitting, key=len)) if fitting else place
  return place if artefact.path.is_absolute() else pathlib.Path(os.path.relpath(place))


def _absolute(path: pathlib.Path) -> pathlib.Path:
  # Links are kept: a folder of a run that was replaced by a link to another disk still belongs to the run.
  return pathlib.Path(os.path.abspath(path))


def inputs(artefacts: Sequence[Artefact]) -> dict[pathlib.Path, list[str]]:
  """Returns missing inputs in the folders of runs, with the names of the artefacts that were made from them.

  An artefact without others beside it is taken for a copy, whose inputs are elsewhere.
  """
  company = collections.Counter(map(run_of, artefacts))
  gone: dict[pathlib.Path, list[str]] = {}
  for artefact in artefacts:
    run = run_of(artefact)
    if company[run] < 2 and not os.path.isfile(run / RUN_CONFIG):
      continue
    for item in artefact.inputs:
      place = place_of(artefact, item, artefacts)
      if item.role in _ARTEFACTS and _lies_in_run(artefact, place) and _is_gone(place):
        gone.setdefault(place, []).append(artefact.path.name)
  return gone


def _lies_in_run(artefact: Artefact, place: pathlib.Path) -> bool:
  place = _absolute(place)
  # In manifests of 2026-11-24 and before, relative paths of inputs have an unknown base, so that they seem to
  # lie below the artefact.
  return place.is_relative_to(run_of(artefact)) and not place.is_relative_to(_absolute(artefact.path))


def _is_gone(place: pathlib.Path) -> bool:
  try:
    return not os.listdir(place)
  except OSError as problem:
    # A folder without read permission exists.
    return isinstance(problem, FileNotFoundError)


def in_runs(gone: Mapping[pathlib.Path, Sequence[str]]) -> Iterator[Finding]:
  """Yields a finding for each place that `inputs` returned."""
  for place, users in gone.items():
    yield _finding(place, f'missing, but {", ".join(sorted(set(users)))} in this run was made from it')


def results(
  folder: pathlib.Path, config: experiment_pb2.ExperimentConfig, artefacts: Sequence[Artefact]
) -> Iterator[Finding]:
  """Yields findings on artefacts that a finished run must have made and that are missing.

  Places that `inputs` returns for the same artefacts are not reported again.

  Args:
    folder: the folder of the run.
    config: of the run.
    artefacts: of the run.
  """
  made = [name for part, names in _RESULTS.items() if config.HasField(part) for name in names]
  had_queries = any(os.path.exists(folder / name) for name in ('query_features', *made))
  had_index = os.path.exists(folder / 'descriptors')
  told = inputs(artefacts)
  indexes = ['index', *([f'{SECONDARY}/index'] if config.HasField('fusion') else [])]
  for name in [*(indexes if had_index else []), *(made if had_queries else [])]:
    if _is_gone(folder / name) and folder / name not in told:
      yield _finding(folder / name, f'missing, but {RUN_CONFIG} says that the run was finished')


def _finding(place: pathlib.Path, problem: str) -> Finding:
  # Searches need the index; nothing else is needed to use the results.
  severity = error if place.name == 'index' else warning
  return severity(place, problem, 'Restore it, or run the same command again, which makes it again')


def shards(artefacts: Sequence[Artefact]) -> Iterator[Finding]:
  """Yields findings on parts of a split index that are not beside the others.

  Shards may be moved to machines of their own, but a front that has some shards beside it needs all of them.
  """
  splits = collections.defaultdict(set)
  for artefact in artefacts:
    if (artefact.path / layout.SPLIT).is_file():
      split, number = layout.load_split(artefact.path)
      splits[artefact.path.parent, split].add(number)
  for (folder, split), numbers in splits.items():
    names = [layout.FRONT, *(layout.shard_directory(shard, len(split)) for shard in range(len(split)))]
    gone = [name for name in names if _is_gone(folder / name)]
    problem = f'{len(gone)} of the {len(names)} parts of a split index are missing: {", ".join(gone[:3])}'
    if gone and None in numbers and len(numbers) > 1:
      yield error(folder, problem, 'Copy them there, or run split_index again')
    elif gone and len(numbers) > 1:
      yield note(folder, problem, 'Nothing, if they serve on other machines')
