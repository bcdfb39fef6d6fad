r"""Writes the boxes of the development photos (../shared/data) for make_detection_scenes as one CSV file.

  python tests/benchmarks/development_boxes.py --parts=towers,whole,prints,places,attended --photos=DIR \
    --output=boxes.csv
  d2r make_detection_scenes --objects=DIR/objects --boxes=boxes.csv --backgrounds=DIR/facades \
    --backgrounds=../shared/data/indoor_floors --output=out/scenes

Parts:
  towers    landmarks with boxes drawn by hand
  whole     whole photos of landmarks that fill them
  covers    the DVD covers, without their white margins
  prints    composed pages, which stand for flat objects so that the covers can judge
  facades   whole facades, which must not be backgrounds then
  places    the `train` photos of places with boxes drawn by hand
  attended  every eighth `train` photo of every third other landmark of places, with the box that holds most
            of the attention of the DELF of the package

The group of an object is the landmark, `facade`, or the name of the cover or print.

A detector must be judged by what it has not seen: `--half=1` leaves out the first half of the covers and of
the landmarks with boxes, to be tested on them, `--half=2` the second half. --photos=DIR makes the folders
DIR/objects and DIR/facades, of links and of the prints; those facades are in no development set.
"""

import argparse
import csv
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402
from benchmarks import default_photos  # noqa: E402
from benchmarks import development_sets as sets  # noqa: E402

from delf_d2r import config  # noqa: E402
from delf_d2r.data.boxes.csv_file import COLUMNS  # noqa: E402
from delf_d2r.data.photos.images import load_image  # noqa: E402
from delf_d2r.data.scenes import pasting  # noqa: E402
from delf_d2r.extractors import region_extractor  # noqa: E402
from delf_d2r.extractors.region_extractor import RegionExtractor  # noqa: E402
from delf_d2r.protos.experiment_pb2 import ExperimentConfig  # noqa: E402
from delf_d2r.protos.extraction_pb2 import DelfConfig, ExtractionConfig  # noqa: E402
from delf_d2r.structures import Boxes  # noqa: E402

DATA = sets.DATA

# Landmarks that fill their photos and have no boxes drawn by hand.
WHOLE = ('chichen_itza', 'lund_door', 'piazza_san_marco', 'reichstag', 'roman_colosseum', 'sceaux_castle')
_WHITE = 245
# As many as there are covers.
PRINTS = tuple(f'prints/{number:03d}.jpg' for number in range(60))
_SEED = 1


def _landmarks(data: pathlib.Path):
  with open(data / 'landmarks' / 'manifest.csv', encoding='utf-8', newline='') as file:
    for row in csv.DictReader(file):
      yield f'landmarks/{row["path"]}', row['landmark'], row['boxes_ymin_xmin_ymax_xmax']


def towers(data: pathlib.Path):
  """Yields (image, box, group) of the boxes drawn by hand."""
  for name, group, boxes in _landmarks(data):
    for box in filter(None, boxes.split(';')):
      yield name, tuple(map(float, box.split())), group


def whole(data: pathlib.Path):
  """Yields (image, box, group) of landmarks that fill their photos."""
  for name, group, _ in _landmarks(data):
    if group in WHOLE:
      yield name, (0, 0, 1, 1), group


def covers(data: pathlib.Path):
  """Yields (image, box, group) of the reference photos of the DVD covers."""
  for path in sorted((data / 'dvd_covers' / 'Reference').glob('*.jpg')):
    printed = (load_image(path) < _WHITE).any(axis=2)
    # A tenth of a row or column: JPEG artefacts in the margin are none.
    rows, columns = (np.flatnonzero(printed.mean(axis=axis) > 0.1) for axis in (1, 0))
    height, width = printed.shape
    box = (rows[0] / height, columns[0] / width, (rows[-1] + 1) / height, (columns[-1] + 1) / width)
    yield path.relative_to(data).as_posix(), box, f'cover_{path.stem}'


def prints(data: pathlib.Path):
  """Yields (image, box, group) of printed pages, which `link_photos` writes."""
  del data
  for name in PRINTS:
    yield name, (0, 0, 1, 1), pathlib.PurePath(name).stem


def facades(data: pathlib.Path):
  """Yields (image, box, group) of the facades."""
  for path in sorted((data / 'facades').glob('*.jpg')):
    yield path.relative_to(data).as_posix(), (0, 0, 1, 1), 'facade'


def places(data: pathlib.Path):
  """Yields (image, box, group) of the `train` photos of places with boxes drawn by hand."""
  for name, boxes in sets.place_boxes().items():
    for box in boxes:
      yield name, box, _place(name)


