"""Photos for training: three formats, and their errors."""

import io

import numpy as np
import pytest
from PIL import Image
from support import tiny_delf_training

from delf_d2r.data.photos import class_names
from delf_d2r.data.training import training_examples
from delf_d2r.data.training.training_examples import UNLABELLED
from delf_d2r.errors import ImageError, UserError


def encoded(number, form='PNG'):
  buffer = io.BytesIO()
  Image.fromarray(tiny_delf_training.pattern(number)).save(buffer, form)
  return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
  return tiny_delf_training.write_photos(tmp_path / 'photos', per_class=2)


@pytest.fixture
def shards(tmp_path):
  tiny_delf_training.write_shard(
    tmp_path / 'train-00000-of-00002', [('a', encoded(0), 0), ('b', encoded(1), 2)]
  )
  tiny_delf_training.write_shard(tmp_path / 'train-00001-of-00002', [('c', encoded(2), 1)])
  return tmp_path / 'train-*'


# A folder for each class


def test_folder_names_are_the_classes_in_order(folder):
  examples = training_examples.load(folder)
  assert examples.classes == tiny_delf_training.CLASSES
  assert examples.labels.tolist() == [0, 0, 1, 1, 2, 2]
  example = examples.read(3)
  assert (example.name, example.label) == ('bridge/1.png', 1)
  np.testing.assert_array_equal(example.image, np.asarray(Image.open(folder / 'bridge/1.png')))


def test_photos_without_folders_have_no_labels(folder):
  examples = training_examples.load(folder / 'arch')
  assert (len(examples), examples.num_classes) == (2, 0)
  assert examples.read(0).label == UNLABELLED


def test_loose_photo_beside_class_folders_is_named(folder):
  (folder / 'arch/0.png').rename(folder / 'loose.png')
  with pytest.raises(UserError, match=r'loose\.png is in no class folder'):
    training_examples.load(folder)
  assert set(training_examples.load(folder, needs_labels=False).labels) == {UNLABELLED}


def test_given_classes_keep_their_numbers(folder):
  names = ('tower', *reversed(tiny_delf_training.CLASSES))
  assert training_examples.load(folder, classes=names).labels.tolist() == [3, 3, 2, 2, 1, 1]


def test_unknown_classes_are_refused(folder):
  with pytest.raises(
    UserError, match=r"1 unknown classes, for example 'castle' of castle/0\.png; there are 2: arch"
  ):
    training_examples.load(folder, classes=('arch', 'bridge'))


def test_another_number_of_classes_is_refused(folder):
  with pytest.raises(UserError, match=r'has 3 classes, but training\.model\.num_classes is 5'):
    training_examples.load(folder, num_classes=5)


def test_fingerprint_changes_with_a_photo(folder):
  before = training_examples.load(folder).fingerprint
  assert training_examples.load(folder).fingerprint == before
  Image.fromarray(tiny_delf_training.pattern(9)).save(folder / 'arch/0.png')
  assert training_examples.load(folder).fingerprint != before


# CSV


def write_csv(folder, text):
  (folder / 'labels.csv').write_text(text, encoding='utf-8')
  return folder / 'labels.csv'


def test_csv(folder):
  examples = training_examples.load(write_csv(folder, 'path,label\ncastle/1.png,x\narch/0.png,a b\n'))
  assert examples.classes == ('a b', 'x')
  assert [examples.read(number).label for number in (0, 1)] == [1, 0]
  assert examples.read(0).name == 'castle/1.png'


@pytest.mark.parametrize(
  'text, message',
  [
    ('a,b\n1,2\n', 'the header lacks path, label'),
    ('path,label\n', 'lists no photos'),
    ('path,label\narch/0.png,\n', 'labels.csv:2: path or label is missing'),
    ('path,label\narch/0.png,a\narch/0.png,b\n', r'arch/0\.png appears twice'),
    ('path,label\nnowhere.png,a\n', r'1 of 1 photos do not exist, for example nowhere\.png'),
  ],
)
def test_bad_csv_is_explained(folder, text, message):
  with pytest.raises(UserError, match=message):
    training_examples.load(write_csv(folder, text))


