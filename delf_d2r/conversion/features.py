"""Conversion of `.delf` files of the tensorflow/models DELF code to artefacts of features, and back.

The DELF code has a file for each box, with locations in its crop. An artefact has one record for each image
with all its regions, and locations in the original image (docs/reference.md 1.2, 4.2, 4.3). The offset of a
crop is added in float32: files of whole images, and of queries without a box, are the same bytes after both
conversions, while locations in crops agree to 1e-4 pixels.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from delf_d2r import config as configs
from delf_d2r.conversion import foreign_files
from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, feature_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.shard_ledger import ShardWriter
from delf_d2r.data.legacy import box_files, delf_files, mapping_files
from delf_d2r.data.legacy.mapping_files import MappedImage
from delf_d2r.data.photos import images
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.errors import ImageError, PhotoUnavailableError, UserError
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.protos import experiment_pb2, regions_pb2
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.runtime import progress
from delf_d2r.structures import WHOLE_IMAGE, Boxes, ImageFeatures, LocalFeatures

MAPPING = 'index_mapping.csv'
_WHOLE = np.array([WHOLE_IMAGE], np.float32)


@dataclasses.dataclass(frozen=True)
class _Job:
  """One image to convert.

  Attributes:
    name: of the image.
    photo: its photo.
    boxes: boxes of the regions float32 [R, 4] from height and width of the photo.
    files: the file of each region; empty if there are none.
  """

  name: str
  photo: pathlib.Path
  boxes: Callable[[int, int], np.ndarray]
  files: tuple[pathlib.Path, ...]


def read(
  source: pathlib.Path,
  dataset: Dataset,
  config: experiment_pb2.ExperimentConfig,
  output: pathlib.Path,
  *,
  mapping: pathlib.Path | None = None,
  boxes: pathlib.Path | None = None,
  redo: bool = False,
) -> Artefact:
  """Converts features of index images, and returns the artefact.

  Photos that have no file or cannot be read are named in `errors.jsonl` and are not in the artefact.

  Args:
    source: folder of `.delf` files.
    dataset: the photos.
    config: its part `extraction` describes the features.
    output: the artefact directory.
    mapping: the CSV file with the names of each image's files; None: only whole images are read.
    boxes: folder of the `.boxes` files with the boxes of the crops in `mapping`; None: `source`.
    redo: whether to replace the artefact of other files.

  Raises:
    UserError: a file is missing, damaged or of other dimensions than the first, an image has fewer boxes
      than crops, there are no features at all, or the output cannot be written.
  """
  found = foreign_files.find(source, delf_files.EXTENSION)
  mapped = [MappedImage(name) for name in found] if mapping is None else _read_mapping(mapping, found, source)
  photos = dataset.images
  place = str(mapping or source)
  image_of = foreign_files.of_images({image.whole: image for image in mapped}, photos.names, source=place)
  if len(image_of) < len(mapped):
    left = len(mapped) - len(image_of)
    logging.warning('%s: %d of its %d images are not among the photos', place, left, len(mapped))
  merged = experiment_pb2.ExperimentConfig(extraction=config.extraction)
  inputs = [photos.as_input(), _as_input('delf_files', source)]
  if mapping is not None:
    merged.regions.CopyFrom(configs.default('regions').regions)
    merged.regions.source = regions_pb2.RegionsConfig.FILE
    inputs.append(_as_input('mapping', mapping))
  if boxes is not None:
    inputs.append(_as_input('boxes_files', boxes))
  num_crops = {name: len(image.boxes) for name, image in image_of.items() if image.boxes}
  boxes_of = _best_boxes(boxes or source, num_crops) if num_crops else {}
  jobs = []
  for name in photos.names:
    own = image_of.get(name)
    regions = np.concatenate([_WHOLE, boxes_of.get(name, _WHOLE[:0])])
    parts = (own.whole, *own.boxes) if own else ()
    jobs.append(
      _Job(name, photos.path(name), lambda *_, regions=regions: regions, tuple(found[part] for part in parts))
    )
  return _write_artefact(jobs, source, Plan('features', merged, tuple(inputs)), output, redo=redo)


def read_queries(
  source: pathlib.Path,
  queries: Queries,
  config: experiment_pb2.ExperimentConfig,
  output: pathlib.Path,
  *,
  redo: bool = False,
) -> Artefact:
  """Converts features of queries, and returns the artefact; `<query>.delf` has those of the query's box.

  Arguments and errors are those of `read`.
  """
  found = foreign_files.find(source, delf_files.EXTENSION)
  names = [query.name for query in queries.ground_truth.queries]
  file_of = foreign_files.of_images(found, names, source=str(source))
  jobs = [
    _Job(
      query.name,
      queries.images.path(photo),
      lambda *size, query=query: np.array([query.box_for(*size) or WHOLE_IMAGE], np.float32),
      (file_of[query.name],) if query.name in file_of else (),
    )
    for query, photo in queries.items()
  ]
  merged = experiment_pb2.ExperimentConfig(extraction=config.extraction)
  plan = Plan('features', merged, (queries.as_input(), _as_input('delf_files', source)))
  return _write_artefact(jobs, source, plan, output, redo=redo)


def _as_input(role: str, path: pathlib.Path) -> Input:
  return Input(role, files.fingerprint(path), path.resolve())


def _read_mapping(
  path: pathlib.Path, found: Mapping[str, pathlib.Path], source: pathlib.Path
) -> list[MappedImage]:
  mapped = mapping_files.read(path)
  missing = [name for image in mapped for name in (image.whole, *image.boxes) if name not in found]
  if missing:
    raise UserError(
      f'{path}: names {len(missing)} files that are not in {source}, such as'
      f' {missing[0]}{delf_files.EXTENSION}'
    )
  return mapped


def _best_boxes(folder: pathlib.Path, num_crops: Mapping[str, int]) -> dict[str, np.ndarray]:
  """Returns for each image the float32 [n, 4] boxes of the n best scores, in the order of the file.

  The DELF code keeps the boxes above a threshold that is in none of its files; the number of crops gives the
  same boxes.
  """
  boxes_of = box_files.read_directory(folder, list(num_crops))
  best = {}
  for name, count in num_crops.items():
    boxes = boxes_of.get(name, Boxes.empty())
    if len(boxes) < count:
      raise UserError(f'{folder}: {name} has {len(boxes)} boxes, but {count} crops were extracted of it')
    chosen = np.sort(np.argsort(-boxes.scores, kind='stable')[:count])
    best[name] = boxes.coordinates[chosen]
  return best


def _write_artefact(
  jobs: Sequence[_Job], source: pathlib.Path, plan: Plan, output: pathlib.Path, *, redo: bool
) -> Artefact:
  extraction = plan.config.extraction
  dimensions = _dimensions(jobs, source)
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      logging.info('features: %s is up to date, skipped', output)
      return Artefact.open(output, 'features')
    shards = list(writer.ledger.missing(len(jobs), extraction.images_per_shard))
    done = len(jobs) - sum(len(shard.items) for shard in shards)
    with progress.bar(total=len(jobs), what='features', unit='images', done=done) as bar:
      for shard in shards:
        with writer.ledger.write(shard) as file:
          for item in shard.items:
            _add(jobs[item], file, extraction, dimensions, source)
            bar.update()
    artefact = writer.finish()
  counts = artefact.counts
  logging.info(
    'features: %d features of %d images; %d photos cannot be read or have no file',
    counts['features'],
    counts['images'],
    counts['failed'],
  )
  return artefact


def _add(
  job: _Job, file: ShardWriter, extraction: ExtractionConfig, dimensions: int, source: pathlib.Path
) -> None:
  if not job.files:
    file.add_error(job.name, f'{source}: no {delf_files.EXTENSION} file of {job.name!r}')
    return
  try:
    size = images.image_size(job.photo, apply_exif_orientation=extraction.apply_exif_orientation)
  except PhotoUnavailableError:
    raise
  except ImageError as error:
    file.add_error(job.name, str(error))
    return
  feature_files.add(file, _read_image(job, size, dimensions))


def _dimensions(jobs: Sequence[_Job], source: pathlib.Path) -> int:
  """Returns D of the first file that has features."""
  for job in jobs:
    for path in job.files:
      if path.stat().st_size:
        return delf_files.read(path).dimensions
  raise UserError(f'{source}: no features in any of its files')


def _read_image(job: _Job, size: tuple[int, int], dimensions: int) -> ImageFeatures:
  boxes = job.boxes(*size)
  parts = []
  for path, box in zip(job.files, boxes, strict=True):
    features = delf_files.read(path)
    if not len(features):
      features = LocalFeatures.empty(dimensions)
    if features.dimensions != dimensions:
      raise UserError(f'{path}: has {features.dimensions} dimensions, the first file {dimensions}')
    parts.append(dataclasses.replace(features, locations=features.locations + _crop_origin(box, *size)))
  offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
  return ImageFeatures(job.name, *size, boxes.clip(0, 1), offsets, LocalFeatures.concatenate(parts))


def _crop_origin(box: np.ndarray, height: int, width: int) -> np.ndarray:
  """Returns the corner float32 [2] of the crop of a box, `(y, x)` in pixels of the original image."""
  rows, columns = box_geometry.crop_slices(box, height, width)
  return np.array([rows.start, columns.start], np.float32)


def write(features: Artefact, output: pathlib.Path, *, redo: bool = False) -> int:
  """Writes `<image>.delf` and, for box b, `<image>_<b>.delf`; for index images also `.csv` and `.boxes`.

  Args:
    features: artefact of extract_features. `<query>.delf` has the features of the query's box.
    output: a folder.
    redo: whether to replace files of other contents.

  Returns:
    The number of `.delf` files.

  Raises:
    UserError: the names of two images differ only in the extension, in which case nothing is written, or
      there is a file of other contents.
  """
  writer = foreign_files.Writer(output, _image_parts(features), redo=redo)
  mapped = []
  for image in progress.track(
    feature_files.read(features), total=features.counts['images'], what='.delf files', unit='images'
  ):
    names = []
    for r, box in enumerate(image.boxes):
      own = image.region(r)
      moved = dataclasses.replace(own, locations=own.locations - _crop_origin(box, image.height, image.width))
      data = delf_files.encode(moved)
      names.append(writer.add(image.name, delf_files.EXTENSION, data, part=_part(r)))
    mapped.append(MappedImage(names[0], tuple(names[1:])))
    if len(names) > 1:
      boxes = Boxes.from_coordinates(image.boxes[1:])
      writer.add(image.name, box_files.EXTENSION, box_files.encode(boxes))
  if features.input('queries') is None:
    foreign_files.put(output / MAPPING, mapping_files.encode(mapped), redo=redo)
  return sum(1 + len(image.boxes) for image in mapped)


def _image_parts(features: Artefact) -> Iterator[tuple[str, list[str]]]:
  """Yields the images and their parts, see foreign_files.Writer."""
  for record in map(records.Record, features.records()):
    yield record.name, [_part(r) for r in range(len(record.array('boxes', 2, 'float32')))]


def _part(region: int) -> str:
  return f'_{region - 1}' if region else ''
