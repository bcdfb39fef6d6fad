import io
import os
import pathlib
import pickle
import struct
import time

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from delf_d2r.data.foreign import restricted_pickle
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.errors import UserError

REVISITED = pathlib.Path(__file__).resolve().parents[4] / 'shared/data/revisited_ground_truth'
needs_revisited = pytest.mark.skipif(
  not REVISITED.is_dir(), reason='../shared/data is not beside the checkout'
)

IMAGES = ['ashmolean_1', 'oxford_2', 'radcliffe_3', 'magdalen_4', 'hertford_5']
QUERIES = ['all_souls_13', 'all_souls_26']
GND = [
  {'bbx': [136.5, 34.1, 648.5, 955.7], 'easy': [0, 2], 'hard': [4], 'junk': [1]},
  {'bbx': [78, 5, 714, 1000], 'easy': [], 'hard': [3], 'junk': []},
]
CONTENT = {'gnd': GND, 'imlist': IMAGES, 'qimlist': QUERIES}

# Opcodes: the function, an array about to be filled, the dtype.
RECONSTRUCT = b'cnumpy.core.multiarray\n_reconstruct\n'
EMPTY_ARRAY = RECONSTRUCT + b'cnumpy\nndarray\nK\x00\x85U\x01b\x87R'
INT64 = b'cnumpy\ndtype\nU\x02i8K\x00K\x01\x87R'


def load_bytes(folder, data, name='gnd_mini.pkl'):
  (folder / name).write_bytes(data)
  return ground_truth.load(folder / name)


def load_pickled(folder, content, protocol=2):
  return load_bytes(folder, pickle.dumps(content, protocol))


def with_query(**fields):
  return {**CONTENT, 'gnd': [{**GND[0], **fields}, GND[1]]}


def as_arrays(content):
  gnd = [{key: np.array(value) for key, value in entry.items()} for entry in content['gnd']]
  return {'gnd': gnd, 'imlist': np.array(content['imlist']), 'qimlist': np.array(content['qimlist'], object)}


def cells(names):
  """Returns a MATLAB cell array of strings."""
  return np.array(names, object).reshape(1, -1)


def matlab_content(gnd=GND, first=1):
  """Returns the form of MATLAB: cells, and a struct array whose positions begin with 1."""
  array = np.empty((1, len(gnd)), [(key, object) for key in ('easy', 'hard', 'junk', 'bbx')])
  for i, entry in enumerate(gnd):
    for label in ('easy', 'hard', 'junk'):
      array[0, i][label] = np.array([n + first for n in entry[label]], np.float64).reshape(1, -1)
    array[0, i]['bbx'] = np.array(entry['bbx'], np.float64).reshape(1, -1)
  return {'gnd': array, 'imlist': cells(IMAGES), 'qimlist': cells(QUERIES)}


def load_matlab(folder, content, **options):
  scipy.io.savemat(folder / 'gnd_mini.mat', content, **options)
  return ground_truth.load(folder / 'gnd_mini.mat')


def assert_mini(found):
  assert found.name == 'mini'
  assert found.index_images == tuple(IMAGES)
  first, second = found.queries
  assert (first.name, first.image, first.box) == ('all_souls_13', 'all_souls_13', None)
  assert first.box_pixels == (136.5, 34.1, 648.5, 955.7)
  assert first.easy == ('ashmolean_1', 'radcliffe_3')
  assert (first.hard, first.junk) == (('hertford_5',), ('oxford_2',))
  assert (second.easy, second.hard, second.junk) == ((), ('magdalen_4',), ())
  assert second.box_pixels == (78, 5, 714, 1000)


@needs_revisited
@pytest.mark.parametrize(
  ('name', 'num_images', 'first_query', 'box', 'first_easy'),
  [
    ('roxford5k', 4993, 'all_souls_000013', (136.5, 34.1, 648.5, 955.7), 30),
    ('rparis6k', 6322, 'paris_defense_000605', (130, 17, 843, 732), 85),
  ],
)
def test_the_published_files(name, num_images, first_query, box, first_easy):
  truth = ground_truth.load(REVISITED / f'gnd_{name}.pkl')
  assert (truth.name, len(truth.index_images), len(truth.queries)) == (name, num_images, 70)
  assert (truth.queries[0].image, truth.queries[0].box_pixels) == (first_query, box)
  assert not {query.image for query in truth.queries} & set(truth.index_images)
  photos = [f'jpg/{image}.jpg' for image in truth.index_images]
  resolved = ground_truth.resolve(truth, photos)
  assert resolved[0].easy[0] == first_easy
  trusted = pickle.loads((REVISITED / f'gnd_{name}.pkl').read_bytes())
  for found, entry in zip(resolved, trusted['gnd'], strict=True):
    for label in ('easy', 'hard', 'junk'):
      np.testing.assert_array_equal(getattr(found, label), entry[label])


