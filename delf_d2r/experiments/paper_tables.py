"""Rows of a table of the paper: their experiments, the files they need, and where to get missing ones."""

import dataclasses
import difflib
import importlib.util
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf import text_format

import delf_d2r.config as configs
from delf_d2r import text_table
from delf_d2r.errors import ConfigError, UserError
from delf_d2r.experiments import comparison, experiment
from delf_d2r.extractors import registry
from delf_d2r.protos import codebook_pb2, experiment_pb2, table_pb2
from delf_d2r.protos.regions_pb2 import RegionsConfig

TABLES = ('main', 'ablation')
_BOXES = 'boxes of the photos'
_NO_BOXES = 'boxes.csv in the folder of the data set, image,ymin,xmin,ymax,xmax a line'


@dataclasses.dataclass(frozen=True)
class Need:
  """Something that rows need and that is missing.

  Attributes:
    what: a file, a Python module, or the boxes of the photos.
    where: where to get it; '' if the table does not say.
    rows: names of the rows that need it.
  """

  what: str
  where: str
  rows: tuple[str, ...]


def load_table(path: str | pathlib.Path) -> table_pb2.TableConfig:
  """Reads a table.

  Args:
    path: a `.pbtxt` file, or one of TABLES.

  Raises:
    ConfigError: there is no such file, or it does not hold a table.
  """
  try:
    place = configs.find(f'configs/tables/{path}.pbtxt' if str(path) in TABLES else path)
  except ConfigError:
    raise ConfigError(
      f'{path}: no such table. There are {" and ".join(TABLES)}; or give a .pbtxt of that form'
    ) from None
  try:
    return text_format.Parse(place.read_text(encoding='utf-8'), table_pb2.TableConfig())
  except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
    raise ConfigError(f'{place}: not a table ({error}). See configs/tables for some') from None


def folder_name(row: str) -> str:
  """Returns the name of a row's folder: lower-case letters, digits and underscores."""
  return re.sub(r'[^a-z0-9]+', '_', row.lower().replace('*', '_star')).strip('_')


def chosen(table: table_pb2.TableConfig, names: Iterable[str]) -> list[table_pb2.TableRow]:
  """Returns the rows with the given names in the order of the table; all rows if no name is given.

  Args:
    table: of the rows.
    names: names of rows or of their folders.

  Raises:
    UserError: there is no row of a name.
  """
  by_folder = {folder_name(row.name): row for row in table.rows}
  wanted = set()
  for name in names:
    if folder_name(name) not in by_folder:
      raise UserError(f'no row {name!r} in the table. {_hint(folder_name(name), by_folder)}')
    wanted.add(folder_name(name))
  return [row for folder, row in by_folder.items() if folder in wanted or not wanted]


def _hint(folder: str, by_folder: Mapping[str, table_pb2.TableRow]) -> str:
  """Returns a hint at the rows whose names resemble `folder`; at all rows if none does."""
  close = [known for known in by_folder if folder and folder in known]
  close = close or difflib.get_close_matches(folder, by_folder, n=3)
  names = [repr(by_folder[known].name) for known in close or by_folder]
  return f'Did you mean {" or ".join(names)}?' if close else f'Its rows: {", ".join(names)}'


def row_config(
  row: table_pb2.TableRow, *, is_revisited: bool, overrides: Sequence[str] = (), max_words: int | None = None
) -> experiment_pb2.ExperimentConfig:
  """Returns the experiment of a row.

  Args:
    row: of a table.
    is_revisited: whether the data set is one of Revisited, for which rows may have further overrides.
    overrides: changes of the config that come last.
    max_words: upper limit of the words of a trained codebook; None: no limit.

  Raises:
    ConfigError: the config of the row does not take the overrides.
  """
  of_size = row.revisited_overrides if is_revisited else ()
  config = configs.load(row.config_path, experiment.STAGES, overrides=[*row.overrides, *of_size, *overrides])
  config.name = row.name
  if max_words and config.codebook.source == codebook_pb2.CodebookConfig.K_MEANS:
    config.codebook.num_words = min(config.codebook.num_words, max_words)
  return config


def needed_files(config: experiment_pb2.ExperimentConfig) -> list[str]:
  """Returns the files that an experiment names and the package does not ship: models, PCA, detectors."""
  places: list[pathlib.Path] = []
  for extraction in (config.extraction, config.verification.extraction, config.fusion.extraction):
    places += registry.model_files(extraction).values()
  if config.regions.source == RegionsConfig.DETECTOR and config.regions.detector.model_path:
    places.append(pathlib.Path(config.regions.detector.model_path))
  # A handle of TensorFlow Hub is not a file.
  needed = (
    place for place in places if ':/' not in str(place) and not place.is_relative_to(registry.PACKAGED_MODELS)
  )
  return list(dict.fromkeys(map(str, needed)))


def missing(
  row: table_pb2.TableRow, config: experiment_pb2.ExperimentConfig, *, has_boxes: bool
) -> tuple[str, ...]:
  """Returns the modules, files and boxes that a row needs and that are missing.

  Args:
    row: of a table.
    config: its experiment.
    has_boxes: whether the data set comes with boxes.
  """
  modules = [f'the Python module {name}' for name in row.modules if importlib.util.find_spec(name) is None]
  paths = [path for path in needed_files(config) if not pathlib.Path(path).exists()]
  takes_boxes = comparison.takes_boxes_file(config.regions) and not config.regions.file_path
  return (*modules, *paths, *([_BOXES] if takes_boxes and not has_boxes else []))


def needs(table: table_pb2.TableConfig, missing_of: Mapping[str, Sequence[str]]) -> list[Need]:
  """Returns everything that is missing, each once.

  Args:
    table: says where to get files.
    missing_of: by the name of a row, the result of `missing`.
  """
  where = {file.path: file.where for file in table.files} | {_BOXES: _NO_BOXES}
  rows: dict[str, list[str]] = {}
  for row, names in missing_of.items():
    for name in names:
      rows.setdefault(name, []).append(row)
  return [Need(what, where.get(what, ''), tuple(names)) for what, names in rows.items()]


def needs_text(found: Iterable[Need]) -> str:
  """Returns the list of missing things for a terminal; '' if nothing is missing."""
  lines = []
  for need in found:
    lines += [f'  {need.what}', f'      for {", ".join(need.rows)}']
    if need.where:
      lines.append(f'      {need.where}')
  return (
    '\n'.join(['Missing; files belong below the folder that the command runs in:', *lines]) if lines else ''
  )


def listing(
  table: table_pb2.TableConfig,
  rows: Sequence[table_pb2.TableRow],
  *,
  is_revisited: bool,
  has_boxes: bool,
  overrides: Sequence[str] = (),
) -> str:
  """Returns a list for a terminal: the rows, whether each would run here, and the missing files.

  Args:
    table: of the rows.
    rows: to list.
    is_revisited: whether the data set is one of Revisited.
    has_boxes: whether the data set comes with boxes.
    overrides: changes of every row's config.

  Raises:
    UserError: the config of a row does not take the overrides.
  """
  missing_of = {
    row.name: missing(
      row, row_config(row, is_revisited=is_revisited, overrides=overrides), has_boxes=has_boxes
    )
    for row in rows
  }
  lines = [(name, f'needs {len(found)}' if found else 'runs') for name, found in missing_of.items()]
  running = sum(not found for found in missing_of.values())
  heading = f'{table.title}: {len(rows)} rows, {running} of them run here'
  parts = [heading, text_table.aligned(lines), needs_text(needs(table, missing_of))]
  return '\n\n'.join(filter(None, parts))
