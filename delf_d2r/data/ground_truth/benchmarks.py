"""Locates benchmarks: Revisited Oxford and Paris, the mini benchmark, or any folder with ground truth.

Such a folder holds photos, also in subfolders, and `ground_truth.json` in the format of ground_truth.py. It
may hold the true boxes, `boxes.csv`, in the format of data/boxes/csv_file.py.
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
  """The paths of the parts of a data set.

  Attributes:
    name: one of NAMES.
    images: folder of the index images.
    ground_truth: file of the queries; None: photos without queries.
    query_images: folder of the query images; None: the same as `images`.
    boxes: file of the true boxes; None: there are none.
    codebook: the benchmark whose index images codebooks are trained on; None: this one.
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
    """Loads the photos and queries; raises UserError if any are missing."""
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
  """Locates a data set on disk; generates the mini benchmark unless it is there already.

  If Oxford and Paris are in the same folder, the codebook of each is trained on the index images of the
  other, as in the paper.

  Args:
    name: one of NAMES.
    root: folder of the data set; for Oxford and Paris also the folder around it.
    ground_truth: used instead of the file in the folder.
    query_images: folder of the query images; by default the folder itself.
    codebook: benchmark to train codebooks on, instead of the default.
    progress: called with (done, total) while the mini benchmark is generated.

  Raises:
    UserError: there is no ground truth. For published data sets, the message says where to download it.
  """
  found = _locate(name, pathlib.Path(root), progress)
  found = dataclasses.replace(
    found,
    ground_truth=pathlib.Path(ground_truth) if ground_truth else found.ground_truth,
    query_images=pathlib.Path(query_images) if query_images else found.query_images,
    codebook=codebook or found.codebook,
  )
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