@needs_revisited
def test_the_published_files_survive_json(tmp_path):
  truth = ground_truth.load(REVISITED / 'gnd_roxford5k.pkl')
  ground_truth.save_json(truth, tmp_path / 'roxford5k.json')
  assert ground_truth.load(tmp_path / 'roxford5k.json') == truth


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('form', [lambda content: content, as_arrays], ids=['lists', 'arrays'])
def test_pickles_of_every_protocol(tmp_path, protocol, form):
  assert_mini(load_pickled(tmp_path, form(CONTENT), protocol))


def test_numpy_scalars_in_lists(tmp_path):
  content = with_query(easy=[np.int64(0), np.uint8(2)], bbx=list(np.array(GND[0]['bbx'])))
  assert_mini(load_pickled(tmp_path, content))


def python2_string(text):
  return b'U' + bytes([len(text)]) + text.encode('latin1')


def python2_array(values, dtype):
  """Returns the pickle of Python 2 and NumPy 1, protocol 2: byte strings, numpy.core."""
  raw = np.array(values, dtype).tobytes()
  minus_one = b'J\xff\xff\xff\xff'
  byte_order = b'(K\x03U\x01<NNN' + minus_one + minus_one + b'K\x00tb'
  shape = b'J' + struct.pack('<i', len(values)) + b'\x85'
  content = b'T' + struct.pack('<I', len(raw)) + raw
  dtype = b'cnumpy\ndtype\n' + python2_string(dtype) + b'K\x00K\x01\x87R' + byte_order
  return EMPTY_ARRAY + b'(K\x01' + shape + dtype + b'\x89' + content + b'tb'


def python2_list(items):
  return b'](' + b''.join(items) + b'e'


def python2_dict(items):
  return b'}(' + b''.join(python2_string(key) + value for key, value in items.items()) + b'u'


def test_pickle_of_python_2(tmp_path):
  gnd = [
    python2_dict({key: python2_array(value, 'f8' if key == 'bbx' else 'i8') for key, value in entry.items()})
    for entry in GND
  ]
  data = python2_dict(
    {
      'gnd': python2_list(gnd),
      'imlist': python2_list(map(python2_string, IMAGES)),
      'qimlist': python2_list(map(python2_string, QUERIES)),
    }
  )
  data = b'\x80\x02' + data + b'.'
  assert pickle.loads(data, encoding='latin1')['imlist'] == IMAGES  # The bytes made here are a pickle.
  assert_mini(load_bytes(tmp_path, data))


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ([1, 2], 'the file: expected gnd, imlist, qimlist, found a value of type list'),
    ({'imlist': IMAGES}, r'expected gnd, imlist, qimlist, found \["\'imlist\'"\]'),
    ({**CONTENT, 'imlist': 'ashmolean'}, 'imlist: expected a list, found a value of type str'),
    (
      {**CONTENT, 'imlist': [*IMAGES[:4], 5]},
      r'imlist\[4\]: expected an image name, found a value of type int',
    ),
    ({**CONTENT, 'imlist': [*IMAGES[:4], IMAGES[3]]}, "index_images: 'magdalen_4' appears 2 times"),
    ({**CONTENT, 'qimlist': QUERIES[:1]}, 'gnd: expected one entry for each of 1 queries, found 2'),
    ({**CONTENT, 'qimlist': QUERIES[:1] * 2}, "query 'all_souls_13' appears 2 times"),
    ({**CONTENT, 'gnd': 3}, 'gnd: expected a list, found a value of type int'),
    ({**CONTENT, 'gnd': [], 'qimlist': []}, 'queries: expected at least one'),
    ({**CONTENT, 'gnd': [{'ok': [], 'junk': []}] * 2}, 'expected easy, hard, junk, .*older annotations'),
    (with_query(easy=[5]), r"query 'all_souls_13': easy: .*from 0 to 4 \(5 images in imlist\), found 5"),
    (with_query(hard=[-1]), 'hard: .*from 0 to 4 .*found -1'),
    (with_query(easy=[0.5]), 'expected whole numbers .*found 0.5'),
    (with_query(easy=['ashmolean_1']), "expected finite numbers, found 'ashmolean_1'"),
    (with_query(easy=[True]), 'expected finite numbers, found True'),
    (with_query(easy=[4]), "query 'all_souls_13': 'hertford_5' is both easy and hard"),
    (with_query(bbx=[1, 2, 3]), 'box_pixels: expected .* four finite numbers'),
    (with_query(bbx=[1, float('nan'), 3, 4]), 'bbx: expected finite numbers, found nan'),
    (with_query(bbx=[700, 34, 600, 900]), 'each minimum below its maximum'),
  ],
)
def test_other_forms_are_refused(tmp_path, content, message):
  with pytest.raises(UserError, match=message) as caught:
    load_pickled(tmp_path, content)
  assert 'gnd_mini.pkl' in str(caught.value)


