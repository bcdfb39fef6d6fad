"""An artefact of features to `.delf` files of the research code, with the CSV file and the boxes beside them.

What a crop adds to a location is rounded to float32: files of whole images, and of queries without a box,
come back byte by byte as they were read, those of crops to 1e-4 pixels.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from delf_d2r.conversion import foreign_files
from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.legacy import box_files, delf_files, mapping_files
from delf_d2r.data.legacy.mapping_files import MappedImage
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.runtime import progress
from delf_d2r.stages import extract_features
from delf_d2r.structures import Boxes

MAPPING = 'index_mapping.csv'


def crop_origin(box: np.ndarray, height: int, width: int) -> np.ndarray:
  """float32 [2]: where the crop of a box begins, `(y, x)` in pixels of the original image."""
  rows, columns = box_geometry.crop_slices(box, height, width)
  return np.array([rows.start, columns.start], np.float32)


def write(features: Artefact, output: pathlib.Path, *, redo: bool = False) -> int:
  """Writes `<image>.delf` and, for box b, `<image>_<b>.delf`; of index images also the CSV file and `.boxes`.

  Args:
    features: what extract_features made. Of queries, `<query>.delf` is of the query's box.
    output: a folder.
    redo: replace files of other contents.

  Returns:
    How many `.delf` files.

  Raises:
    UserError: two images differ in their extension alone, which is said before anything is written, or a file
      of other contents stands there.
  """
  writer = foreign_files.Writer(output, _files(features), redo=redo)
  mapped = []
  for image in progress.track(
    extract_features.read(features), total=features.counts['images'], what='.delf files', unit='images'
  ):
    names = []
    for r, box in enumerate(image.boxes):
      own = image.region(r)
      moved = dataclasses.replace(own, locations=own.locations - crop_origin(box, image.height, image.width))
      data = delf_files.encode(moved)
      names.append(writer.add(image.name, delf_files.EXTENSION, data, part=_part(r)))
    mapped.append(MappedImage(names[0], tuple(names[1:])))
    if len(names) > 1:
      boxes = Boxes.from_coordinates(image.boxes[1:])
      writer.add(image.name, box_files.EXTENSION, box_files.encode(boxes))
  if features.input('queries') is None:
    foreign_files.put(output / MAPPING, mapping_files.encode(mapped), redo=redo)
  return sum(1 + len(image.boxes) for image in mapped)


def _files(features: Artefact) -> Iterator[tuple[str, list[str]]]:
  """The images and their parts, see foreign_files.Writer."""
  for record in map(records.Record, features.records()):
    yield record.name, [_part(r) for r in range(len(record.array('boxes', 2, 'float32')))]


def _part(region: int) -> str:
  return f'_{region - 1}' if region else ''
