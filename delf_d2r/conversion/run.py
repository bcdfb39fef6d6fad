"""Conversions between artefacts and files of other programs, chosen by what the source is."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from absl import logging

from delf_d2r import config as configs
from delf_d2r.conversion import descriptors, features, foreign_files, hloc, single_files
from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, read_manifest
from delf_d2r.data.artefacts.artefact_writer import PARTIAL_MANIFEST
from delf_d2r.data.legacy import box_files, config_files, delf_files
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import UserError
from delf_d2r.protos import experiment_pb2, regions_pb2
from delf_d2r.stages import detect_boxes, evaluate_retrieval

LEGACY, LEGACY_TF1, NPZ, HDF5, PAIRS = FORMS = ('research', 'research_tf1', 'npz', 'hdf5', 'pairs')


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of a conversion; each conversion needs some of them.

  Attributes:
    to: the form that an artefact is converted to, one of FORMS; without effect on other sources.
    images, ground_truth, query_images: the data set, see Dataset.load.
    queries: whether the files are those of the queries.
    config_path, overrides: the config that made the features.
    mapping, boxes: of `.delf` files of boxes, see features.read.
    codebook: directory of the codebook that aggregated the descriptors.
    redo: whether to replace an existing output.
  """

  to: str = LEGACY
  images: str | None = None
  ground_truth: str | None = None
  query_images: str | None = None
  queries: bool = False
  config_path: str | None = None
  overrides: Sequence[str] = ()
  mapping: str | None = None
  boxes: str | None = None
  codebook: str | None = None
  redo: bool = False

  def dataset(self) -> Dataset:
    """Returns the data set; raises UserError without --images."""
    images = self._required('images', 'a folder of photos: names and sizes are not in the files')
    return Dataset.load(images, ground_truth=self.ground_truth, query_images=self.query_images)

  def extraction(self) -> experiment_pb2.ExperimentConfig:
    """Returns the config that made the features; raises UserError without --config_path and --override."""
    if not self.overrides:
      self._required('config_path', 'the delf_config that the features were extracted with')
    return config_files.load_extraction(self.config_path, overrides=self.overrides)

  def codebook_artefact(self) -> Artefact:
    """Returns the codebook; raises UserError without --codebook."""
    path = self._required(
      'codebook', 'the codebook that aggregated them; d2r convert makes it from a checkpoint'
    )
    return Artefact.open(path, 'codebook')

  def _required(self, flag: str, what: str) -> str:
    value: str | None = getattr(self, flag)
    if not value:
      raise UserError(f'this conversion needs --{flag}: {what}')
    return value


def run(source: str | pathlib.Path, output: str | pathlib.Path, options: Options | None = None) -> None:
  """Converts a file, a folder of files or an artefact to its counterpart.

  Args:
    source: an artefact directory, a folder of files of the tensorflow/models DELF code, one such file, or a
      checkpoint.
    output: the artefact directory, folder, file or checkpoint prefix to write.
    options: further options.

  Raises:
    UserError: `source` is of an unknown kind, has no conversion to the wanted form or is damaged, an option
      that it needs is missing, or `output` holds the output of another conversion.
  """
  source, output, options = pathlib.Path(source), pathlib.Path(output), options or Options()
  if (source / MANIFEST).is_file() or (source / PARTIAL_MANIFEST).is_file():
    _from_artefact(source, output, options)
  elif source.is_dir() and not _is_checkpoint(source):
    _from_folder(source, output, options)
  elif _is_checkpoint(source):
    # Imported here because it loads TensorFlow, which no other conversion does.
    from delf_d2r.conversion import codebook

    codebook.read(source, options.extraction(), output, redo=options.redo)
  elif source.is_file():
    with foreign_files.telling_if_up_to_date(output):
      single_files.convert(source, output, redo=options.redo)
  else:
    raise UserError(f'{source}: no such file, folder or checkpoint')


def _is_checkpoint(path: pathlib.Path) -> bool:
  if path.is_dir():
    return next(path.glob('*.index'), None) is not None
  return path.suffix == '.index' or path.with_name(path.name + '.index').is_file()