def test_a_query_without_a_box_is_the_whole_photo(tmp_path):
  assert load_pickled(tmp_path, with_query(bbx=[])).queries[0].box_pixels is None
  assert load_pickled(tmp_path, with_query(bbx=None)).queries[0].box_pixels is None
  gnd = [{key: value for key, value in entry.items() if key != 'bbx'} for entry in GND]
  truth = load_pickled(tmp_path, {**CONTENT, 'gnd': gnd})
  assert [query.box_for(480, 640) for query in truth.queries] == [None] * len(truth.queries)


def test_a_normalised_box_is_refused(tmp_path):
  with pytest.raises(UserError, match=r'gnd_mini\.pkl.* normalised'):
    load_pickled(tmp_path, with_query(bbx=[0.1, 0.2, 0.9, 0.8]))


class Malicious:
  def __init__(self, function, *arguments):
    self.reduced = function, arguments

  def __reduce__(self):
    return self.reduced


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize(
  ('function', 'name'),
  [
    (os.system, 'system'),
    (eval, 'eval'),
    (getattr, 'getattr'),
    (np.load, 'load'),
    (pathlib.Path, 'Path'),
    (bytearray, 'bytearray'),
  ],
)
def test_malicious_pickles_are_refused_and_run_nothing(tmp_path, protocol, function, name):
  victim = tmp_path / 'victim'
  content = {**CONTENT, 'imlist': Malicious(function, f'touch {victim}')}
  with pytest.raises(UserError, match=rf'refused the global \S*\.{name}: .*nothing was executed.*JSON'):
    load_pickled(tmp_path, content, protocol)
  assert not victim.exists()


def opcodes(body):
  return b'\x80\x02' + body + b'.'


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    # The opcode BUILD on an admitted global: it must not change what later loads do.
    (opcodes(RECONSTRUCT + b'}U\x09_functionNsb'), 'refused to set the state'),
    (opcodes(RECONSTRUCT + b'N}U\x09_functionNs\x86b'), 'refused to set the state'),
    (opcodes(b'cnumpy\nndarray\n)R'), 'refused to call a class'),
    (opcodes(b'cnumpy\nndarray\n)\x81'), 'damaged'),
    (opcodes(b'cnumpy\ndtype\nU\x04i8,OK\x00K\x01\x87R'), "refused the dtype 'i8,O'"),
    (opcodes(b'cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R'), "refused the dtype 'V8'"),
    (opcodes(b'cnumpy\ndtype\nU\x02S0K\x00K\x01\x87R)b'), 'damaged'),
    (opcodes(b'c_codecs\nencode\nU\x01aU\x03rot\x86R'), "refused the encoding 'rot'"),
    # An array that claims more, fewer, negative or no items than it has bytes for.
    (opcodes(EMPTY_ARRAY + b'(K\x01(K\x02t' + INT64 + b'\x89U\x08' + b'a' * 8 + b'tb'), '2 items, found 1'),
    (opcodes(EMPTY_ARRAY + b'(K\x01(J\xff\xff\xff\xfft' + INT64 + b'\x89U\x00tb'), 'not a tuple'),
    (opcodes(b'cnumpy.core.multiarray\nscalar\n' + INT64 + b'U\x01a\x86R'), 'needs 1 items, found 0.125'),
    # Memo slot 2 ** 31: the C unpickler would allocate tens of gigabytes.
    (opcodes(b']r\x00\x00\x00\x80'), 'writes memo slot 2147483648'),
    (opcodes(b'\x96' + struct.pack('<Q', 2**50)), 'damaged'),
    (opcodes(b'\x8d' + struct.pack('<Q', 2**50)), 'damaged'),
    (opcodes(b'Q'), 'damaged|persistent'),
    (opcodes(b'\x82\x01'), 'damaged|extension'),
    (b'', 'damaged'),
    (b'not a pickle', 'damaged'),
  ],
)  # fmt: skip
def test_crafted_pickles_are_refused(data, message):
  with pytest.raises(ValueError, match=message):
    restricted_pickle.loads(data)
  array = np.arange(3)
  np.testing.assert_array_equal(restricted_pickle.loads(pickle.dumps(array, 2)), array)


