"""A table of a paper on a data set: every row whose files are at hand, one after the other.

    <row>/                        the run of a row (experiment.py), with distractors (distractors.py)
    codebooks/                    features and codebooks of other photos, where codebooks are trained on such
    <table>.txt .csv .json        the table, written anew after every row
    report/index.html             the same with links to the rows' own reports

Rows share what their configs agree on. A row without its files says which these are; one that fails does not
keep the others from running.
"""

import dataclasses
import importlib.util
import pathlib
import re
from collections.abc import Sequence

from absl import logging
from google.protobuf import text_format

import delf_d2r.config as configs
from delf_d2r.config_values import fingerprint
from delf_d2r.data.artefacts import Artefact
from delf_d2r.data.benchmarks import Benchmark
from delf_d2r.data.dataset import Dataset
from delf_d2r.data.image_list import ImageList
from delf_d2r.errors import ConfigError, UserError
from delf_d2r.experiments import comparison, distractors, experiment, reproduction_table
from delf_d2r.experiments.reproduction_table import Reproduction, RowResult
from delf_d2r.experiments.sharing import SharedArtefacts
from delf_d2r.extractors import factory
from delf_d2r.protos import codebook_pb2, experiment_pb2, table_pb2
from delf_d2r.protos.regions_pb2 import RegionsConfig
from delf_d2r.stages import train_codebook

TABLES = ('main', 'ablation')


@dataclasses.dataclass(frozen=True)
class Choices:
  """What to run of a table, and how.

  Attributes:
    rows: names of rows; empty: all.
    overrides: changes of every row's config.
    max_words: no trained codebook has more words; None: as the rows say.
    distractors: photos to search among, too; None: none.
    distractors_boxes: boxes of those, for rows whose boxes come from a file.
    options: how to run.
  """

  rows: Sequence[str] = ()
  overrides: Sequence[str] = ()
  max_words: int | None = None
  distractors: ImageList | None = None
  distractors_boxes: pathlib.Path | None = None
  options: experiment.Options = dataclasses.field(default_factory=experiment.Options)


def load_table(path: str | pathlib.Path) -> table_pb2.TableConfig:
  """Reads a table: a `.pbtxt` file, or the name of one of TABLES.

  Raises:
    ConfigError: there is none, or it is no table.
  """
  place = configs.find(f'configs/tables/{path}.pbtxt' if str(path) in TABLES else path)
  try:
    return text_format.Parse(place.read_text(encoding='utf-8'), table_pb2.TableConfig())
  except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
    raise ConfigError(f'{place}: not a table ({error}). See configs/tables for some') from None


def run(
  table: table_pb2.TableConfig, benchmark: Benchmark, output: pathlib.Path, choices: Choices | None = None
) -> Reproduction:
  """Runs the rows of a table whose files are at hand, and writes the table.

  Args:
    table: what load_table read.
    benchmark: the data set.
    output: the folder of all artefacts, of the table and of its page.
    choices: what to run of it, and how.

  Raises:
    UserError: there is no row of a name that is asked for, the data set is not whole, or the output cannot be
      written. What hinders a single row is said in its result.
  """
  choices = choices or Choices()
  unknown = set(choices.rows) - {row.name for row in table.rows}
  if unknown:
    raise UserError(
      f'no row {sorted(unknown)[0]!r} in the table. Its rows: {", ".join(row.name for row in table.rows)}'
    )
  wanted = [row for row in table.rows if not choices.rows or row.name in choices.rows]
  dataset = benchmark.dataset()
  if dataset.queries is None:
    raise UserError(f'{benchmark.images}: a table needs queries, but there is no ground truth')
  runner = _Runner(table, benchmark, dataset, output, choices)
  results: list[RowResult] = []
  for row in wanted:
    logging.info('row %s', row.name)
    results.append(runner.run(row))
    found = Reproduction(table, benchmark, dataset, tuple(results), len(choices.distractors or ()))
    reproduction_table.write(found, output)
  return found


