"""Boxes from an artefact: names, filters of other images, fingerprints, and invalid sources."""

import shutil

import pytest
from numpy.testing import assert_array_equal

from delf_d2r.data.artefacts import artefact_writer, records
from delf_d2r.data.artefacts.artefact import Plan
from delf_d2r.data.boxes import stored_boxes
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.protos import experiment_pb2
from delf_d2r.structures import Boxes

BOXES = {'a/1.jpg': Boxes.from_coordinates([[0, 0, 0.5, 1], [0.25, 0, 1, 1]]), 'b/2.jpg': Boxes.empty()}


def write(path, kind='boxes'):
  with artefact_writer.writing(path, Plan(kind, experiment_pb2.ExperimentConfig(), ())) as writer:
    for shard in writer.ledger.missing(len(BOXES), 10):
      with writer.ledger.write(shard) as file:
        for name, boxes in BOXES.items():
          file.add(records.encode_boxes(name, boxes), images=1)
    writer.finish()
  return path


def test_artefact(tmp_path):
  found = stored_boxes.read(write(tmp_path / 'boxes'), ['c.jpg', 'b/2.jpg', 'a/1.jpg'])
  assert found.keys() == BOXES.keys()
  for name, boxes in BOXES.items():
    assert_array_equal(found[name].coordinates, boxes.coordinates)


def test_artefact_of_other_photos(tmp_path):
  with pytest.raises(UserError, match=r"none of its 2 images is among the 1 photos \(it names 'a/1\.jpg'"):
    stored_boxes.read(write(tmp_path / 'boxes'), ['c.jpg'])


def test_what_is_no_boxes(tmp_path):
  with pytest.raises(ArtefactError, match='holds features, but boxes are needed'):
    stored_boxes.read(write(tmp_path / 'features', 'features'), list(BOXES))
  with pytest.raises(UserError, match=r'nowhere: cannot be read as a UTF-8 CSV file'):
    stored_boxes.read(tmp_path / 'nowhere', list(BOXES))
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match=r'empty: contains no \.boxes files'):
    stored_boxes.read(tmp_path / 'empty', list(BOXES))


def test_fingerprint_of_an_artefact_is_that_of_what_it_holds(tmp_path):
  one = write(tmp_path / 'one')
  shutil.copytree(one, tmp_path / 'copy')
  (tmp_path / 'copy' / 'manifest.pbtxt').write_text(
    (one / 'manifest.pbtxt').read_text().replace('seconds: ', 'seconds: 1')
  )
  assert stored_boxes.fingerprint(tmp_path / 'copy') == stored_boxes.fingerprint(one)


def test_fingerprint_of_files_is_that_of_their_contents(tmp_path):
  for name, data in (('a', b''), ('b', b''), ('c', b'\x0a\x00')):
    (tmp_path / name).mkdir()
    (tmp_path / name / '1.boxes').write_bytes(data)
    (tmp_path / f'{name}.csv').write_bytes(data)
  for suffix in ('', '.csv'):
    a, b, c = (stored_boxes.fingerprint(tmp_path / f'{name}{suffix}') for name in 'abc')
    assert a == b != c
