"""Makes the folders of photos that whitening, codebook and background model of the package are made from.

  python tests/benchmarks/default_photos.py DIR
  python tests/benchmarks/default_photos.py --background DIR2
  make default-model PHOTOS=PLACES/train VALIDATION=PLACES/dev WHITENING_PHOTOS=DIR
  make default-codebook PHOTOS=DIR
  make default-background PHOTOS=DIR2

DIR has links to 928 photos: the facades of `codebook_facades`, and every fourth training photo of each
landmark of places.

DIR2 has more kinds, because a query of a kind that the background lacks resembles all images of its own
kind, and their scores would count as evidence: every second of these facades, every sixth training photo of
places, every twelfth frame of the indoor floors, and 230 printed pages that are composed from a seed: a
picture that is cut from a training photo of places, with lines of text in several faces, bars of colour, and
often a frame and a margin. No photo of a development set is among them, and no real print.
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from benchmarks import development_sets as sets  # noqa: E402

from delf_d2r.data.photos.images import load_image  # noqa: E402
from delf_d2r.data.scenes import pasting  # noqa: E402

STEP = 4
# Of the background.
_FACADE_STEP, _PLACE_STEP, _FRAME_STEP, _PRINTS = 2, 6, 12, 230
_SEED = 0
_FACES = (
  cv2.FONT_HERSHEY_SIMPLEX,
  cv2.FONT_HERSHEY_DUPLEX,
  cv2.FONT_HERSHEY_COMPLEX,
  cv2.FONT_HERSHEY_TRIPLEX,
  cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
_TEXT = (
  'THE OF LIGHT RIVER NIGHT LAST STORY HOUSE WINTER GOLD ROAD KING CITY LOVE DARK EDITION SPECIAL A AND STAR'
  ' ISLAND SECRET TIME WAR SUMMER'
)


def link(folder: pathlib.Path) -> None:
  """Fills a folder with links to the photos of whitening and codebook."""
  photos = {f'facade_{name}': sets.DATA / 'facades' / name for name in sets.codebook_facades()}
  photos.update({name.replace('/', '_'): sets.DATA / name for name in sets.codebook_places(STEP)})
  _link(photos, folder)


def link_background(folder: pathlib.Path) -> None:
  """Fills a folder with links to the photos of the background model, and with printed pages."""
  photos = {
    f'facade_{name}': sets.DATA / 'facades' / name for name in sets.codebook_facades()[::_FACADE_STEP]
  }
  photos.update({name.replace('/', '_'): sets.DATA / name for name in sets.codebook_places(_PLACE_STEP)})
  frames = sorted((sets.DATA / 'indoor_floors').rglob('*.jpg'))[::_FRAME_STEP]
  photos.update({'_'.join(frame.relative_to(sets.DATA).parts): frame for frame in frames})
  _link(photos, folder)
  pictures = [sets.DATA / name for name in sets.codebook_places(STEP)]
  for number in range(_PRINTS):
    rng = np.random.default_rng([_SEED, number])
    page = with_margin(printed_page(load_image(pictures[rng.integers(len(pictures))]), rng), rng)
    (folder / f'printed_{number:03d}.jpg').write_bytes(pasting.encode_jpeg(page, 90))
  print(f'{folder}: {_PRINTS} printed pages')


def _link(photos: dict[str, pathlib.Path], folder: pathlib.Path) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  for name, photo in photos.items():
    if not (folder / name).exists():
      (folder / name).symlink_to(photo)
  print(f'{folder}: {len(photos)} photos')


def printed_page(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns a page like a cover or a poster, upright and without margin: uint8 [H, W, 3].

  Args:
    picture: uint8 [h, w, 3], of which a part fills most of the page.
    rng: of all random choices.
  """
  height = int(rng.integers(500, 800))
  width = int(height * rng.uniform(0.65, 0.78))
  page = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
  top, bottom = int(height * rng.uniform(0, 0.3)), int(height * rng.uniform(0.6, 1))
  shown = cv2.resize(_part(picture, rng), (width, bottom - top)).astype(np.float64)
  if rng.uniform() < 0.5:
    # Dyed, as covers are.
    shown = shown * rng.uniform(0.3, 0.8) + rng.integers(0, 256, 3) * 0.2
  page[top:bottom] = shown.clip(0, 255).astype(np.uint8)
  for _ in range(rng.integers(2, 6)):
    _print_line(page, rng)
  if rng.uniform() < 0.5:
    cv2.rectangle(page, (0, 0), (width - 1, height - 1), _colour(rng), int(rng.integers(4, 20)))
  return page


def with_margin(page: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns a page with or without a margin of one colour, most often white."""
  if rng.uniform() < 0.6:
    margin = int(page.shape[0] * rng.uniform(0.02, 0.1))
    colour = (255, 255, 255) if rng.uniform() < 0.6 else _colour(rng)
    page = cv2.copyMakeBorder(page, *[margin] * 4, cv2.BORDER_CONSTANT, value=colour)
  return page


def _part(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  share = rng.uniform(0.3, 1)
  sides = np.maximum((np.array(picture.shape[:2]) * share).astype(int), 1)
  top, left = rng.integers(0, picture.shape[:2] - sides, endpoint=True)
  return picture[top : top + sides[0], left : left + sides[1]]


def _print_line(page: np.ndarray, rng: np.random.Generator) -> None:
  text = ' '.join(rng.choice(_TEXT.split(), rng.integers(1, 4)))
  face, scale, thickness = _FACES[rng.integers(len(_FACES))], rng.uniform(0.5, 3), int(rng.integers(1, 7))
  (length, height), _ = cv2.getTextSize(text, face, scale, thickness)
  # No line is longer than the page.
  shrink = min(1, 0.95 * page.shape[1] / length)
  left = int(rng.uniform(0, max(page.shape[1] - shrink * length, 1)))
  baseline = int(rng.uniform(height, page.shape[0]))
  cv2.putText(page, text, (left, baseline), face, scale * shrink, _colour(rng), thickness, cv2.LINE_AA)


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
  return tuple(rng.integers(0, 256, 3).tolist())


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', type=pathlib.Path, metavar='DIR')
  parser.add_argument('--background', action='store_true', help='Make the photos of the background model.')
  options = parser.parse_args()
  (link_background if options.background else link)(options.folder)
