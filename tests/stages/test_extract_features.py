"""The boxes that each photo is extracted with, whatever order they are stored in."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer, records
from delf_d2r.data.artefacts.artefact import Input, Plan
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import ImageError
from delf_d2r.extractors import registry
from delf_d2r.stages import extract_features
from delf_d2r.structures import Boxes, LocalFeatures


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


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e20])
def test_values_of_an_extractor_that_cannot_be_used_are_named_with_the_photo(tmp_path, value):
  class Broken:
    dimensions = 4

    def __call__(self, image):
      n = 3
      descriptors = np.full((n, 4), 0.5, np.float32)
      if image[0, 0, 0] > 100:
        descriptors[1, 2] = value
      return LocalFeatures(np.ones((n, 2), np.float32), *np.ones((2, n), np.float32), descriptors)

  (tmp_path / 'photos/sub').mkdir(parents=True)
  for name, grey in (('a.png', 10), ('sub/b.png', 200), ('c.png', 20)):
    Image.new('RGB', (40, 30), (grey,) * 3).save(tmp_path / 'photos' / name)
  dataset = Dataset.load(tmp_path / 'photos')
  config = configs.default('extraction')
  record = dataclasses.replace(registry.record(config.extraction.extractor), build=lambda config: Broken())
  with registry.replaced(record):
    features = extract_features.run(config, dataset, tmp_path / 'features', boxes=None, workers=1)
    (failure,) = artefact_writer.read_errors(features)
    assert failure['name'] == 'sub/b.png'
    assert 'row 1 of 3' in failure['error']
    assert [image.name for image in map(records.decode_features, features.records())] == ['a.png', 'c.png']
    with pytest.raises(ImageError, match=r'sub/b\.png: .* row 1 of 3'):
      extract_features.run(config, dataset, tmp_path / 'strict', boxes=None, workers=1, strict=True)
