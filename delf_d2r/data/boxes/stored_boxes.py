"""Reads boxes from a CSV file, an artefact or a directory of `.boxes` files."""

import pathlib
from collections.abc import Sequence

from delf_d2r.data import files
from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact
from delf_d2r.data.boxes import csv_file
from delf_d2r.data.legacy import box_files
from delf_d2r.data.photos import name_matching
from delf_d2r.structures import Boxes


def read(path: str | pathlib.Path, image_names: Sequence[str]) -> dict[str, Boxes]:
  """Reads the boxes of the given images; those of other images are skipped.

  Args:
    path: a CSV file (csv_file.py), an artefact of detect_boxes, or a directory of `.boxes` files
      (legacy/box_files.py).
    image_names: M names relative to the folder of photos.

  Returns:
    Boxes by image name, without the images that have no entry.

  Raises:
    UserError: the file or directory is missing or damaged, or contains none of these images.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    return csv_file.read_boxes(path, image_names)
  if not _is_artefact(path):
    return box_files.read_directory(path, image_names)
  stored = dict(map(records.decode_boxes, Artefact.open(path, 'boxes').records()))
  by_image = name_matching.names_by_image(stored, image_names, source=str(path))
  return {image: stored[name] for image, (name, *_) in by_image.items()}


def fingerprint(path: str | pathlib.Path) -> str:
  """Returns a digest of the boxes; equal boxes have equal digests, whenever they were written."""
  path = pathlib.Path(path)
  if not path.is_dir():
    return files.content_fingerprint(path)
  return Artefact.open(path, 'boxes').manifest.fingerprint if _is_artefact(path) else files.fingerprint(path)


def _is_artefact(path: pathlib.Path) -> bool:
  return (path / MANIFEST).is_file()
