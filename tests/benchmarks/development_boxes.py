"""Writes the boxes of the development photos (../shared/data) for make_detection_scenes as one CSV file.

  python tests/benchmarks/development_boxes.py --parts=towers,whole,covers --output=boxes.csv
  d2r make_detection_scenes --objects=../shared/data --boxes=boxes.csv \
    --backgrounds=../shared/data/facades --backgrounds=../shared/data/indoor_floors --output=out/scenes

Parts: towers, with boxes drawn by hand; whole photos of landmarks that fill them; covers, without their white
margins; whole facades (which must not be backgrounds then). The group is the landmark, `facade`, or the
number of the cover.
"""

import argparse
import csv
import pathlib

import numpy as np

from delf_d2r.data.boxes.csv_file import COLUMNS
from delf_d2r.data.photos.images import load_image

DATA = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'data'

# Landmarks that fill their photos and have no boxes drawn by hand.
WHOLE = ('chichen_itza', 'lund_door', 'piazza_san_marco', 'reichstag', 'roman_colosseum', 'sceaux_castle')
_WHITE = 245


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


def facades(data: pathlib.Path):
  """Yields (image, box, group) of the facades."""
  for path in sorted((data / 'facades').glob('*.jpg')):
    yield path.relative_to(data).as_posix(), (0, 0, 1, 1), 'facade'


PARTS = {function.__name__: function for function in (towers, whole, covers, facades)}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--data', type=pathlib.Path, default=DATA)
  parser.add_argument('--parts', default='towers,whole,covers', help=f'Some of {",".join(PARTS)}.')
  options = parser.parse_args()
  rows = [row for part in options.parts.split(',') for row in PARTS[part](options.data)]
  with open(options.output, 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow([*COLUMNS, 'group'])
    writer.writerows((name, *(f'{side:.6f}' for side in box), group) for name, box, group in rows)
  print(f'{options.output}: {len(rows)} boxes of {len({row[2] for row in rows})} groups')


if __name__ == '__main__':
  main()
