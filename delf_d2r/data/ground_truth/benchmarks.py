"""Data sets with ground truth under one form: Revisited Oxford and Paris, the mini benchmark, any folder.

A folder holds photos, subfolders included, and `ground_truth.json` of the form of `ground_truth.py`; if there
are any, `boxes.csv` of the form of `boxes_file.py`.
"""

import dataclasses
import pathlib
from collections.abc import Callable

from delf_d2r.data.ground_truth.revisited_folders import FOLDERS
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.errors import UserError

REVISITED = tuple(name for name, folder in FOLDERS.items() if folder.has_ground_truth)
NAMES = (*REVISITED, 'mini', 'folder')
_OTHER = dict(zip(REVISITED, reversed(REVISITED), strict=True))
_GROUND_TRUTH = 'ground_truth.json'
_BOXES = 'boxes.csv'


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """Where the parts of a data set lie.

  Attributes:
    name: one of NAMES.
    images: folder of the index images.
    ground_truth: file of the queries; None for photos alone.
    query_images: folder of the query images; None: the same as `images`.
    boxes: file of the true boxes; None where there are none.
    codebook: whose index images codebooks are trained on; None: its own.
  """

  name: str
  images: pathlib.Path
  ground_truth: pathlib.Path | None = None
  query_images: pathlib.Path | None = None
  boxes: pathlib.Path | None = None
  codebook: 'Benchmark | None' = None

  @property
  def is_revisited(self) -> bool:
    return self.name in REVISITED

  def dataset(self) -> Dataset:
    """The photos and queries; UserError if any are missing."""
    return Dataset.load(self.images, ground_truth=self.ground_truth, query_images=self.query_images)


def locate(
  name: str,
  root: str | pathlib.Path,
  *,
  ground_truth: str | pathlib.Path | None = None,
  query_images: str | pathlib.Path | None = None,
  codebook: Benchmark | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
  """Finds a data set on the disk; makes the mini benchmark there unless it is there already.

  Oxford's codebooks are trained on Paris and Paris's on Oxford where both lie in one folder: the protocol of
  the paper.

  Args:
    name: one of NAMES.
    root: its folder; of Revisited's also the one around it.
    ground_truth: takes the place of the file in the folder.
    query_images: folder of the query images; by default the folder itself.
    codebook: takes the place of the photos that codebooks are trained on.
    progress: called with (done, total) while the mini benchmark is made.

  Raises:
    UserError: there is no ground truth, with what to fetch.
  """
  found = _locate(name, pathlib.Path(root), progress)
  given = {
    'ground_truth': ground_truth and pathlib.Path(ground_truth),
    'query_images': query_images and pathlib.Path(query_images),
    'codebook': codebook,
  }
  found = dataclasses.replace(found, **{part: value for part, value in given.items() if value})
  if found.ground_truth is None or not found.ground_truth.is_file():
    raise UserError(
      f'{found.ground_truth}: no ground truth there. Put it there, or give it by --ground_truth'
    )
  return found


def _locate(name: str, root: pathlib.Path, progress: Callable[[int, int], None] | None) -> Benchmark:
  if name == 'mini':
    made = mini_benchmark.generate(root, seed=0, progress=progress)
    return Benchmark(name, made.images_dir, made.ground_truth_path, made.queries_dir, made.boxes_path)
  if name in REVISITED:
    folder = FOLDERS[name].locate(root)
    other = _revisited(_OTHER[name], folder.parent / _OTHER[name])
    return dataclasses.replace(_revisited(name, folder), codebook=other if other.ground_truth else None)
  boxes = root / _BOXES
  return Benchmark(name, root, root / _GROUND_TRUTH, boxes=boxes if boxes.is_file() else None)


def _revisited(name: str, folder: pathlib.Path) -> Benchmark:
  return Benchmark(name, FOLDERS[name].photos(folder), next(iter(FOLDERS[name].lists(folder)), None))
