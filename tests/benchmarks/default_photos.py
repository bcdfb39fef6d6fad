"""Makes a folder of links to the photos of whitening, codebook and background model of the package.

  python tests/benchmarks/default_photos.py DIR
  make default-model PHOTOS=PLACES/train VALIDATION=PLACES/dev WHITENING_PHOTOS=DIR
  make default-codebook PHOTOS=DIR
  make default-background PHOTOS=DIR

928 photos: the facades of `codebook_facades`, and every fourth training photo of each landmark of places.
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks import development_sets as sets  # noqa: E402

STEP = 4


def link(folder: pathlib.Path) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  photos = {f'facade_{name}': sets.DATA / 'facades' / name for name in sets.codebook_facades()}
  photos.update({name.replace('/', '_'): sets.DATA / name for name in sets.codebook_places(STEP)})
  for name, photo in photos.items():
    if not (folder / name).exists():
      (folder / name).symlink_to(photo)
  print(f'{folder}: {len(photos)} photos')


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  link(pathlib.Path(sys.argv[1]))