def _from_folder(source: pathlib.Path, output: pathlib.Path, options: Options) -> None:
  redo = options.redo
  _require_no_artefacts(source)
  if next(source.rglob(f'*{delf_files.EXTENSION}'), None):
    if options.queries:
      _read_queries(source, output, options)
      return
    mapping, boxes = (pathlib.Path(path) if path else None for path in (options.mapping, options.boxes))
    dataset, config = options.dataset(), options.extraction()
    features.read(source, dataset, config, output, mapping=mapping, boxes=boxes, redo=redo)
  elif next(source.rglob(f'*{box_files.EXTENSION}'), None):
    config = configs.default('regions')
    config.regions.source = regions_pb2.RegionsConfig.FILE
    detect_boxes.run(config, options.dataset(), output, boxes_path=source, redo=redo)
  elif descriptors.extensions_in(source):
    descriptors.read(source, options.dataset(), options.codebook_artefact(), output, redo=redo)
  else:
    extension = next((name for name in ('.datum', '.npy') if next(source.rglob(f'*{name}'), None)), None)
    if extension is None:
      raise UserError(
        f'{source}: no artefact, no checkpoint and no .delf, .boxes, .datum, .npy or aggregated files in it'
      )
    with foreign_files.telling_if_up_to_date(output):
      count = single_files.convert_folder(source, extension, output, redo=redo)
    logging.info('%d %s files converted', count, extension)


def _require_no_artefacts(folder: pathlib.Path) -> None:
  """Raises UserError if the folder is a run, whose arrays would be taken for files to convert."""
  kind_of = {path.parent: read_manifest(path).kind for path in sorted(folder.rglob(MANIFEST))}
  if kind_of:
    known = {kind for kind, _ in _OF_ARTEFACTS}
    names = [str(place.relative_to(folder)) for place, kind in kind_of.items() if kind in known]
    raise UserError(
      f'{folder}: a run, of which only one artefact can be converted at a time. Give {folder}/NAME, with NAME'
      f' one of {", ".join(names) or "(none here can be converted)"}'
    )


def _read_queries(source: pathlib.Path, output: pathlib.Path, options: Options) -> None:
  dataset = options.dataset()
  if dataset.queries is None:
    raise UserError('--queries needs --ground_truth, which has the queries and their boxes')
  features.read_queries(source, dataset.queries, options.extraction(), output, redo=options.redo)


def _from_artefact(source: pathlib.Path, output: pathlib.Path, options: Options) -> None:
  kind = read_manifest(source / MANIFEST).kind
  make = _OF_ARTEFACTS.get((kind, options.to))
  if make is None:
    ways = ', '.join(f'--to={to}' for known_kind, to in _OF_ARTEFACTS if known_kind == kind) or 'none'
    raise UserError(f'{source}: holds {kind}, which cannot be converted to {options.to!r}; possible: {ways}')
  with foreign_files.telling_if_up_to_date(output):
    make(Artefact.open(source, kind), output, redo=options.redo)


def _write_boxes(boxes: Artefact, output: pathlib.Path, *, redo: bool) -> None:
  names = (records.Record(data).name for data in boxes.records())
  writer = foreign_files.Writer(output, ((name, ['']) for name in names), redo=redo)
  for name, found in map(records.decode_boxes, boxes.records()):
    writer.add(name, box_files.EXTENSION, box_files.encode(found))


def _write_metrics(metrics: Artefact, output: pathlib.Path, *, redo: bool) -> None:
  foreign_files.put(output, (metrics.path / evaluate_retrieval.METRICS_TXT).read_bytes(), redo=redo)


def _write_checkpoint(
  artefact: Artefact, output: pathlib.Path, *, redo: bool, name_based: bool = False
) -> None:
  from delf_d2r.conversion import codebook

  codebook.write(artefact, output, name_based=name_based, redo=redo)


def _write_tf1_checkpoint(artefact: Artefact, output: pathlib.Path, *, redo: bool) -> None:
  _write_checkpoint(artefact, output, redo=redo, name_based=True)


_OF_ARTEFACTS: dict[tuple[str, str], Callable] = {
  ('features', LEGACY): features.write,
  ('features', NPZ): hloc.write_npz,
  ('features', HDF5): hloc.write_features,
  ('boxes', LEGACY): _write_boxes,
  ('codebook', LEGACY): _write_checkpoint,
  ('codebook', LEGACY_TF1): _write_tf1_checkpoint,
  ('descriptors', LEGACY): descriptors.write,
  ('metrics', LEGACY): _write_metrics,
  ('rankings', HDF5): hloc.write_matches,
  ('rankings', PAIRS): hloc.write_pairs,
}