def attended(data: pathlib.Path):
  """Yields (image, box, group) of other `train` photos of places, with the box of their attention."""
  boxed = {_place(name) for name in sets.place_boxes()}
  # With all landmarks, wide boxes of squares outweigh the towers (docs/research/default_model.md).
  kept = {landmark for landmark in list(sets.place_names())[::_ATTENDED_LANDMARKS] if landmark not in boxed}
  extractor = region_extractor.build(_ATTENTION)
  for name in sets.codebook_places(_ATTENDED_STEP):
    if _place(name) in kept:
      box = attention_box(extractor, load_image(data / name))
      if box is not None:
        yield name, box, _place(name)


def _place(name: str) -> str:
  return name.split('/')[-2]


# One scale, whose cells see enough of a photo to tell a building from its surroundings.
_ATTENTION = config.resolve(
  ExperimentConfig(
    extraction=ExtractionConfig(
      extractor=ExtractionConfig.DELF,
      max_features=2000,
      max_image_size=512,
      min_image_size=512,
      delf=DelfConfig(image_scales=[1.0]),
    )
  )
).extraction
_ATTENDED_STEP = 8
_ATTENDED_LANDMARKS = 3
# Attention outside the box, on each side.
_OUTSIDE = 0.02


def attention_box(extractor: RegionExtractor, image: np.ndarray) -> tuple[float, ...] | None:
  """Returns the box `[ymin, xmin, ymax, xmax]` in [0, 1] that holds most of the attention of an image.

  Attention is counted above its median, so that grass and sky, which have a little everywhere, do not widen
  the box. None: the image has no features, or the box fills it (nothing was told apart).
  """
  features = extractor.extract('', image, Boxes.empty()).region(0)
  if not len(features):
    return None
  weights = np.maximum(features.attention - np.median(features.attention), 0)
  if not weights.sum():
    return None
  sides = []
  for axis in range(2):
    order = np.argsort(features.locations[:, axis], kind='stable')
    share = np.cumsum(weights[order]) / weights.sum()
    low, high = np.searchsorted(share, (_OUTSIDE, 1 - _OUTSIDE))
    places = features.locations[order, axis] / image.shape[axis]
    half_cell = 16 / 512
    sides.append((max(places[low] - half_cell, 0), min(places[min(high, len(order) - 1)] + half_cell, 1)))
  (top, bottom), (left, right) = sides
  box = (float(top), float(left), float(bottom), float(right))
  return None if (bottom - top) * (right - left) > 0.9 else box


PARTS = {
  function.__name__: function for function in (towers, whole, covers, prints, facades, places, attended)
}

# Landmarks with boxes drawn by hand, and those that fill their photos, in two halves: one detector is
# trained on each and tested on the other. The white tower and the Porto landmarks are the stout ones.
HALVES = (
  frozenset(
    {'canton_tower', 'white_tower', 'porto_arrabida', *WHOLE[:3]} | {f'cover_{n:03d}' for n in range(1, 31)}
  ),
  frozenset(
    {'n_seoul_tower', 'tokyo_skytree', 'porto_musica', *WHOLE[3:]} | {f'cover_{n:03d}' for n in range(31, 61)}
  ),
)


def link_photos(folder: pathlib.Path) -> None:
  """Makes the folders `objects` (all development photos, and the prints) and `facades` (backgrounds).

  The facades are those that no development set shows, not even behind an object.
  """
  (folder / 'objects' / 'prints').mkdir(parents=True, exist_ok=True)
  (folder / 'facades').mkdir(exist_ok=True)
  links = {
    folder / 'objects' / part: DATA / part for part in ('landmarks', 'dvd_covers', 'facades', 'places')
  }
  links |= {folder / 'facades' / name: DATA / 'facades' / name for name in sets.codebook_facades()}
  for link, target in links.items():
    if not link.exists():
      link.symlink_to(target)
  pictures = [DATA / name for name in sets.codebook_places()]
  for number, name in enumerate(PRINTS):
    rng = np.random.default_rng([_SEED, number])
    page = default_photos.printed_page(load_image(pictures[rng.integers(len(pictures))]), rng)
    (folder / 'objects' / name).write_bytes(pasting.encode_jpeg(page, 90))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--data', type=pathlib.Path, default=DATA)
  parser.add_argument('--parts', default='towers,whole,covers', help=f'Some of {",".join(PARTS)}.')
  parser.add_argument('--half', type=int, choices=(1, 2), help='Leave out this half, to be tested on it.')
  parser.add_argument('--photos', type=pathlib.Path, help='Folder of links and prints to make.')
  options = parser.parse_args()
  left_out = HALVES[options.half - 1] if options.half else frozenset()
  rows = [row for part in options.parts.split(',') for row in PARTS[part](options.data)]
  rows = [row for row in rows if row[2] not in left_out]
  if options.photos:
    link_photos(options.photos)
  with open(options.output, 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow([*COLUMNS, 'group'])
    writer.writerows((name, *(f'{side:.6f}' for side in box), group) for name, box, group in rows)
  print(f'{options.output}: {len(rows)} boxes of {len({row[2] for row in rows})} groups')


if __name__ == '__main__':
  main()
