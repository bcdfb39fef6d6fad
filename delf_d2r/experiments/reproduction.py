"""A table of the paper on a data set: every row whose files are present, one after the other.

    <row>/                        the run of a row (experiment.py), with distractors (distractors.py)
    codebooks/                    features and codebooks of other photos, where codebooks are trained on those
    <table>.txt .csv .json        the table, rewritten after every row
    report/index.html             the same with links to the rows' own reports

Rows share the artefacts on which their configs agree. A row with missing files lists them; a row that fails
does not keep the others from running.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from absl import logging

import delf_d2r.config as configs
from delf_d2r.config.values import fingerprint
from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Input, Plan, read_manifest
from delf_d2r.data.artefacts.artefact_writer import PARTIAL_MANIFEST
from delf_d2r.data.ground_truth import resolved
from delf_d2r.data.ground_truth.benchmarks import Benchmark
from delf_d2r.data.photos import distractor_list
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError
from delf_d2r.experiments import (
  comparison,
  distractors,
  experiment,
  paper_tables,
  reproduction_table,
)
from delf_d2r.experiments.reproduction_table import Reproduction, RowResult
from delf_d2r.experiments.second_search import DISTRACTORS, JOINED
from delf_d2r.experiments.sharing import SharedArtefacts
from delf_d2r.protos import codebook_pb2, experiment_pb2, manifest_pb2, table_pb2
from delf_d2r.stages import train_codebook


@dataclasses.dataclass(frozen=True)
class Choices:
  """Which rows of a table to run, and how.

  Attributes:
    rows: names of rows; empty: all.
    overrides: changes of every row's config.
    max_words: upper limit of the words of a trained codebook; None: no limit.
    distractors: photos that are added to the index for the columns +1M; None: none.
    distractors_boxes: boxes of the distractors, for rows whose boxes come from a file.
    options: how to run.
  """

  rows: Sequence[str] = ()
  overrides: Sequence[str] = ()
  max_words: int | None = None
  distractors: ImageList | None = None
  distractors_boxes: pathlib.Path | None = None
  options: experiment.Options = dataclasses.field(default_factory=experiment.Options)


def run(
  table: table_pb2.TableConfig, benchmark: Benchmark, output: pathlib.Path, choices: Choices | None = None
) -> Reproduction:
  """Runs the rows of a table whose files are present, and writes the table.

  Args:
    table: from paper_tables.load_table.
    benchmark: the data set.
    output: the folder of all artefacts, of the table and of its page.
    choices: which rows to run, and how.

  Raises:
    UserError: there is no row of a given name, the data set is incomplete, a distractor is a photo of it, the
      folder of a row holds artefacts of another config or of other photos, or the output cannot be written.
      Other errors of a single row are part of its result.
  """
  choices = choices or Choices()
  wanted = paper_tables.chosen(table, choices.rows)
  dataset = benchmark.dataset()
  if dataset.queries is None:
    raise UserError(f'{benchmark.images}: a table needs queries, but there is no ground truth')
  if choices.distractors:
    distractor_list.require_disjoint(choices.distractors, dataset)
  runner = _Runner(benchmark, dataset, output, choices)
  if not choices.options.redo:
    runner.require_own_output(wanted)
  previous = PreviousTable.read(table, output)
  results: list[RowResult] = []
  for number, row in enumerate(wanted, start=1):
    logging.info('row %d of %d: %s', number, len(wanted), row.name)
    results.append(runner.run(row))
    logging.info('%s: %s', row.name, results[-1].summary)
    found = Reproduction(
      table,
      benchmark,
      dataset,
      tuple(results),
      num_distractors=len(choices.distractors or ()),
      rows_to_come=len(wanted) - number,
    )
    if results[-1].alone is None and row.name in previous.measured:
      previous = previous.back_up()
    reproduction_table.write(found, output)
  return found


class _Runner:
  """Runs rows one after the other, sharing artefacts between them."""

  def __init__(self, benchmark: Benchmark, dataset: Dataset, output: pathlib.Path, choices: Choices):
    self._benchmark = benchmark
    self._dataset = dataset
    self._output = output
    self._choices = choices
    self._shared = SharedArtefacts()

  def run(self, row: table_pb2.TableRow) -> RowResult:
    """Returns the result of a row; a UserError is part of it."""
    try:
      config, missing = self._planned(row)
      return RowResult(row, missing=missing) if missing else self._measure(row, config)
    except UserError as error:
      logging.error('row %s: %s', row.name, error)
      return RowResult(row, error=str(error))

  def require_own_output(self, rows: Iterable[table_pb2.TableRow]) -> None:
    """Raises UserError if stages would refuse the artefacts that the folders of some rows hold."""
    photos, queries, truth = self._choices.distractors, self._dataset.queries, self._benchmark.ground_truth
    if queries is None or truth is None:
      raise ValueError(f'expected a data set with ground truth, found {self._benchmark.images} without')
    inputs = (self._dataset.images.as_input(), queries.as_input(), resolved.ground_truth_input(truth))
    refused, made = [], set()
    for row in rows:
      try:
        config, missing = self._planned(row)
      except UserError:
        continue  # The result of the row has the error.
      if missing:
        continue
      keys = self._shared.keys(config)
      given = {kind for kind, key in keys.items() if key in made}
      made |= set(keys.values())
      place = self._output / paper_tables.folder_name(row.name)
      found = output_conflicts(
        config,
        inputs,
        place,
        distractors=photos.as_input() if photos else None,
        given=given | ({'codebook'} if self._benchmark.codebook else set()),
      )
      if found:
        refused.append(f'row {row.name}: {place} was made by another run: {"; ".join(found)}')
    if refused:
      raise UserError(
        '\n'.join(
          [*refused, 'Nothing was run. Choose another --output, or give --redo to replace what differs']
        )
      )

  def _planned(self, row: table_pb2.TableRow) -> tuple[experiment_pb2.ExperimentConfig, tuple[str, ...]]:
    """Returns the config of a row, and the missing things that it needs."""
    config = paper_tables.row_config(
      row,
      is_revisited=self._benchmark.is_revisited,
      overrides=self._choices.overrides,
      max_words=self._choices.max_words,
    )
    return config, paper_tables.missing(row, config, has_boxes=self._benchmark.boxes is not None)

  def _measure(self, row: table_pb2.TableRow, config: experiment_pb2.ExperimentConfig) -> RowResult:
    choices, benchmark = self._choices, self._benchmark
    takes_boxes = comparison.takes_boxes_file(config.regions)
    place = self._output / paper_tables.folder_name(row.name)
    given = self._shared.given(config)
    if 'codebook' not in given and benchmark.codebook:
      given |= self._other_codebook(config, benchmark.codebook)
    outcome = experiment.run(
      config,
      self._dataset,
      place,
      ground_truth=benchmark.ground_truth,
      boxes_path=benchmark.boxes if takes_boxes else None,
      given=given,
      options=choices.options,
    )
    self._shared.keep(config, outcome.artefacts)
    features = outcome.artefacts['features'].counts
    result = RowResult(
      row,
      alone=comparison.row_of(outcome),
      boxes=features['regions'] / features['images'] - 1,
      page=outcome.page.relative_to(self._output),
    )
    if choices.distractors is None:
      return result
    joined = distractors.run(
      config,
      outcome,
      choices.distractors,
      place,
      ground_truth=benchmark.ground_truth,
      boxes_path=choices.distractors_boxes if takes_boxes else None,
      given=given,
      options=choices.options,
    )
    self._shared.keep(config, {**joined.artefacts, 'index': outcome.artefacts['index']})
    return dataclasses.replace(result, among=comparison.row_of(joined))

  def _other_codebook(
    self, config: experiment_pb2.ExperimentConfig, photos: Benchmark
  ) -> dict[str, Artefact]:
    """Returns `codebook`, trained on other photos; nothing where nothing is trained."""
    if config.codebook.source != codebook_pb2.CodebookConfig.K_MEANS:
      return {}
    whole = experiment_pb2.ExperimentConfig()
    whole.CopyFrom(config)
    whole.regions.CopyFrom(configs.default('regions').regions)
    place = self._output / 'codebooks' / fingerprint(config.extraction)
    features = experiment.extract_index_features(
      whole,
      photos.dataset(),
      place,
      boxes_path=None,
      given={},
      options=self._choices.options,
    )['features']
    codebook = train_codebook.run(
      whole, features, place / f'codebook_{fingerprint(config.codebook)}', redo=self._choices.options.redo
    )
    return {'codebook': codebook}


@dataclasses.dataclass(frozen=True)
class PreviousTable:
  """The table that an earlier command left in the output.

  It is backed up before a row that fails now would replace numbers.

  Attributes:
    measured: names of its rows with numbers.
    contents: of its files.
  """

  measured: Collection[str] = ()
  contents: Mapping[pathlib.Path, bytes] = dataclasses.field(default_factory=dict)

  @classmethod
  def read(cls, table: table_pb2.TableConfig, output: pathlib.Path) -> 'PreviousTable':
    """Reads the table of that title in a folder; returns one without rows if there is none.

    Raises:
      UserError: a file of it cannot be read.
    """
    places = reproduction_table.places(table, output)
    with files.user_errors('cannot read', output):
      contents = {place: place.read_bytes() for place in places.values() if place.is_file()}
    try:
      records = files.parse_json(contents[places['.json']].decode())
      return cls({record['row'] for record in records if record['status'] == 'measured'}, contents)
    except (KeyError, TypeError, ValueError):
      return cls()

  def back_up(self) -> 'PreviousTable':
    """Writes copies of its files under unused names; returns a table without rows.

    Raises:
      UserError: the copies cannot be written.
    """
    for number in itertools.count(1):
      copies = {place.with_name(f'{place.stem}_{number}{place.suffix}'): place for place in self.contents}
      if not any(copy.exists() for copy in copies):
        break
    for copy, place in copies.items():
      with files.user_errors('cannot write', copy):
        files.write_atomically(copy, self.contents[place])
    logging.warning('the previous table with its numbers is kept as %s', ', '.join(map(str, copies)))
    return PreviousTable()


def output_conflicts(
  config: experiment_pb2.ExperimentConfig,
  inputs: Collection[Input],
  output: pathlib.Path,
  *,
  distractors: Input | None = None,
  given: Collection[str] = (),
) -> list[str]:
  """Returns why stages would refuse the artefacts in the folder of a run; empty if they would not.

  Stages check their own output one by one (artefact_writer.py). With several runs in a row those errors
  would come late, so that this function checks all of them first. Finished and unfinished artefacts are
  checked; of their inputs, only those that come from outside the run are compared.

  Args:
    config: of the run, resolved, with all stages.
    inputs: its photos, queries and ground truth, with the roles that stages give them.
    output: its folder, which need not exist.
    distractors: photos that are added to the index; without them their artefacts are not checked.
    given: kinds of artefacts that the run is given (SharedArtefacts.given) and so does not write.

  Raises:
    ArtefactError: a manifest is damaged or of another format version.
  """
  inputs_of = {'': inputs}
  if distractors:
    inputs_of |= {JOINED: inputs, DISTRACTORS: [distractors]}
  found: dict[str, None] = {}
  for folder, outside in inputs_of.items():
    for place in sorted((output / folder).glob('*/')):
      if _kind(folder, place.name) in given:
        continue
      for name in (MANIFEST, PARTIAL_MANIFEST):
        if (place / name).is_file():
          found |= dict.fromkeys(_conflicts(config, outside, read_manifest(place / name)))
          break
  return list(found)


def _kind(folder: str, name: str) -> str:
  """Returns the kind that SharedArtefacts gives to the artefact of that name in a folder of the run."""
  if folder == JOINED:
    return f'joined_{name}'
  return f'distractor_{name}' if folder == DISTRACTORS else name


def _conflicts(
  config: experiment_pb2.ExperimentConfig, outside: Collection[Input], manifest: manifest_pb2.Manifest
) -> Iterator[str]:
  planned = experiment_pb2.ExperimentConfig()
  for field, _ in manifest.config.ListFields():
    if field.name == 'name':
      continue
    if not config.HasField(field.name):
      return  # No stage of this run makes it.
    getattr(planned, field.name).CopyFrom(getattr(config, field.name))
  now = {item.role: item for item in outside}
  inputs = tuple(
    now.get(item.role) or Input(item.role, item.fingerprint, pathlib.Path(item.path))
    for item in manifest.inputs
  )
  yield from Plan(manifest.kind, planned, inputs).differences(manifest)
