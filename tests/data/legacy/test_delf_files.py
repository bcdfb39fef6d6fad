"""`.delf` files: published bytes (docs/reference.md 1.2), and invalid files."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support import legacy_files

from delf_d2r.data.legacy import delf_files
from delf_d2r.errors import UserError
from delf_d2r.structures import LocalFeatures

# x, y, scale, orientation and strength are float32 (tags 15, 1d, 25, 2d, 35); the orientation 0 is written.
ONE = (
  '0a2c'
  + ('0a11' + '0a030a0102' + '120a0a080000c03f00002040')
  + ('150000a040' + '1d00004040' + '250000803f' + '2d00000000' + '350000c842')
)
FEATURES = LocalFeatures(
  np.array([[3, 5]], np.float32),
  np.array([1], np.float32),
  np.array([100], np.float32),
  np.array([[1.5, 2.5]], np.float32),
)


def test_bytes_of_the_research_code():
  assert delf_files.encode(FEATURES).hex() == ONE
  assert delf_files.encode(LocalFeatures.empty(128)) == b''
  # The support that other tests make files with agrees.
  assert legacy_files.delf([(3, 5)], [(1.5, 2.5)], scale=1, strength=100).hex() == ONE


def test_reading_those_bytes():
  found = delf_files.decode(bytes.fromhex(ONE))
  for name in ('locations', 'scales', 'attention', 'descriptors'):
    assert_array_equal(getattr(found, name), getattr(FEATURES, name))
    assert getattr(found, name).dtype == np.float32
  assert delf_files.decode(b'').descriptors.shape == (0, 0)


def test_many_features_of_128_dimensions(tmp_path):
  locations, descriptors = (
    np.random.default_rng(1).uniform(0, 999, (50, 2)).astype('f4'),
    legacy_files.unit(50, 128),
  )
  data = legacy_files.delf(locations, descriptors)
  (tmp_path / 'x.delf').write_bytes(data)
  found = delf_files.read(tmp_path / 'x.delf')
  assert_array_equal(found.locations, locations)
  assert_array_equal(found.descriptors, descriptors)
  assert_array_equal(found.attention, 120 - np.arange(50))
  delf_files.write(tmp_path / 'y.delf', found)
  assert (tmp_path / 'y.delf').read_bytes() == data


def test_an_orientation_is_read_over():
  turned = delf_files.decode(legacy_files.delf([(3, 5)], [(1.5, 2.5)], orientation=2.0))
  assert_array_equal(turned.locations, FEATURES.locations)


NAN = float('nan')


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (bytes.fromhex(ONE)[:-3], 'Error parsing message'),
    (legacy_files.boxes([(0, 0, 1, 1, 0.5)]), r'feature 0: a descriptor of shape \[\] with 0 floats'),
    (legacy_files.datum(np.ones((2, 3), np.float32)), 'x.delf'),
    (legacy_files.pair(np.ones(4, np.float32), np.arange(2)), 'x.delf'),
    (b'ymin,xmin\n', 'x.delf'),
    (legacy_files.delf([(0, 0), (1, 1)], [(1, 2), (1, 2, 3)]), 'feature 1 has 3 dimensions, the first has 2'),
    (legacy_files.delf([(0, 0)], [(1, NAN)]), 'not finite'),
    (legacy_files.delf([(0, NAN)], [(1, 1)]), 'not finite'),
    (legacy_files.delf([(0, 0)], [(1, 1)], scale=float('inf')), 'not finite'),
    (
      legacy_files.submessage(1, legacy_files.submessage(1, legacy_files.datum(np.ones((1, 2), 'f4')))),
      r'shape \[1, 2\]',
    ),
  ],
)
def test_what_is_no_such_file(tmp_path, data, message):
  (tmp_path / 'x.delf').write_bytes(data)
  with pytest.raises(UserError, match=r'x\.delf: not readable as a \.delf file') as error:
    delf_files.read(tmp_path / 'x.delf')
  error.match(message)


def test_missing_file(tmp_path):
  with pytest.raises(UserError, match=r'none\.delf: not readable'):
    delf_files.read(tmp_path / 'none.delf')
