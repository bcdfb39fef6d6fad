"""Checks of the folder of a run: its config against its artefacts, its results and its page."""

import pathlib
from collections.abc import Collection, Iterator, Sequence

import delf_d2r.config as configs
from delf_d2r.data.artefacts.artefact import RUN_CONFIG, Artefact
from delf_d2r.doctor import index_checks, missing
from delf_d2r.doctor.findings import Finding, FindingCounter, error, note, warning
from delf_d2r.engine.fused_search import INDEX, SECONDARY, is_fused
from delf_d2r.errors import ConfigError
from delf_d2r.protos import experiment_pb2

_REPORT = 'report'
_PAGE = 'index.html'
_AGAIN = 'Run the same command again, which writes it again'


def check(
  folder: pathlib.Path, artefacts: Sequence[Artefact], *, places: Collection[pathlib.Path]
) -> Iterator[Finding]:
  """Yields findings on a folder with artefacts or a config; none if it is not a run.

  Args:
    folder: the folder.
    artefacts: artefacts that could be opened, also of other folders.
    places: places of all artefacts that are inspected, also of damaged ones.
  """
  own = [artefact for artefact in artefacts if artefact.path.parent == folder]
  has_artefacts = any(place.parent == folder for place in places)
  place, page = folder / RUN_CONFIG, folder / _REPORT / _PAGE
  if not place.is_file():
    if has_artefacts and page.is_file():
      yield note(place, 'missing, or never written', f'{_AGAIN}; nothing, if the stages were run one by one')
    return
  try:
    config = configs.load(place)
  except ConfigError as problem:
    if has_artefacts:
      yield error(place, f'cannot be used: {str(problem).removeprefix(f"{place}:").strip()}', _AGAIN)
    return
  # Only run_experiment writes all parts; another config.pbtxt may be a user's own.
  if not config.HasField('report') or not (has_artefacts or page.parent.is_dir()):
    return
  yield from _against(config, place, own)
  if not page.is_file() or not page.stat().st_size:
    yield warning(page, 'missing or empty', _AGAIN)
  if has_artefacts:
    yield from missing.results(folder, config, artefacts)
    of_indexes = {artefact.path: artefact for artefact in artefacts if artefact.manifest.kind == 'index'}
    both = [of_indexes.get(folder / name) for name in (INDEX, f'{SECONDARY}/{INDEX}')]
    if is_fused(config) and both[0] and both[1]:
      yield from index_checks.pair(both[0], both[1])
  else:
    yield error(
      folder,
      f'{RUN_CONFIG} says that a run was finished here, but it has no artefacts',
      'Restore them, or run the same command again',
    )


def _against(
  config: experiment_pb2.ExperimentConfig, place: pathlib.Path, own: Sequence[Artefact]
) -> Iterator[Finding]:
  differing: dict[str, str] = {}
  for artefact in own:
    theirs = configs.resolve(artefact.config)
    for part in configs.STAGE_FIELDS:
      # A codebook may have been given, trained with another config.
      comes_from_here = part != 'codebook' or artefact.manifest.kind == 'codebook'
      if comes_from_here and config.HasField(part) and theirs.HasField(part):
        fields = configs.differences(getattr(config, part), getattr(theirs, part), f'{part}.')
        for field, here, there in fields:
          differing.setdefault(field, f'{field} is {here}, in {artefact.path.name} {there}')
  if differing:
    counter = FindingCounter()
    for text in differing.values():
      counter.add(text)
    yield warning(
      place,
      f'edited, or artefacts are of another run: fields that differ: {counter}',
      _AGAIN,
    )
