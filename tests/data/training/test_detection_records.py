"""Records for training a detector: valid ones, and errors that name the place."""

import numpy as np
import pytest
from support import tfrecord_files, tiny_detector_training
from support.tiny_delf_training import write_shard

from delf_d2r.data.training import detection_examples
from delf_d2r.data.training.detection_records import DetectionRecords
from delf_d2r.errors import ArtefactError, UserError


def test_shards_are_numbered_through_and_read_in_any_order(tmp_path):
  for shard, numbers in enumerate([(0, 1, 2), (), (3,)]):
    tiny_detector_training.write_records(
      tmp_path / f'train-{shard}', map(tiny_detector_training.example, numbers)
    )
  records = DetectionRecords([tmp_path / 'train-*'])
  assert len(records) == 4
  assert [records.read(number).name for number in (3, 0, 2)] == ['3.png', '0.png', '2.png']
  again = DetectionRecords([tmp_path / 'train-2', tmp_path / 'train-[01]'])
  assert again.as_input('records').fingerprint == records.as_input('records').fingerprint
  assert DetectionRecords([tmp_path / 'train-0']).as_input('records').fingerprint != (
    records.as_input('records').fingerprint
  )


def test_labels_of_other_classes_are_refused(tmp_path):
  path = tiny_detector_training.write_records(
    tmp_path / 'x', [tiny_detector_training.example(7, labels=(2,))]
  )
  with pytest.raises(UserError, match=r'x: record 0 \(7\.png\) has label 2, .*from 1 to 1'):
    DetectionRecords([path]).read(0)
  assert DetectionRecords([path], num_classes=2).read(0).labels.tolist() == [2]


def test_records_of_another_form_are_refused(tmp_path):
  path = write_shard(tmp_path / 'gld', [('photo7', b'', 0)])
  with pytest.raises(UserError, match=r'gld: record 0 is no photo with boxes .*make_detection_records'):
    DetectionRecords([path]).read(0)


@pytest.mark.parametrize('box', [(0.5, 0.1, 0.2, 0.3), (0.1, 0.1, 0.1, 0.3), (0.1, 0.1, 1.2, 0.3)])
def test_invalid_boxes_are_refused(tmp_path, box):
  data = detection_examples.encode(tiny_detector_training.example(1))
  example = detection_examples.example_pb2.Example.FromString(data)
  for side, value in zip(('ymin', 'xmin', 'ymax', 'xmax'), box, strict=True):
    example.features.feature[f'image/object/bbox/{side}'].float_list.value[:] = [value]
  tfrecord_files.write(tmp_path / 'x', [example.SerializeToString()])
  with pytest.raises(UserError, match=r'x: record 0 .*must satisfy 0 <= min < max <= 1'):
    DetectionRecords([tmp_path / 'x']).read(0)


def test_damage_is_named(tmp_path):
  path = tiny_detector_training.write_records(tmp_path / 'x', [tiny_detector_training.example(1)])
  content = bytearray(path.read_bytes())
  content[100] ^= 1
  path.write_bytes(content)
  with pytest.raises(UserError, match='x: corrupt TFRecord shard at record 0'):
    DetectionRecords([path]).read(0)
  path.write_bytes(content[:50])
  with pytest.raises(UserError, match='x: corrupt TFRecord shard at the frame'):
    DetectionRecords([path])


def test_nothing_there(tmp_path):
  with pytest.raises(UserError, match='no TFRecord shards of that pattern'):
    DetectionRecords([tmp_path / '*'])
  (tmp_path / 'empty').touch()
  with pytest.raises(UserError, match='no records in 1 shards'):
    DetectionRecords([tmp_path / 'empty'])


def test_photos_without_boxes_are_records_too(tmp_path):
  path = tiny_detector_training.write_records(tmp_path / 'x', [tiny_detector_training.example(1, boxes=[])])
  assert np.shape(DetectionRecords([path]).read(0).boxes) == (0, 4)


def test_directories_must_be_finished(tmp_path):
  (tmp_path / 'train').mkdir()
  tiny_detector_training.write_records(
    tmp_path / 'train' / 'detection-00000-of-00002.tfrecord', [tiny_detector_training.example(1)]
  )
  with pytest.raises(ArtefactError, match='no finished artefact'):
    DetectionRecords([tmp_path / 'train'])