def test_nested_references_do_not_explode(tmp_path):
  bomb = []
  for _ in range(60):
    bomb = [bomb, bomb]
  start = time.monotonic()
  for content in (bomb, {**CONTENT, 'imlist': bomb}, with_query(easy=bomb), {**CONTENT, 'gnd': bomb}):
    with pytest.raises(UserError) as caught:
      load_pickled(tmp_path, content)
    assert len(str(caught.value)) < 2000
  assert time.monotonic() - start < 5


@pytest.mark.parametrize('form', [lambda content: content, as_arrays], ids=['lists', 'arrays'])
def test_a_pickle_cut_short_anywhere_is_refused(form):
  data = pickle.dumps(form(CONTENT), 2)
  for size in range(len(data)):
    with pytest.raises(ValueError, match=r'damaged|refused'):
      restricted_pickle.loads(data[:size])


@given(st.data())
def test_a_damaged_pickle_gives_a_value_or_an_error(data):
  content = bytearray(pickle.dumps(as_arrays(CONTENT), 2))
  for _ in range(data.draw(st.integers(1, 4))):
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
  try:
    restricted_pickle.loads(bytes(content))
  except ValueError as error:
    assert str(error)  # noqa: PT017


@pytest.mark.parametrize(
  'array',
  [
    np.zeros((0, 4), np.float32),
    np.arange(6, dtype='>i4').reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([True, False]),
    np.array(['é', 'abc']),
    np.array([b'a', b'abc']),
    np.array([[1, 'a'], [None, 2.5]], object),
    np.array(7),
  ],
  ids=lambda array: f'{array.dtype.str}{array.shape}',
)
@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_as_they_were(array, protocol):
  found = np.asarray(restricted_pickle.loads(pickle.dumps(array, protocol)))
  # NumPy, too, swaps the bytes when it reads protocols below 5.
  native = [values.astype(values.dtype.newbyteorder('=')) for values in (found, array)]
  np.testing.assert_array_equal(*native, strict=True)


def test_mat_counts_from_1(tmp_path):
  assert_mini(load_matlab(tmp_path, matlab_content()))


@pytest.mark.parametrize('compress', [False, True])
def test_mat_compressed_and_in_columns(tmp_path, compress):
  content = matlab_content()
  content = {key: value.reshape(-1, 1) for key, value in content.items()}
  assert_mini(load_matlab(tmp_path, content, do_compression=compress))


def test_mat_of_one_query(tmp_path):
  content = matlab_content(GND[:1])
  content['qimlist'] = cells(QUERIES[:1])
  found = load_matlab(tmp_path, content)
  assert [query.easy for query in found.queries] == [('ashmolean_1', 'radcliffe_3')]


def test_mat_saved_from_python_lists(tmp_path):
  gnd = [
    {key: [n + 1 for n in value] if key != 'bbx' else value for key, value in entry.items()} for entry in GND
  ]
  assert_mini(load_matlab(tmp_path, {'gnd': np.array(gnd), 'imlist': IMAGES, 'qimlist': QUERIES}))


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (matlab_content(first=0), r"query 'all_souls_13': easy: .*from 1 to 5 .*found 0"),
    (matlab_content(first=2), r'from 1 to 5 .*found 6'),
    ({**matlab_content(), 'imlist': cells([1, 2])}, r'imlist\[0\]: expected an image name'),
    (
      {key: value for key, value in matlab_content().items() if key != 'gnd'},
      'expected gnd, imlist, qimlist',
    ),
    ({**matlab_content(), 'gnd': np.arange(2.0)}, "query 'all_souls_13': expected easy, hard, junk"),
  ],
)
def test_other_mats_are_refused(tmp_path, content, message):
  with pytest.raises(UserError, match=message) as caught:
    load_matlab(tmp_path, content)
  assert 'gnd_mini.mat' in str(caught.value)


def test_damaged_mats_are_refused(tmp_path):
  buffer = io.BytesIO()
  scipy.io.savemat(buffer, matlab_content(), do_compression=True)
  whole = buffer.getvalue()
  for data in (b'', b'text', whole[:100], whole[: len(whole) // 2], whole[:-3]):
    with pytest.raises(UserError, match=r'not a MATLAB file, or cut short|expected gnd, imlist'):
      load_bytes(tmp_path, data, 'gnd_mini.mat')


def test_mat_73_is_refused_with_the_remedy(tmp_path):
  header = b'MATLAB 7.3 MAT-file'.ljust(124) + b'\x00\x02IM' + b'\x89HDF\r\n\x1a\n' + bytes(400)
  with pytest.raises(UserError, match=r'7\.3 files are not read; save it with'):
    load_bytes(tmp_path, header, 'gnd_mini.mat')