def row_config(
  row: table_pb2.TableRow, *, is_revisited: bool, overrides: Sequence[str] = (), max_words: int | None = None
) -> experiment_pb2.ExperimentConfig:
  """The experiment of a row; errors as of config.load."""
  of_size = row.revisited_overrides if is_revisited else ()
  config = configs.load(row.config_path, experiment.STAGES, overrides=[*row.overrides, *of_size, *overrides])
  config.name = row.name
  if max_words and config.codebook.source != codebook_pb2.CodebookConfig.ORIGIN:
    config.codebook.num_words = min(config.codebook.num_words, max_words)
  return config


def needed_files(config: experiment_pb2.ExperimentConfig) -> list[str]:
  """Files that an experiment names and that the package does not have: models, their PCA, detectors."""
  places = []
  for extraction in (config.extraction, config.verification.extraction, config.fusion.extraction):
    if factory.uses_network(extraction):
      places += [path for path in factory.model_files(extraction).values() if path != factory.DEFAULT_DELF]
  if config.regions.source == RegionsConfig.DETECTOR and config.regions.detector.model_path:
    places.append(pathlib.Path(config.regions.detector.model_path))
  # A handle of TensorFlow Hub is no file.
  return list(dict.fromkeys(str(place) for place in places if ':/' not in str(place)))


class _Runner:
  """Runs one row after the other."""

  def __init__(
    self,
    table: table_pb2.TableConfig,
    benchmark: Benchmark,
    dataset: Dataset,
    output: pathlib.Path,
    choices: Choices,
  ):
    self._where = {file.path: file.where for file in table.files}
    self._benchmark = benchmark
    self._dataset = dataset
    self._output = output
    self._choices = choices
    self._shared = SharedArtefacts()

  def run(self, row: table_pb2.TableRow) -> RowResult:
    """The result of a row; errors that the user can mend are part of it."""
    try:
      config = row_config(
        row,
        is_revisited=self._benchmark.is_revisited,
        overrides=self._choices.overrides,
        max_words=self._choices.max_words,
      )
      missing = self._missing(row, config)
      return RowResult(row, missing=missing) if missing else self._measure(row, config)
    except UserError as error:
      logging.error('row %s: %s', row.name, error)
      return RowResult(row, error=str(error))

  def _missing(self, row: table_pb2.TableRow, config: experiment_pb2.ExperimentConfig) -> tuple[str, ...]:
    modules = [f'the Python module {name}' for name in row.modules if importlib.util.find_spec(name) is None]
    files = [path for path in needed_files(config) if not pathlib.Path(path).exists()]
    described = [f'{path} ({self._where[path]})' if path in self._where else path for path in files]
    takes_boxes = comparison.takes_boxes_file(config.regions) and not config.regions.file_path
    if takes_boxes and not self._benchmark.boxes:
      described.append('boxes of the photos, which the data set does not have')
    return (*modules, *described)

  def _measure(self, row: table_pb2.TableRow, config: experiment_pb2.ExperimentConfig) -> RowResult:
    choices, benchmark = self._choices, self._benchmark
    takes_boxes = comparison.takes_boxes_file(config.regions)
    place = self._output / folder_name(row.name)
    given = self._shared.given(config)
    if 'codebook' not in given and benchmark.codebook:
      given |= self._other_codebook(config)
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

  def _other_codebook(self, config: experiment_pb2.ExperimentConfig) -> dict[str, Artefact]:
    """A codebook of other photos; none for descriptors without visual words."""
    if config.codebook.source == codebook_pb2.CodebookConfig.ORIGIN:
      return {}
    whole = experiment_pb2.ExperimentConfig()
    whole.CopyFrom(config)
    whole.regions.CopyFrom(configs.default('regions').regions)
    place = self._output / 'codebooks' / fingerprint(config.extraction)
    features = experiment.extracted(
      whole,
      self._benchmark.codebook.dataset(),
      place,
      boxes_path=None,
      given={},
      options=self._choices.options,
    )['features']
    codebook = train_codebook.run(
      whole, features, place / f'codebook_{fingerprint(config.codebook)}', redo=self._choices.options.redo
    )
    return {'codebook': codebook}


def folder_name(row: str) -> str:
  """The folder of a row: letters, digits and underscores."""
  return re.sub(r'[^a-z0-9]+', '_', row.lower().replace('*', '_star')).strip('_')