def test_labels_are_part_of_the_fingerprint(folder):
  texts = ('path,label\narch/0.png,a\narch/1.png,b\n', 'path,label\narch/0.png,b\narch/1.png,a\n')
  first, second = (training_examples.load(write_csv(folder, text)).fingerprint for text in texts)
  assert first != second


# TFRecord


def test_shards_are_read_in_order(shards):
  examples = training_examples.load(shards, num_classes=3)
  found = [examples.read(number) for number in range(len(examples))]
  assert [(example.name, example.label) for example in found] == [('a', 0), ('b', 2), ('c', 1)]
  for number, example in enumerate(found):
    np.testing.assert_array_equal(example.image, tiny_delf_training.pattern(number))


@pytest.mark.parametrize('label', [-1, 3])
def test_label_out_of_range_is_refused(tmp_path, label):
  tiny_delf_training.write_shard(tmp_path / 'x', [('a', encoded(0), 0), ('photo7', encoded(0), label)])
  examples = training_examples.load(tmp_path / 'x', num_classes=3)
  with pytest.raises(UserError, match=rf'x: record 1 \(photo7\) has label {label}, but .*\[0, 3\)'):
    examples.read(1)


def test_record_without_label_is_refused_only_where_labels_are_needed(tmp_path):
  tiny_delf_training.write_shard(tmp_path / 'x', [('a', encoded(0), None)])
  assert training_examples.load(tmp_path / 'x').read(0).label == UNLABELLED
  with pytest.raises(UserError, match='no image/class/label'):
    training_examples.load(tmp_path / 'x', num_classes=3).read(0)


def test_record_of_something_else_is_refused(tmp_path):
  tiny_delf_training.write_shard(tmp_path / 'x', [('a', b'', 1)])
  with pytest.raises(ImageError, match=r'record 0 \(a\): its photo: '):
    training_examples.load(tmp_path / 'x', num_classes=3).read(0)


@pytest.mark.parametrize('damage', ['truncated', 'flipped', 'no TFRecord'])
def test_corrupt_shard_is_named(shards, damage):
  file = shards.parent / 'train-00001-of-00002'
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(
    {'truncated': content[:-3], 'flipped': content, 'no TFRecord': b'path,label\n' * 9}[damage]
  )
  with pytest.raises(UserError, match=r'train-00001-of-00002: corrupt TFRecord shard at'):
    training_examples.load(shards, num_classes=3).read(2)


def test_nothing_there(tmp_path):
  with pytest.raises(UserError, match='no such folder'):
    training_examples.load(tmp_path / 'nothing*')
  tiny_delf_training.write_shard(tmp_path / 'empty', [])
  with pytest.raises(UserError, match='no records in 1 shards'):
    training_examples.load(tmp_path / 'empty')


def test_large_jpeg_is_decoded_at_a_fraction(tmp_path):
  tiny_delf_training.write_shard(tmp_path / 'x', [('a', encoded(0, 'JPEG'), 0)])
  examples = training_examples.load(tmp_path / 'x', num_classes=1)
  assert examples.read(0, min_side=20).image.shape == (24, 24, 3)
  assert examples.read(0).image.shape == (96, 96, 3)


# List of classes


def test_list_of_classes(tmp_path):
  file = tmp_path / 'classes.txt'
  file.write_text('b\na\n', encoding='utf-8')
  assert class_names.read(file) == ('b', 'a')
  file.write_bytes(b'b\r\na\r\n')
  assert class_names.read(file) == ('b', 'a')
  odd = ('a\u2028b', 'c\x85d', 'e\x0bf', 'g\rh')
  file.write_text(''.join(f'{name}\n' for name in odd), encoding='utf-8', newline='')
  assert class_names.read(file) == odd
  with pytest.raises(UserError, match='line break'):
    class_names.to_numbers(['a\nb'], ['a\nb/1.jpg'], (), tmp_path)
  file.write_text('b\nb\n', encoding='utf-8')
  with pytest.raises(UserError, match="names 'b' twice"):
    class_names.read(file)
