"""datasets: checks whether a downloaded copy of Revisited Oxford, Paris or their distractors is complete."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.ground_truth.ground_truth import GroundTruth
from delf_d2r.data.ground_truth.revisited_folders import RevisitedFolder
from delf_d2r.data.photos import distractor_list, images, name_matching
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import ImageError, UserError
from delf_d2r.runtime import progress, worker_pool

# JPEGs are decoded at an eighth of their size, which reads every byte but makes few pixels.
_REDUCTION = 8
# Names of each kind that are printed; more of them fill a terminal.
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Findings:
  """The contents of a folder compared with those of the data set.

  Attributes:
    listed: photos that the ground truth or the list names, queries included.
    found: photos in the folder.
    missing: names without a photo.
    surplus: photos that are not named; they are left out, which does no harm.
    unreadable: named photos that are empty or cannot be decoded, and why.
    turned: photos that EXIF orientation turns, while their annotations are of the photo as it is stored.
    clipped: queries whose box exceeds the photo by a pixel or more, and is cut off there; many of them show
      that the photos were made smaller.
    problems: everything else that is wrong, one sentence each.
  """

  listed: int
  found: int
  missing: tuple[str, ...]
  surplus: tuple[str, ...]
  unreadable: tuple[str, ...]
  turned: tuple[str, ...]
  clipped: tuple[str, ...]
  problems: tuple[str, ...]

  @property
  def is_whole(self) -> bool:
    """Whether every photo of the data set is there and can be decoded."""
    return not (self.missing or self.unreadable or self.problems)

  def to_text(self, name: str) -> str:
    """Returns the findings for a terminal, with the first names of each kind.

    Args:
      name: the name of the data set.
    """
    lines = [f'{name}: {self.listed:,} photos are named, {self.found:,} are there']
    lines += [f'problem: {problem}' for problem in self.problems]
    for what, names in (
      ('missing', self.missing),
      ('unreadable', self.unreadable),
      ('surplus, left out', self.surplus),
      ('with a query box that reaches beyond the photo (were photos made smaller?)', self.clipped),
      ('turned by EXIF (annotated as stored: set extraction.apply_exif_orientation: false)', self.turned),
    ):
      if names:
        lines += [f'{len(names):,} {what}:', *(f'  {name}' for name in names[:_SHOWN])]
      if len(names) > _SHOWN:
        lines.append(f'  and {len(names) - _SHOWN:,} more (--json=FILE has all)')
    return '\n'.join([*lines, 'whole' if self.is_whole else 'NOT whole'])


def check(expected: RevisitedFolder, root: str | pathlib.Path, *, workers: int | None = None) -> Findings:
  """Compares a folder with the data set that it should be, and decodes every photo of it.

  Args:
    expected: the data set.
    root: its folder, or the folder around it.
    workers: processes; None: one for each core.

  Raises:
    UserError: there is no ground truth or list, it cannot be read, or there are no photos.
  """
  folder = expected.locate(root)
  lists = expected.lists(folder)
  photos = ImageList.from_folder(expected.photos(folder))
  truth: GroundTruth | None = None
  problems: list[str] = []
  clipped: list[str] = []
  names: Sequence[str]
  if expected.has_ground_truth:
    truth = ground_truth.load(lists[0])
    names = [*truth.index_images, *dict.fromkeys(query.image for query in truth.queries)]
    problems = [*_count_problems(expected, truth, lists[0]), *_differences(truth, lists)]
  else:
    names = distractor_list.read_list(lists[0])
  positions = name_matching.match_those_present(names, photos.names, source=str(lists[0]))
  used = [photos.names[position] for position in sorted(set(positions.values()))]
  inspected = dict(zip(used, _inspect([photos.path(name) for name in used], workers), strict=True))
  if truth:
    outside, clipped = _check_boxes(truth, {n: inspected[photos.names[i]] for n, i in positions.items()})
    problems += outside
  return Findings(
    listed=len(names),
    found=len(photos),
    missing=tuple(name for name in names if name not in positions),
    surplus=tuple(sorted(set(photos.names) - set(used))),
    unreadable=tuple(f'{name}: {photo.error}' for name, photo in inspected.items() if photo.error),
    turned=tuple(name for name, photo in inspected.items() if photo.is_turned),
    clipped=tuple(clipped),
    problems=tuple(problems),
  )


@dataclasses.dataclass(frozen=True)
class _Photo:
  """The size of a photo as it is stored, or why it cannot be decoded."""

  height: int = 0
  width: int = 0
  is_turned: bool = False
  error: str = ''


def _inspect(paths: Sequence[pathlib.Path], workers: int | None) -> list[_Photo]:
  workers = min(workers or worker_pool.default_workers(uses_network=False), max(len(paths), 1))
  found = worker_pool.map_ordered(_inspector, paths, workers=workers)
  return list(progress.track(found, total=len(paths), what='check', unit='photos'))


def _inspector() -> Callable[[pathlib.Path], _Photo]:
  return _inspect_one


def _inspect_one(path: pathlib.Path) -> _Photo:
  try:
    with images.open_image(path, name=path.name) as image:
      width, height = images.stored_size(image)
      is_turned = images.exif_orientation(image) != 1
      image.draft('L', (max(width // _REDUCTION, 1), max(height // _REDUCTION, 1)))
      image.load()
  except ImageError as error:
    return _Photo(error=str(error).removeprefix(f'{path.name}: '))
  return _Photo(height, width, is_turned)


def _count_problems(expected: RevisitedFolder, truth: GroundTruth, path: pathlib.Path) -> list[str]:
  counts = (
    ('index images', expected.num_images, len(truth.index_images)),
    ('queries', expected.num_queries, len(truth.queries)),
  )
  return [
    f'{path}: expected {wanted} {what}, found {found}. Fetch it again'
    for what, wanted, found in counts
    if wanted != found
  ]


def _differences(truth: GroundTruth, lists: Sequence[pathlib.Path]) -> list[str]:
  return [
    f'{other} and {lists[0]} are not the same ground truth. Fetch both again, or remove one'
    for other in lists[1:]
    if ground_truth.load(other) != truth
  ]


def _check_boxes(truth: GroundTruth, photos: dict[str, _Photo]) -> tuple[list[str], list[str]]:
  """Returns what is wrong with boxes outside of their photo, and the queries whose box is partly outside."""
  problems: list[str] = []
  clipped: list[str] = []
  for query in truth.queries:
    photo = photos.get(query.image)
    if photo is None or photo.error or query.box_pixels is None:
      continue
    try:
      query.box_for(photo.height, photo.width)
    except UserError as error:
      problems.append(str(error))
      continue
    xmin, ymin, xmax, ymax = query.box_pixels
    if min(xmin, ymin) <= -1 or xmax >= photo.width + 1 or ymax >= photo.height + 1:
      clipped.append(query.name)
  return problems, clipped
