"""What a batch holds depends on config, seed and step alone."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support import tiny_delf_training

tf = pytest.importorskip('tensorflow')

from delf_d2r.data.training import training_examples  # noqa: E402
from delf_d2r.errors import UserError  # noqa: E402
from delf_d2r.models.delf import training_data  # noqa: E402
from delf_d2r.models.training.batches import ClassSampler, EpochSampler  # noqa: E402


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  return tiny_delf_training.write_photos(tmp_path_factory.mktemp('data') / 'photos', per_class=3)


def batches(photos, *changes, first_step=0, **options):
  config = tiny_delf_training.load(tiny_delf_training.TINY, *changes).training
  data = training_data.Batches(config, training_examples.load(photos))
  return list(data.dataset(first_step, **options).as_numpy_iterator())


def assert_equal(first, second):
  assert len(first) == len(second)
  for a, b in zip(first, second, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_every_epoch_is_another_permutation():
  order = EpochSampler(7, seed=1)
  epochs = [[order(7 * epoch + place) for place in range(7)] for epoch in range(3)]
  assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
  assert epochs[0] != epochs[1]
  assert epochs[0] != [EpochSampler(7, seed=2)(place) for place in range(7)]


def test_order_can_be_asked_anywhere():
  order = EpochSampler(5, seed=1)
  forward = [order(position) for position in range(40)]
  assert [order(position) for position in reversed(range(40))] == forward[::-1]


def test_same_seed_same_batches(photos):
  assert_equal(batches(photos), batches(photos))
  assert np.any(batches(photos)[0]['images'] != batches(photos, 'seed: 4')[0]['images'])


@pytest.mark.parametrize('objective', ['CLASSIFICATION', 'WARPED_PAIRS'])
def test_going_on_gives_the_batches_that_would_have_come(photos, objective):
  everything = batches(photos, f'objective: {objective}')
  assert len(everything) == 6
  assert_equal(batches(photos, f'objective: {objective}', first_step=4), everything[4:])


def test_pipelines_and_replicas_share_the_batch(photos):
  whole = batches(photos, 'steps: 2')
  parts = [batches(photos, 'steps: 2', pipelines=2, pipeline=k, replicas=2) for k in range(2)]
  for step in range(2):
    shared = [part[2 * step + replica] for part in parts for replica in range(2)]
    assert [len(item['labels']) for item in shared] == [1] * 4
    joined = {name: np.concatenate([item[name] for item in shared]) for name in whole[step]}
    assert_equal([joined], [whole[step]])


def test_images_are_rgb_in_0_to_255(photos):
  images = batches(photos, 'augmentation { enabled: false }')[0]['images']
  assert images.shape == (4, 64, 64, 3)
  assert images.dtype == np.float32
  assert images.min() >= 0
  assert 200 < images.max() < 255.01


def test_photo_that_cannot_be_decoded_is_replaced(tmp_path, caplog):
  photos = tiny_delf_training.write_photos(tmp_path / 'photos', per_class=2)
  (photos / 'arch/1.png').write_bytes(b'no photo')
  found = batches(photos, 'steps: 3')  # Two epochs.
  counts = np.bincount(np.concatenate([batch['labels'] for batch in found]), minlength=3)
  assert counts.tolist() == [2, 6, 4]


def test_error_of_the_reader_arrives_as_it_was(tmp_path):
  tiny_delf_training.write_shard(tmp_path / 'shard', [('photo7', b'x', 5)])
  config = tiny_delf_training.load(tiny_delf_training.TINY).training
  data = training_data.Batches(config, training_examples.load(tmp_path / 'shard', num_classes=3))
  with pytest.raises(UserError, match=r'shard: record 0 \(photo7\) has label 5'):
    next(data.batches())


def test_validation_sees_the_same_photos_each_time(photos):
  config = tiny_delf_training.load(
    tiny_delf_training.TINY, 'steps: 1000 validation { max_photos: 8 }'
  ).training
  data = training_data.for_validation(config, training_examples.load(photos))
  first, second = (list(data.dataset(0).as_numpy_iterator()) for _ in range(2))
  assert len(first) == 2
  assert_equal(first, second)


# Groups of a class


def drawn(labels, *, epochs=1, **options):
  """Returns the numbers of the photos of some epochs of whole groups."""
  order = ClassSampler(np.array(labels), 1, **options)
  groups = -(-len(labels) // options['group'])
  return np.array([order(position) for position in range(epochs * groups * options['group'])])


LABELS = [0] * 30 + [1] * 6 + [2] * 4 + [3]


def test_groups_are_of_one_class_and_without_repetition_where_it_can_be():
  numbers = drawn(LABELS, group=4, balance=0.0, epochs=3).reshape(-1, 4)
  labels = np.array(LABELS)[numbers]
  assert np.all(labels == labels[:, :1])
  of_large = numbers[labels[:, 0] == 0].reshape(-1)
  assert len(set(of_large[:28])) == 28
  assert len(set(map(tuple, labels[:11]))) > 1


def test_balance_goes_from_photos_to_classes():
  def counts(balance):
    return np.bincount(np.array(LABELS)[drawn(LABELS, group=1, balance=balance, epochs=40)]) / 40

  assert_allclose(counts(0.0), [30, 6, 4, 1], atol=1e-9)
  assert_allclose(counts(1.0), [41 / 4] * 4, atol=0.3)
  expected = np.array([30, 6, 4, 1]) ** 0.5
  assert_allclose(counts(0.5), 41 * expected / expected.sum(), atol=0.3)


def test_order_of_groups_can_be_asked_anywhere():
  order = ClassSampler(np.array(LABELS), 1, group=4, balance=0.5)
  forward = [order(position) for position in range(200)]
  again = ClassSampler(np.array(LABELS), 1, group=4, balance=0.5)
  assert [again(position) for position in reversed(range(200))] == forward[::-1]
  assert [ClassSampler(np.array(LABELS), 2, group=4, balance=0.5)(p) for p in range(200)] != forward


def test_batches_hold_groups(photos):
  for batch in batches(photos, 'photos_of_class: 2 class_balance: 1'):
    assert_array_equal(batch['labels'][0::2], batch['labels'][1::2])


def test_shards_do_not_tell_their_labels_beforehand(tmp_path):
  encoded = next(tiny_delf_training.write_photos(tmp_path / 'photos').rglob('*.png')).read_bytes()
  shard = tiny_delf_training.write_shard(tmp_path / 'train-0', [('a', encoded, 0)])
  config = tiny_delf_training.load(tiny_delf_training.TINY, 'class_balance: 1').training
  with pytest.raises(UserError, match='class_balance and photos_of_class need to know all labels'):
    training_data.Batches(config, training_examples.load(shard, num_classes=1))


def test_unchanged_photos_come_once_each(photos):
  config = tiny_delf_training.load(tiny_delf_training.TINY, 'class_balance: 1 batch_size: 3').training
  examples = training_examples.load(photos)

  def labels(count):
    data = training_data.unchanged(config, examples, count)
    return np.concatenate([batch['labels'].numpy() for batch in data.batches()])

  assert sorted(labels(0)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
  assert len(labels(4)) == 6
