"""The boxes that each photo is extracted with, whatever order they are stored in."""

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer, records
from delf_d2r.data.artefacts.artefact import Input, Plan
from delf_d2r.stages import extract_features
from delf_d2r.structures import Boxes


def box(number):
  return Boxes(np.array([[0, 0, 1, number / 10]], np.float32), np.ones(1, np.float32))


@pytest.fixture
def stored(tmp_path):
  """Writes boxes of some photos, by number; those below zero could not be decoded."""

  def write(*numbers):
    plan = Plan('boxes', configs.default('regions'), (Input('images', 'x', tmp_path),))
    with artefact_writer.writing(tmp_path / 'boxes', plan) as writer:
      for shard in writer.ledger.missing(len(numbers), 2):
        with writer.ledger.write(shard) as file:
          for number in (numbers[item] for item in shard.items):
            if number < 0:
              file.add_error(f'{-number}.jpg', 'broken')
            else:
              file.add(records.encode_boxes(f'{number}.jpg', box(number)), images=1)
      return writer.finish()

  return write


def widths(names, artefact):
  return [
    float(boxes.coordinates[0, 3]) if len(boxes) else None
    for boxes in extract_features._boxes_of(names, artefact)
  ]


NAMES = [f'{number}.jpg' for number in (1, 2, 3, 4)]


@pytest.mark.parametrize('order', [(1, 2, 3, 4), (4, 2, 3, 1), (9, 1, 2, 3, 4, 8)])
def test_every_photo_has_its_own_boxes(stored, order):
  assert widths(NAMES, stored(*order)) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_photos_without_boxes(stored):
  assert widths(NAMES, stored(1, -2, 3)) == [pytest.approx(0.1), None, pytest.approx(0.3), None]
  assert widths(NAMES, None) == [None] * 4


def test_boxes_are_read_no_further_than_is_needed(stored, monkeypatch):
  read = []
  decode = records.decode_boxes
  monkeypatch.setattr(records, 'decode_boxes', lambda data: read.append(data) or decode(data))
  found = extract_features._boxes_of(['1.jpg', '2.jpg', '3.jpg'], stored(1, -2, 3, 4))
  next(found)
  next(found)
  assert len(read) == 1
