"""Boxes of a detector for photos: batches, the filter of classes, and what is told of it."""

import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.detection_models import photo, write_tf1, write_tf2

from delf_d2r.extractors import photo_boxes
from delf_d2r.protos.regions_pb2 import DetectorConfig

RED, GREEN = (10, 5, 30, 20, 255), (0, 20, 20, 40, 102)


def load(path, *classes):
  return photo_boxes.load_detector(DetectorConfig(model_path=path, classes=classes))


def alone(detector, image):
  (boxes,) = detector.batch([image])
  return boxes


@pytest.fixture(scope='module')
def batching(tmp_path_factory):
  return write_tf1(tmp_path_factory.mktemp('model') / 'a')


@pytest.fixture(scope='module')
def single(tmp_path_factory):
  return write_tf2(tmp_path_factory.mktemp('model') / 'a')


def test_image_without_anything_has_no_boxes(batching):
  found = alone(load(batching), photo(20, 20))
  assert (found.coordinates.shape, found.scores.shape) == ((0, 4), (0,))


@pytest.mark.parametrize('path', ['batching', 'single'])
def test_batches_of_any_sizes_give_what_single_images_give(path, request, monkeypatch):
  detector = load(request.getfixturevalue(path))
  sizes = [(40, 50), (40, 50), (30, 50), (40, 50)]
  images = [photo(*size, red=(5, 5, 10 + n, 20, 100 + n)) for n, size in enumerate(sizes)]
  asked = []
  detect = detector._model.detect
  monkeypatch.setattr(detector._model, 'detect', lambda batch: asked.append(len(batch)) or detect(batch))
  together = detector.batch(images)
  assert asked == ([2, 1, 1] if path == 'batching' else [1] * 4)
  for image, found in zip(images, together, strict=True):
    expected = alone(detector, image)
    assert len(expected) == 1
    assert_array_equal(found.coordinates, expected.coordinates)
    assert_array_equal(found.scores, expected.scores)
  assert detector.batch([]) == []


def test_classes(single):
  image = photo(40, 50, red=RED, green=GREEN)
  for classes, scores in (((), [1, 0.4]), ((2,), [0.4]), ((1, 2, 90), [1, 0.4])):
    detector = load(single, *classes)
    assert_allclose(alone(detector, image).scores, scores, rtol=1e-6)
    assert detector.note == ''


def test_class_filter_that_removes_everything_is_explained(single):
  detector = load(single, 7)
  assert len(alone(detector, photo(40, 50))) == 0
  assert detector.note == ''  # There was nothing to remove.
  assert alone(detector, photo(40, 50, red=RED, green=GREEN)).coordinates.shape == (0, 4)
  assert r'classes [7] removes every box' in detector.note
  assert 'have the classes [1, 2]' in detector.note
