"""`diagnose`: inspects an artefact, a run or an index on disk.

Records, arrays and posting lists are read in blocks and never changed. The memory that grows with the data is
8 bytes for each image and a count for each visual word.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Generator, Iterator

from absl import logging

from delf_d2r.data.artefacts import codebook_files, index_files, ranking_files, records
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, read_manifest
from delf_d2r.doctor import (
  artefact_files,
  findings,
  index_checks,
  inputs,
  missing,
  places,
  result_checks,
  run_folder,
)
from delf_d2r.doctor.findings import Diagnosis, Finding, error
from delf_d2r.doctor.inputs import ArtefactFacts
from delf_d2r.doctor.places import State
from delf_d2r.doctor.record_checks import Names, RecordCheck
from delf_d2r.errors import UserError
from delf_d2r.index import directory, stored_index
from delf_d2r.sharding import layout


def diagnose(path: str | pathlib.Path) -> Diagnosis:
  """Inspects an artefact, a run of run_experiment, a bare inverted index, or a folder of any of them.

  Problems are findings, not exceptions. A directory with nothing to inspect is an error among the findings.
  """
  path = pathlib.Path(path)
  there = places.find(path)
  found = list(there.findings)
  inspected: list[tuple[pathlib.Path, str]] = []
  artefacts: list[Artefact] = []
  for place, state in there.found:
    logging.info('%s', place)
    what, artefact = _entered(place, state, found)
    inspected.append((place, what))
    artefacts += [artefact] if artefact else []
  gone = missing.inputs(artefacts)
  found += missing.in_runs(gone)
  found += _guarded(path, missing.shards(artefacts))
  for folder in there.runs:
    found += _guarded(folder, run_folder.check(folder, artefacts, places=[place for place, _ in inspected]))
  if not inspected and not found:
    found.append(
      error(
        path, 'no artefact, run or index found', 'Give the --output of a command, or a directory of several'
      )
    )
  facts: dict[pathlib.Path, ArtefactFacts] = {}
  for artefact in artefacts:
    before = len(found)
    found += _guarded(artefact.path, artefact_files.finished(artefact))
    if any(finding.severity is findings.Severity.ERROR for finding in found[before:]):
      continue  # The contents of a damaged artefact say nothing.
    found += _guarded(artefact.path, _content(artefact, artefacts, facts, gone))
  found += _guarded(path, inputs.check_provenance(facts, artefacts))
  found += _guarded(path, inputs.changed_copies(artefacts))
  return findings.make(path, inspected, found)


def _entered(place: pathlib.Path, state: State, found: list[Finding]) -> tuple[str, Artefact | None]:
  """Returns a description of a place, and its artefact if it is finished and can be opened."""
  forbidden = list(artefact_files.forbidden(place))
  found += forbidden
  if forbidden:
    return 'no read permission', None
  if state is State.FINISHED:
    try:
      artefact = Artefact.open(place, read_manifest(place / MANIFEST).kind)
    except (UserError, OSError) as problem:
      found.append(_as_finding(place, problem))
      return 'damaged', None
    return _summary(artefact), artefact
  if state is State.UNFINISHED:
    found += _guarded(place, artefact_files.unfinished(place))
  elif state is State.INDEX:
    found += _guarded(place, index_checks.IndexCheck(place).run())
  return state.value, None


def _summary(artefact: Artefact) -> str:
  counts = ', '.join(f'{count.value} {count.name}' for count in artefact.manifest.counts if count.value)
  return f'{artefact.manifest.kind} ({counts})' if counts else artefact.manifest.kind


def _guarded(place: pathlib.Path, checks: Iterator[Finding]) -> Iterator[Finding]:
  """Yields the findings of some checks; an exception that stops them is a finding too."""
  try:
    yield from checks
  except (UserError, OSError, ValueError) as problem:
    yield _as_finding(place, problem)


def _as_finding(place: pathlib.Path, problem: Exception) -> Finding:
  return findings.stopped(place, problem, remedy=f'Delete {place} and run its stage again, or restore a copy')


def _content(
  artefact: Artefact,
  siblings: list[Artefact],
  facts: dict[pathlib.Path, ArtefactFacts],
  gone: Collection[pathlib.Path],
) -> Iterator[Finding]:
  """Yields findings on the contents of an artefact, and adds its facts for `inputs.check_provenance`."""
  look = _CHECKS.get(artefact.manifest.kind)
  if look:
    facts[artefact.path] = yield from look(artefact)
  yield from inputs.stale(artefact, siblings, _image_names(artefact), gone)


def _image_names(artefact: Artefact) -> list[str]:
  if artefact.manifest.kind not in ('boxes', 'features') or artefact.input('images') is None:
    return []
  return [records.Record(data).name for data in artefact.records()]


# Yields findings and returns the facts of an artefact.
_Check = Generator[Finding, None, ArtefactFacts]


def _records(artefact: Artefact) -> _Check:
  check = RecordCheck(artefact)
  yield from check.run()
  # Boxes may be of photos that cannot be read and have no features, so that their names are not compared.
  names = '' if artefact.manifest.kind == 'boxes' else check.names.digest
  if artefact.manifest.kind != 'descriptors':
    return ArtefactFacts(names, len(check.names), check.dimensions)
  # Residuals that are not projected have the dimensions of the features.
  of_features = 0 if codebook_files.is_projected(artefact.config.codebook) else check.dimensions
  return ArtefactFacts(names, len(check.names), of_features, bits=check.dimensions)


def _codebook(artefact: Artefact) -> _Check:
  yield from result_checks.codebook(artefact)
  return _centroid_facts(artefact.path)


def _centroid_facts(path: pathlib.Path) -> ArtefactFacts:
  found = codebook_files.load_centroids(path)
  return ArtefactFacts(
    num_words=len(found),
    dimensions=found.shape[1],
    bits=codebook_files.load_bits(path),
    centroids=codebook_files.digest(path),
  )


def _index(artefact: Artefact) -> _Check:
  if (artefact.path / layout.SPLIT).is_file():
    return (yield from _front(artefact))
  inverted = artefact.path / index_files.INVERTED
  check = index_checks.IndexCheck(inverted)
  yield from check.run()
  checksum = directory.read_manifest(inverted)[1]
  yield from index_checks.boxes(artefact, len(check.names), checksum)
  contents, _ = stored_index.read(str(inverted))
  yield from index_checks.added(artefact, contents.images.names, checksum)
  own = _centroid_facts(artefact.path)
  for field, expected, there in (
    ('num_words', own.num_words, check.num_words),
    ('dimensions (bits)', own.bits, check.dimensions),
  ):
    if expected != there:
      yield error(
        artefact.path,
        f'the codebook has {field} {expected}, the postings {there}',
        f'Delete {artefact.path} and run build_index again',
      )
  if contents.layout.codebook not in ('', own.centroids):
    yield error(
      artefact.path,
      f'its postings are of the codebook {contents.layout.codebook}, but its codebook is {own.centroids}',
      f'Delete {artefact.path} and run build_index again',
    )
  is_as_built = artefact.manifest.fingerprint == artefact_files.planned_fingerprint(artefact)
  names = check.names.digest if is_as_built else ''
  return dataclasses.replace(own, names=names, num_images=len(check.names))


def _front(artefact: Artefact) -> _Check:
  """Checks an index whose postings are in shards."""
  layout.load_split(artefact.path)
  names = Names()
  for name in layout.load_names(artefact.path):
    names.add(name)
  yield from index_checks.boxes(artefact, len(names), checksum=0)
  return dataclasses.replace(_centroid_facts(artefact.path), names=names.digest, num_images=len(names))


def _shard(artefact: Artefact) -> _Check:
  check = index_checks.IndexCheck(artefact.path / index_files.INVERTED)
  yield from check.run()
  split, number = layout.load_split(artefact.path)
  expected = None if number is None else len(split.images(number))
  if len(check.names) != expected:
    yield error(
      artefact.path,
      f'{len(check.names)} images, shard {number} of its split has {expected}',
      f'Delete {artefact.path} and run split_index again',
    )
  return ArtefactFacts(num_images=len(check.names), num_words=check.num_words, bits=check.dimensions)


def _rankings(artefact: Artefact) -> _Check:
  yield from result_checks.rankings(artefact)
  names = Names()
  for name in ranking_files.load(artefact.path).image_names:
    names.add(name)
  return ArtefactFacts(names.digest, len(names))


def _metrics(artefact: Artefact) -> _Check:
  yield from result_checks.metrics(artefact)
  return ArtefactFacts()


def _background(artefact: Artefact) -> _Check:
  yield from result_checks.background(artefact)
  return ArtefactFacts()


_CHECKS: dict[str, Callable[[Artefact], _Check]] = {
  'boxes': _records,
  'features': _records,
  'codebook': _codebook,
  'descriptors': _records,
  'index': _index,
  'rankings': _rankings,
  'shard': _shard,
  'metrics': _metrics,
  'background': _background,
}
