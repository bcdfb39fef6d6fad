"""Where boxes come from: none, a uniform grid, a file, a detector, or random places, behind one contract."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import Input
from delf_d2r.data.boxes import stored_boxes
from delf_d2r.data.photos import images
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import ImageError, UserError
from delf_d2r.extractors import photo_boxes
from delf_d2r.extractors.photo_boxes import BoxDetector, limits
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.protos import regions_pb2
from delf_d2r.structures import Boxes

Regions = regions_pb2.RegionsConfig


@dataclasses.dataclass(frozen=True)
class Photo:
  """An index image: its name and where it is."""

  name: str
  path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Found:
  """The boxes of one photo, or the reason why there are none.

  Attributes:
    name: the photo's.
    boxes: those that the config's limits leave, best first.
    candidates: how many there were before the limits.
    best_score: of the candidates.
    error: why the photo could not be decoded.
    note: what to tell the user if no photo has any box.
  """

  name: str
  boxes: Boxes = dataclasses.field(default_factory=Boxes.empty)
  candidates: int = 0
  best_score: float = -np.inf
  error: str = ''
  note: str = ''


@dataclasses.dataclass(frozen=True)
class BoxSource:
  """Something that has boxes for photos.

  Attributes:
    make: makes the function from neighbouring photos to what is found in each; picklable with `uses_network`.
    inputs: what the boxes depend on beside config and photos.
    images_per_shard: records in one shard.
    photos_at_once: the greatest number of photos to give to the function.
    uses_network: whether worker processes pay.
  """

  make: Callable[[], Callable[[Sequence[Photo]], list[Found]]]
  inputs: tuple[Input, ...]
  images_per_shard: int
  photos_at_once: int = 1
  uses_network: bool = False


def build(regions: Regions, photos: ImageList, *, boxes_path: str | pathlib.Path | None = None) -> BoxSource:
  """The source that a config asks for. Imports only what that one needs.

  Args:
    regions: the config.
    photos: the index images.
    boxes_path: takes the place of `regions.file_path` or `regions.random.like`.

  Raises:
    UserError: the boxes' file is missing, wrong or not asked for.
  """
  path = _boxes_path(regions, boxes_path)
  if regions.source == Regions.DETECTOR:
    place = pathlib.Path(photo_boxes.model_path(regions.detector))
    return BoxSource(
      functools.partial(_detecting, regions),
      (Input('detector', files.fingerprint(place), place),),
      regions.detector.images_per_shard,
      photos_at_once=regions.detector.batch_size,
      uses_network=True,
    )
  stored = stored_boxes.read(path, photos.names) if path else {}
  inputs = (Input('boxes_file', stored_boxes.fingerprint(path), path.resolve()),) if path else ()
  find = _by_name(regions, stored)
  return BoxSource(
    lambda: lambda some: [find(photo.name) for photo in some], inputs, regions.images_per_shard
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


def _selected(name: str, candidates: Boxes, regions: Regions, *, note: str = '') -> Found:
  """Applies the limits of the config."""
  boxes = box_geometry.select(candidates, **limits(regions))
  best = float(np.max(candidates.scores, initial=-np.inf))
  return Found(name, boxes, len(candidates), best, note=note)


def _by_name(regions: Regions, stored: Mapping[str, Boxes]) -> Callable[[str], Found]:
  """Finds the boxes that need no look at the photo; without a file `stored` is empty."""
  if regions.source == Regions.RANDOM:
    return functools.partial(_random, regions, stored)
  if regions.source == Regions.UNIFORM:
    grid = photo_boxes.uniform_grid(regions)
    return lambda name: _selected(name, grid, regions)
  return lambda name: _selected(name, stored.get(name, Boxes.empty()), regions)


def _random(regions: Regions, imitated: Mapping[str, Boxes], name: str) -> Found:
  # The limits come first, so that number and sizes are those of the boxes that the imitated source gives.
  found = _selected(name, imitated.get(name, Boxes.empty()), regions)
  digest = hashlib.sha256(f'{regions.random.seed}\0{name}'.encode()).digest()
  generator = np.random.default_rng(int.from_bytes(digest[:8], 'little'))
  return dataclasses.replace(found, boxes=box_geometry.scattered(found.boxes, generator))


def _detecting(regions: Regions) -> Callable[[Sequence[Photo]], list[Found]]:
  detector = photo_boxes.load_detector(regions.detector)
  return lambda photos: _detect(detector, regions, photos)


def _detect(detector: BoxDetector, regions: Regions, photos: Sequence[Photo]) -> list[Found]:
  decoded: dict[str, np.ndarray] = {}
  failed: dict[str, str] = {}
  for photo in photos:
    try:
      pixels = images.load_image(
        photo.path,
        apply_exif_orientation=regions.detector.apply_exif_orientation,
        max_megapixels=regions.detector.max_megapixels,
      )
    except ImageError as error:
      failed[photo.name] = str(error)
    else:
      decoded[photo.name] = detector.reduce(pixels)
  boxes = dict(zip(decoded, detector.batch(list(decoded.values())), strict=True))
  return [
    Found(photo.name, error=failed[photo.name])
    if photo.name in failed
    else _selected(photo.name, boxes[photo.name], regions, note=detector.note)
    for photo in photos
  ]
