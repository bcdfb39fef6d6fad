"""detect_boxes: photos to the boxes of every index image, from a detector or another source.

The sources: a detector, a uniform grid, a file, random places with the sizes of other boxes, or no boxes at
all. The limits of the config hold for the boxes of each.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging

from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, records
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.artefact_writer import ERRORS, ArtefactWriter
from delf_d2r.data.artefacts.read_photos import ReadPhoto
from delf_d2r.data.boxes import stored_boxes
from delf_d2r.data.photos import images
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import ImageError, PhotoUnavailableError, UserError
from delf_d2r.extractors import photo_boxes
from delf_d2r.extractors.photo_boxes import BoxDetector, limits
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.protos import experiment_pb2, regions_pb2
from delf_d2r.runtime.worker_pool import WorkerFactory, Workers
from delf_d2r.stages.shared import photo_reading, sharded
from delf_d2r.stages.shared.sharded import JobBatch, Options
from delf_d2r.structures import Boxes

Regions = regions_pb2.RegionsConfig

# The counts of the manifest divide numbers of boxes, and scores, into ten classes; the last one is open.
_CLASSES = 10

# TensorFlow, which takes seconds to import.
NETWORK_MODULES = ('delf_d2r.models.saved_models.detections',)


def run(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  output: pathlib.Path,
  *,
  boxes_path: str | pathlib.Path | None = None,
  workers: Workers = None,
  strict: bool = False,
  redo: bool = False,
) -> Artefact:
  """Writes the boxes of every index image.

  A photo that must be decoded for the detector but cannot be is named in `errors.jsonl` and left out of the
  artefact. The other sources do not open the photos.

  Args:
    config: its part `regions` says where boxes come from.
    dataset: the photos.
    output: the artefact directory.
    boxes_path: takes the place of `regions.file_path` or `regions.random.like`.
    workers: processes of the detector (None: one for each core), or those of a cluster.
    strict: stop at the first photo that cannot be decoded.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

  Raises:
    UserError: the boxes' file or the detector is missing or wrong, the limits of the config leave no box on
      any photo, no photo could be decoded, or the output cannot be written.
    ImageError: with `strict`, for the first photo that cannot be decoded.
  """
  regions = config.regions
  photos = dataset.images
  source = build_source(regions, photos, boxes_path=boxes_path)
  plan = Plan('boxes', experiment_pb2.ExperimentConfig(regions=regions), (photos.as_input(), *source.inputs))
  files_read = None
  if source.decodes_photos:
    files_read = photo_reading.files_of(
      photos,
      ImageList.as_input,
      apply_exif_orientation=regions.detector.apply_exif_orientation,
      max_megapixels=regions.detector.max_megapixels,
      strict=strict,
    )
  with artefact_writer.writing(output, plan, redo=redo, photos=files_read) as writer:
    if writer.finished:
      return writer.reuse('boxes')
    batch = JobBatch(
      jobs=sharded.Repeatable(lambda: (Photo(name, photos.path(name)) for name in photos.names)),
      total=len(photos),
      make_function=source.make_function,
      lost=lambda photo, reason: DetectedBoxes(
        photo.name, errors=(f'{photo.path}: {reason}',), photo=photo_reading.lost(photo.path)
      ),
      at_once=source.photos_at_once,
      uses_network=source.uses_network,
      preload=NETWORK_MODULES if source.uses_network else (),
    )
    remarks = _Remarks()
    sharded.write_records(
      writer,
      batch,
      what='boxes',
      per_shard=source.images_per_shard,
      options=Options(workers if source.uses_network else 1, strict=strict),
      observe=remarks.add,
    )
    sharded.require_some(writer, 'index images')
    _require_boxes(writer, regions, remarks)
    artefact = writer.finish()
  _log_counts(artefact, remarks)
  return artefact


@dataclasses.dataclass(frozen=True)
class Photo:
  """An index image: its name and where it is."""

  name: str
  path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class DetectedBoxes:
  """The boxes of one photo, or the reason why there are none: a `sharded.Result`.

  Attributes:
    name: of the photo.
    boxes: those within the limits of the config, best first.
    candidates: how many there were before the limits.
    best_score: of the candidates.
    errors: why the photo could not be decoded; empty if it could.
    note: a remark for the user in case no photo has any box.
    photo: the photo as it was read, if it was.
    is_truncated: whether the end of its file is missing.
  """

  name: str
  boxes: Boxes = dataclasses.field(default_factory=Boxes.empty)
  candidates: int = 0
  best_score: float = -np.inf
  errors: tuple[str, ...] = ()
  note: str = ''
  photo: ReadPhoto | None = None
  is_truncated: bool = False

  @property
  def record(self) -> bytes:
    """The record of the photo; b'' if it could not be decoded."""
    return b'' if self.errors else records.encode_boxes(self.name, self.boxes)

  @property
  def counts(self) -> Mapping[str, int]:
    """Its share of the counts of the artefact, among them a class for the score of each box."""
    if self.errors:
      return {}
    number = len(self.boxes)
    counts = Counter(images=1, boxes=number, candidates=self.candidates, without_boxes=int(not number))
    if number:
      more = '_or_more' if number >= _CLASSES else ''
      counts[f'images_with_{min(number, _CLASSES):02d}{more}_boxes'] = 1
    if self.is_truncated:
      counts[sharded.TRUNCATED] = 1
    tenths = (self.boxes.scores.clip(0, 1) * _CLASSES).astype(int).clip(max=_CLASSES - 1).tolist()
    counts.update(f'scores_from_0.{tenth}' for tenth in tenths)
    return counts


class _Remarks:
  """Remarks on the photos of this run on which the limits leave no box; a resumed run lacks the earlier ones.

  Attributes:
    best: the photo without boxes that had the best one before the limits.
    note: the first note of a photo; see DetectedBoxes.
  """

  def __init__(self) -> None:
    self.best: DetectedBoxes | None = None
    self.note = ''

  def add(self, found: DetectedBoxes) -> None:
    self.note = self.note or found.note
    lost = found.candidates and not len(found.boxes)
    if lost and (self.best is None or found.best_score > self.best.best_score):
      self.best = found

  def best_text(self) -> str:
    if self.best is None:
      return ''
    return f'the best box there scores {self.best.best_score:.4g} ({self.best.name})'


def _require_boxes(writer: ArtefactWriter, regions: Regions, remarks: _Remarks) -> None:
  """Raises UserError, and removes what was written, if the config removed every single box."""
  counts = writer.ledger.counts
  if counts['boxes'] or not (counts['candidates'] or remarks.note):
    return
  why = remarks.note or (
    f'the limits of regions ({_limits_text(regions)}) leave none of the {counts["candidates"]} boxes on'
    f' {counts["images"]} photos; {remarks.best_text() or "their scores are not known any more"}. Lower the'
    ' limits'
  )
  writer.discard()
  raise UserError(f'no boxes at all: {why}')


def _limits_text(regions: Regions) -> str:
  limits = f'min_score {regions.min_score:g}, min_area {regions.min_area:g}'
  return limits + (f', max_area {regions.max_area:g}' if regions.HasField('max_area') else '')


def _log_counts(artefact: Artefact, remarks: _Remarks) -> None:
  counts = artefact.counts
  logging.info(
    'boxes: %d of %d on %d photos, %d photos without any; %d could not be read',
    *(counts.get(name, 0) for name in ('boxes', 'candidates', 'images', 'without_boxes', 'failed')),
  )
  if counts['without_boxes'] and remarks.best:
    limits = _limits_text(artefact.config.regions)
    logging.info('boxes: where the limits of regions (%s) leave none, %s', limits, remarks.best_text())
  if counts['failed']:
    logging.warning('%d photos could not be read: %s', counts['failed'], artefact.path / ERRORS)
  source = artefact.config.regions.source
  if not counts['boxes'] and source == Regions.DETECTOR:
    logging.warning('boxes: the detector finds nothing on any of the %d photos', counts['images'])


@dataclasses.dataclass(frozen=True)
class BoxSource:
  """Where boxes come from.

  Attributes:
    make_function: makes the function from photos to their boxes; picklable if the source uses a network.
    inputs: the inputs of the boxes beside config and photos.
    images_per_shard: records in one shard.
    photos_at_once: the most photos to give to the function at a time.
    uses_network: whether a network finds the boxes, so that worker processes pay.
    decodes_photos: whether the photos are decoded.
  """

  make_function: WorkerFactory[Photo, DetectedBoxes]
  inputs: tuple[Input, ...]
  images_per_shard: int
  photos_at_once: int = 1
  uses_network: bool = False
  decodes_photos: bool = False


def build_source(
  regions: Regions, photos: ImageList, *, boxes_path: str | pathlib.Path | None = None
) -> BoxSource:
  """Returns the source that a config asks for. Imports only what that one needs.

  Args:
    regions: the config.
    photos: the index images.
    boxes_path: takes the place of `regions.file_path` or `regions.random.like`.

  Raises:
    UserError: the boxes' file is missing or wrong, or is given but not asked for.
  """
  path = _boxes_path(regions, boxes_path)
  if regions.source == Regions.DETECTOR:
    place = pathlib.Path(photo_boxes.model_path(regions.detector))
    return BoxSource(
      functools.partial(_make_detection, regions),
      (Input('detector', files.fingerprint(place), place),),
      regions.detector.images_per_shard,
      photos_at_once=regions.detector.batch_size,
      uses_network=True,
      decodes_photos=True,
    )
  stored = stored_boxes.read(path, photos.names) if path else {}
  if path:
    _require_pixels(path, stored, photos)
  inputs = (Input('boxes_file', stored_boxes.fingerprint(path), path.resolve()),) if path else ()
  find = _finder(regions, stored)
  return BoxSource(
    lambda: lambda some: [find(photo.name) for photo in some], inputs, regions.images_per_shard
  )


# Boxes with smaller sides are compared with the size of their photo.
_SMALL_SIDE = 0.02


def _require_pixels(path: pathlib.Path, stored: Mapping[str, Boxes], photos: ImageList) -> None:
  """Raises UserError if boxes of a file cover less than a pixel of their photo, which has no features."""
  specks = 0
  example = ''
  for name, boxes in stored.items():
    sides = boxes.coordinates[:, 2:] - boxes.coordinates[:, :2]
    if not np.any(sides < _SMALL_SIDE):
      continue
    try:
      size = images.image_size(photos.path(name))
    except ImageError:
      continue  # Extraction reports the photo.
    small = int(np.any(sides * size < 0.999, axis=1).sum())
    if small and not specks:
      example = f'{name}, which is {size[1]} x {size[0]}'
    specks += small
  if specks:
    raise UserError(
      f'{path}: {specks} boxes cover less than a pixel of their photo, for example of {example}; are their'
      ' coordinates normalised twice? Correct or remove them'
    )


def _boxes_path(regions: Regions, flag: str | pathlib.Path | None) -> pathlib.Path | None:
  fields = {
    Regions.FILE: ('regions.file_path', regions.file_path),
    Regions.RANDOM: ('regions.random.like', regions.random.like),
  }
  source = Regions.Source.Name(regions.source)
  if regions.source not in fields:
    if flag:
      raise UserError(
        f'--boxes_file is given but regions.source is {source}; set it to FILE, or drop the flag'
      )
    return None
  field, value = fields[regions.source]
  if not (flag or value):
    raise UserError(f'regions.source is {source} but there is no file: give --boxes_file or {field}')
  return pathlib.Path(flag or value)


def _within_limits(name: str, candidates: Boxes, regions: Regions, *, note: str = '') -> DetectedBoxes:
  """Applies the limits of the config to the boxes of one photo."""
  boxes = box_geometry.select(candidates, **limits(regions))
  best = float(np.max(candidates.scores, initial=-np.inf))
  return DetectedBoxes(name, boxes, len(candidates), best, note=note)


def _finder(regions: Regions, stored: Mapping[str, Boxes]) -> Callable[[str], DetectedBoxes]:
  """Returns the function from the name of a photo to its boxes, for sources that do not open the photo.

  Args:
    regions: the config.
    stored: the boxes of a file by name; {} for sources without a file.
  """
  if regions.source == Regions.RANDOM:
    return functools.partial(_place_randomly, regions, stored)
  if regions.source == Regions.UNIFORM:
    grid = photo_boxes.uniform_grid(regions)
    return lambda name: _within_limits(name, grid, regions)
  return lambda name: _within_limits(name, stored.get(name, Boxes.empty()), regions)


def _place_randomly(regions: Regions, imitated: Mapping[str, Boxes], name: str) -> DetectedBoxes:
  # The limits come first, so that number and sizes are those of the boxes that the imitated source gives.
  found = _within_limits(name, imitated.get(name, Boxes.empty()), regions)
  digest = hashlib.sha256(f'{regions.random.seed}\0{name}'.encode()).digest()
  generator = np.random.default_rng(int.from_bytes(digest[:8], 'little'))
  return dataclasses.replace(found, boxes=box_geometry.random_placement(found.boxes, generator))


def _make_detection(regions: Regions) -> Callable[[Sequence[Photo]], list[DetectedBoxes]]:
  """Loads the detector of a config and returns the function of a worker."""
  return functools.partial(_detect, photo_boxes.load_detector(regions.detector), regions)


def _detect(detector: BoxDetector, regions: Regions, photos: Sequence[Photo]) -> list[DetectedBoxes]:
  """Returns the boxes of each photo; all photos go to the detector at once."""
  decoded: dict[str, np.ndarray] = {}
  read: dict[str, images.Photo] = {}
  failed: dict[str, str] = {}
  for photo in photos:
    try:
      found = images.read_photo(
        photo.path,
        apply_exif_orientation=regions.detector.apply_exif_orientation,
        max_megapixels=regions.detector.max_megapixels,
      )
    except PhotoUnavailableError:
      raise
    except ImageError as error:
      failed[photo.name] = str(error)
    else:
      decoded[photo.name] = detector.reduce(found.pixels)
      # The pixels of a batch of large photos would take much memory.
      read[photo.name] = dataclasses.replace(found, pixels=np.zeros((0, 0, 3), np.uint8))
  boxes = dict(zip(decoded, detector.batch(list(decoded.values())), strict=True))
  for photo in photos:
    try:
      photo_boxes.require_finite(boxes.get(photo.name, Boxes.empty()), str(photo.path))
    except ImageError as error:
      failed[photo.name] = str(error)
  return [
    _result(photo.name, read.get(photo.name), failed.get(photo.name, ''), boxes, detector, regions)
    for photo in photos
  ]


def _result(
  name: str,
  photo: images.Photo | None,
  error: str,
  boxes: Mapping[str, Boxes],
  detector: BoxDetector,
  regions: Regions,
) -> DetectedBoxes:
  """Returns the result of one photo; `photo` is None if it could not be decoded."""
  if photo is None:
    return DetectedBoxes(name, errors=(error,), photo=photo_reading.FAILED)
  if error:
    return DetectedBoxes(name, errors=(error,), photo=photo_reading.unusable(photo))
  return dataclasses.replace(
    _within_limits(name, boxes[name], regions, note=detector.note),
    photo=photo_reading.used(photo),
    is_truncated=photo.is_truncated,
  )
