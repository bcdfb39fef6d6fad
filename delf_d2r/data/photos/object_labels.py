"""Groups photos that show the same object: by their folders, by a CSV file, or by ground truth."""

import collections
import pathlib
from collections.abc import Sequence

import numpy as np

from delf_d2r.data import csv_rows
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.photos import name_matching
from delf_d2r.errors import UserError


def load(path: str | pathlib.Path | None, image_names: Sequence[str]) -> list[np.ndarray]:
  """Returns the groups of two or more photos of the same object.

  Args:
    path: a CSV file with the header `path,label`; or a file of ground truth, of which each query is a group:
      its photo, if that is among the images, and its easy and hard positives. None: the photos of each folder
      are a group.
    image_names: N names, relative to the folder of photos. The file may name other photos, too.

  Returns:
    int64 arrays of at least two positions in `image_names`, ascending; sorted by label.

  Raises:
    UserError: the file cannot be read, or no two photos show the same object.
  """
  if path is None:
    where = 'the folders of the photos'
    members = _by_folder(image_names)
  else:
    where, path = str(path), pathlib.Path(path)
    labelled = _by_csv(path) if path.suffix.lower() == '.csv' else _by_ground_truth(path)
    positions = name_matching.match_those_present(
      {name for names in labelled.values() for name in names}, image_names, source=where
    )
    members = {
      label: {positions[name] for name in names if name in positions} for label, names in labelled.items()
    }
  groups = [np.array(sorted(found), np.int64) for _, found in sorted(members.items()) if len(found) > 1]
  if not groups:
    raise UserError(
      f'{where}: no two of {len(image_names)} photos show the same object. Give --labels: a CSV file with the'
      ' columns path and label, or ground truth'
    )
  return groups


def _by_folder(image_names: Sequence[str]) -> dict[str, set[int]]:
  members: dict[str, set[int]] = collections.defaultdict(set)
  for position, name in enumerate(image_names):
    folder = name.rpartition('/')[0]
    if folder:
      members[folder].add(position)
  return members


def _by_csv(path: pathlib.Path) -> dict[str, set[str]]:
  labelled: dict[str, set[str]] = collections.defaultdict(set)
  for name, label in csv_rows.read_labels(path):
    labelled[label].add(name)
  return labelled


def _by_ground_truth(path: pathlib.Path) -> dict[str, set[str]]:
  truth = ground_truth.load(path)
  return {query.name: {query.image, *query.easy, *query.hard} for query in truth.queries}
