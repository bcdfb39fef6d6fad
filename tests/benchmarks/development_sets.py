"""The development photos as data sets: index images, queries and ground truth.

The photos are beside the checkout and not part of it. `link_photos` makes a folder of links to them and of
composed scenes, so that every data set is a selection of names in that folder.

landmarks: the `dev` photos; each is a query, leave-one-out, all photos of its landmark are positives.
places: the `dev` photos of other landmarks, leave-one-out in the same way.
dvd_covers: the reference photos are queries, the photos of four phones are the index.
dvd_photos: the photos of the phones are queries, the reference photos are the index.
clutter: the reference photos are queries, the index has a scene for each of them, a photo of a phone that is
  warped and pasted on 20 to 30 % of a facade, and 200 other facades.

The `train` photos of places are no data set: networks and codebooks are trained on them (`place_names`,
`codebook_places`).
"""

import csv
import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from delf_d2r.data.boxes.csv_file import COLUMNS
from delf_d2r.data.ground_truth.ground_truth import GroundTruth, QueryGroundTruth
from delf_d2r.data.photos.images import load_image
from delf_d2r.data.scenes import pasting

DATA = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'data'
PHONES = ('Canon', 'Droid', 'E63', 'Palm')
REFERENCES = tuple(f'Reference/{number:03d}.jpg' for number in range(1, 61))
PHOTOS = tuple(f'{phone}/{number:03d}.jpg' for phone in PHONES for number in range(1, 61))
SCENES = tuple(f'scenes/{number:03d}.jpg' for number in range(1, 61))
# Another seed composes other scenes.
_SEED = 0
_AREA = (0.2, 0.3)
_TILT, _PERSPECTIVE = 10.0, 0.06
_JPEG_QUALITY = 90


def facades(start: int, end: int) -> tuple[str, ...]:
  return tuple(sorted(file.name for file in (DATA / 'facades').iterdir()))[start:end]


def codebook_facades() -> tuple[str, ...]:
  return facades(0, 300)


def distractors() -> tuple[str, ...]:
  return facades(300, 500)


def landmark_names() -> dict[str, list[str]]:
  """Returns the `dev` photos of each landmark."""
  names = defaultdict(list)
  for row in _manifest('landmarks', 'dev'):
    names[row['landmark']].append(row['path'])
  return names


def place_names(split: str = 'train') -> dict[str, list[str]]:
  """Returns the photos of each landmark of places in a split, `train` or `dev`."""
  names = defaultdict(list)
  for row in _manifest('places', split):
    names[row['landmark']].append(f'places/{row["path"]}')
  return names


def place_boxes(split: str = 'train') -> dict[str, list[tuple[float, ...]]]:
  """Returns the boxes drawn by hand, (ymin, xmin, ymax, xmax) in [0, 1], of the photos that have any."""
  return {
    f'places/{row["path"]}': [tuple(map(float, box.split())) for box in row['boxes'].split(';')]
    for row in _manifest('places', split)
    if row['boxes'].strip()
  }


def codebook_places(step: int = 8) -> tuple[str, ...]:
  """Returns every `step`-th `train` photo of each landmark of places, the first of each included."""
  return tuple(name for names in place_names('train').values() for name in names[::step])


def _manifest(part: str, split: str) -> list[dict[str, str]]:
  with open(DATA / part / 'manifest.csv', encoding='utf-8', newline='') as file:
    return [row for row in csv.DictReader(file) if row['split'] == split]


def landmarks() -> GroundTruth:
  return _leave_one_out('landmarks', landmark_names())


def places() -> GroundTruth:
  return _leave_one_out('places', place_names('dev'))


def _leave_one_out(name: str, photos: Mapping[str, Sequence[str]]) -> GroundTruth:
  queries = [
    QueryGroundTruth(name, name, easy=tuple(other for other in names if other != name), junk=(name,))
    for names in photos.values()
    for name in names
  ]
  return GroundTruth(name, tuple(query.image for query in queries), tuple(queries))


def dvd_covers() -> GroundTruth:
  queries = [
    QueryGroundTruth(name, name, easy=tuple(photo for photo in PHOTOS if _number(photo) == _number(name)))
    for name in REFERENCES
  ]
  return GroundTruth('dvd_covers', PHOTOS, tuple(queries))


