"""Codebook checkpoints: those that TensorFlow itself writes are read, ours are read by TensorFlow itself."""

import numpy as np
import pytest
import tensorflow as tf

from delf_d2r.errors import UserError
from delf_d2r.models import codebook_checkpoint

WORDS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def save_by_name(prefix, **variables):
  """What a TensorFlow 1 Saver writes, `.meta` and all."""
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    made = {name: tf.compat.v1.get_variable(name, initializer=value) for name, value in variables.items()}
    session.run(tf.compat.v1.global_variables_initializer())
    tf.compat.v1.train.Saver(made).save(session, str(prefix), write_state=False)


def test_name_based_checkpoint_of_an_estimator(tmp_path):
  # k-means leaves more than the words in its checkpoints.
  save_by_name(tmp_path / 'codebook', clusters=WORDS, global_step=np.int64(7), initialized=True)
  assert (tmp_path / 'codebook.meta').is_file()
  np.testing.assert_array_equal(codebook_checkpoint.read(tmp_path / 'codebook'), WORDS)
  np.testing.assert_array_equal(codebook_checkpoint.read(tmp_path / 'codebook.index'), WORDS)
  np.testing.assert_array_equal(codebook_checkpoint.read(tmp_path), WORDS)


def test_object_based_checkpoint(tmp_path):
  saved = tf.train.Checkpoint(codebook=tf.Variable(WORDS, name='clusters')).save(str(tmp_path / 'codebook'))
  found = codebook_checkpoint.read(saved)
  np.testing.assert_array_equal(found, WORDS)
  assert found.dtype == np.float32
  # The folder names the latest one.
  tf.train.Checkpoint(codebook=tf.Variable(2 * WORDS)).save(str(tmp_path / 'later'))
  np.testing.assert_array_equal(codebook_checkpoint.read(tmp_path), 2 * WORDS)


@pytest.mark.parametrize('name_based', [False, True])
def test_what_is_written_is_what_the_research_code_restores(tmp_path, name_based):
  codebook_checkpoint.write(tmp_path / 'codebook', WORDS, name_based=name_based)
  assert sorted(file.name for file in tmp_path.iterdir()) == [
    'codebook.data-00000-of-00001',
    'codebook.index',
  ]
  # Its TensorFlow 2 code: zeros under attribute `codebook`, restored without a look at what was found.
  codebook = tf.Variable(tf.zeros([6, 4]), name='clusters')
  tf.train.Checkpoint(codebook=codebook).restore(str(tmp_path / 'codebook')).expect_partial()
  np.testing.assert_array_equal(codebook.numpy(), WORDS)
  np.testing.assert_array_equal(codebook_checkpoint.read(tmp_path / 'codebook'), WORDS)
  if name_based:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
      variable = tf.compat.v1.get_variable('codebook', shape=[6, 4])
      tf.compat.v1.train.init_from_checkpoint(str(tmp_path / 'codebook'), {'clusters': variable})
      session.run(tf.compat.v1.global_variables_initializer())
      np.testing.assert_array_equal(session.run(variable), WORDS)


@pytest.mark.parametrize('name_based', [False, True])
def test_writing_again_replaces(tmp_path, name_based):
  codebook_checkpoint.write(tmp_path / 'codebook', WORDS, name_based=not name_based)
  codebook_checkpoint.write(tmp_path / 'codebook', WORDS[:3], name_based=name_based)
  np.testing.assert_array_equal(codebook_checkpoint.read(tmp_path / 'codebook'), WORDS[:3])
  before = (tmp_path / 'codebook.index').read_bytes()
  codebook_checkpoint.write(tmp_path / 'codebook', WORDS[:3], name_based=name_based)
  assert (tmp_path / 'codebook.index').read_bytes() == before


def test_a_checkpoint_without_a_codebook_is_an_error_not_a_codebook_of_zeros(tmp_path):
  save_by_name(tmp_path / 'resnet', weights=WORDS, global_step=np.int64(7))
  with pytest.raises(
    UserError, match=r"resnet: no codebook in it: expected 'clusters' .* global_step, weights"
  ):
    codebook_checkpoint.read(tmp_path / 'resnet')
  saved = tf.train.Checkpoint(model=tf.Variable(WORDS)).write(str(tmp_path / 'model'))
  with pytest.raises(UserError, match=r'no codebook in it: .*model/\.ATTRIBUTES'):
    codebook_checkpoint.read(saved)


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (np.zeros((6, 4), np.float32), r"'clusters' \[6, 4\] is all zero"),
    (np.full((6, 4), np.nan, np.float32), r'\[6, 4\] is not finite'),
    (np.ones(6, np.float32), r'expected floats \[K, D\] as .* found float32 \[6\]'),
    (np.ones((6, 4), np.int32), r'found int32 \[6, 4\]'),
    (np.zeros((0, 4), np.float32), r'found float32 \[0, 4\]'),
  ],
)
def test_words_that_are_none(tmp_path, words, message):
  save_by_name(tmp_path / 'codebook', clusters=words)
  with pytest.raises(UserError, match=message):
    codebook_checkpoint.read(tmp_path / 'codebook')


def test_damage(tmp_path):
  codebook_checkpoint.write(tmp_path / 'codebook', WORDS, name_based=True)
  data = tmp_path / 'codebook.data-00000-of-00001'
  whole = data.read_bytes()
  data.write_bytes(whole[:20])
  with pytest.raises(UserError, match='codebook: not readable as a checkpoint'):
    codebook_checkpoint.read(tmp_path / 'codebook')
  data.write_bytes(b'\x01' + whole[1:])
  with pytest.raises(UserError, match='codebook: not readable as a checkpoint'):
    codebook_checkpoint.read(tmp_path / 'codebook')
  (tmp_path / 'codebook.index').write_bytes(b'this is no checkpoint')
  with pytest.raises(UserError, match='codebook: not readable as a checkpoint'):
    codebook_checkpoint.read(tmp_path / 'codebook')


def test_where_there_is_none_or_more_than_one(tmp_path):
  with pytest.raises(UserError, match=r'no checkpoint of that prefix \(.*codebook\.index is missing\)'):
    codebook_checkpoint.read(tmp_path / 'codebook')
  with pytest.raises(UserError, match=r'expected one checkpoint, found 0 \(no \*\.index file\)'):
    codebook_checkpoint.read(tmp_path)
  for name in 'ab':
    codebook_checkpoint.write(tmp_path / name, WORDS, name_based=True)
  with pytest.raises(UserError, match=r'expected one checkpoint, found 2 \(.*a, .*b\)'):
    codebook_checkpoint.read(tmp_path)