def dvd_photos() -> GroundTruth:
  queries = [QueryGroundTruth(name, name, easy=(f'Reference/{_number(name)}',)) for name in PHOTOS]
  return GroundTruth('dvd_photos', REFERENCES, tuple(queries))


def clutter() -> GroundTruth:
  queries = [QueryGroundTruth(name, name, easy=(f'scenes/{_number(name)}',)) for name in REFERENCES]
  return GroundTruth('clutter', (*SCENES, *distractors()), tuple(queries))


SETS = {make.__name__: make for make in (landmarks, places, dvd_covers, dvd_photos, clutter)}


def thinned(truth: GroundTruth, step: int) -> GroundTruth:
  """Returns every `step`-th object with all photos of it, and every `step`-th other photo.

  An object is the index images that the labels of a query name, and those of all queries that share any.
  """
  object_of: dict[str, int] = {}
  members: dict[int, list[str]] = {}
  for n, query in enumerate(truth.queries):
    images = {*query.easy, *query.hard, *query.junk}
    joined = {object_of[image] for image in images if image in object_of}
    number = min(joined, default=n)
    for other in joined - {number}:
      images |= set(members.pop(other))
    members[number] = sorted({*members.get(number, ()), *images})
    object_of |= dict.fromkeys(members[number], number)
  kept = sorted(members)[::step]
  others = [name for name in truth.index_images if name not in object_of][::step]
  left = {image for number in kept for image in members[number]} | set(others)
  return GroundTruth(
    truth.name,
    tuple(name for name in truth.index_images if name in left),
    tuple(query for query in truth.queries if {*query.easy, *query.hard, *query.junk} <= left),
  )


def _number(name: str) -> str:
  return name.rpartition('/')[2]


def link_photos(folder: pathlib.Path) -> pathlib.Path:
  """Fills a folder with links to all photos by the names used here, and with the scenes of `clutter`."""
  folder.mkdir(parents=True, exist_ok=True)
  parts = [*(DATA / 'dvd_covers').iterdir(), *(DATA / 'landmarks').iterdir(), *(DATA / 'facades').iterdir()]
  # Its own folders, `train` and `dev`, say nothing without it.
  parts.append(DATA / 'places')
  for part in parts:
    link = folder / part.name
    if part.suffix != '.csv' and not link.exists():
      link.symlink_to(part)
  if not (folder / SCENES[-1]).exists():
    _write_scenes(folder)
  return folder


def boxes_path(folder: pathlib.Path) -> pathlib.Path:
  """Returns the true boxes of the scenes that `link_photos` wrote."""
  return folder / 'scenes' / 'boxes.csv'


def _write_scenes(folder: pathlib.Path) -> None:
  (folder / 'scenes').mkdir(exist_ok=True)
  rows = [COLUMNS]
  for n, (name, background) in enumerate(zip(SCENES, facades(500, 560), strict=True)):
    # Each phone in turn.
    photo = DATA / 'dvd_covers' / PHONES[n % len(PHONES)] / _number(name)
    scene, box = _compose(
      np.random.default_rng([_SEED, n]), load_image(DATA / 'facades' / background), load_image(photo)
    )
    rows.append((name, *box))
    (folder / name).write_bytes(pasting.encode_jpeg(scene, _JPEG_QUALITY))
  with open(boxes_path(folder), 'w', encoding='utf-8', newline='') as file:
    csv.writer(file).writerows(rows)


def _compose(rng, background: np.ndarray, photo: np.ndarray) -> tuple[np.ndarray, list[float]]:
  """Composes a scene, uint8 [H, W, 3]; returns it and the box of the photo in it."""
  canvas = background.astype(np.float32)
  size = np.array(canvas.shape[1::-1])
  quad = pasting.tilted_quad(rng, photo.shape[1] / photo.shape[0], tilt=_TILT, perspective=_PERSPECTIVE)
  quad *= np.sqrt(rng.uniform(*_AREA) * size.prod() / pasting.polygon_area(quad))
  quad *= min(1, *(size / np.ptp(quad, axis=0)))
  quad += rng.uniform(0, 1, 2) * (size - np.ptp(quad, axis=0)) - quad.min(axis=0)
  mask = pasting.paste(canvas, photo, quad) >= 0.5
  rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  box = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]) / np.tile(size[::-1], 2)
  return np.rint(canvas).clip(0, 255).astype(np.uint8), box.round(6).tolist()
