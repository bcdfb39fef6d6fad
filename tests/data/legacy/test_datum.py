"""`.datum` files: published bytes (docs/reference.md 1.1), and PCA files in both formats."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from delf_d2r.data.artefacts import pca_files
from delf_d2r.data.legacy import datum
from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import Covariance
from delf_d2r.protos import delf_datum_pb2, extraction_pb2

FLOATS = '0a040a020102120a0a080000c03f00002040'
PAIR = '0a0c0a030a01021a050a0340c001120b0a030a01021a040a020304'
EMPTY = '0a030a01001a00'


def test_bytes_of_the_research_code():
  array = np.array([[1.5, 2.5]], np.float32)
  assert datum.encode(array).SerializeToString().hex() == FLOATS
  pair = datum.encode_pair(np.array([64, 192], np.uint8), np.array([3, 4], np.uint32))
  assert pair.SerializeToString().hex() == PAIR
  assert datum.encode(np.zeros(0, np.uint8)).SerializeToString().hex() == EMPTY


def test_reading_those_bytes():
  found = datum.decode(delf_datum_pb2.DatumProto.FromString(bytes.fromhex(FLOATS)))
  assert found.dtype == np.float32
  assert_array_equal(found, [[1.5, 2.5]])
  first, second = datum.decode_pair(delf_datum_pb2.DatumPairProto.FromString(bytes.fromhex(PAIR)))
  assert first.dtype == second.dtype == np.uint32
  assert (first.tolist(), second.tolist()) == ([64, 192], [3, 4])
  assert datum.decode(delf_datum_pb2.DatumProto.FromString(bytes.fromhex(EMPTY))).shape == (0,)


@pytest.mark.parametrize('shape', [(), (0, 3), (2, 3, 4)])
@pytest.mark.parametrize('dtype', ['float16', 'float64', 'uint16', 'uint64'])
def test_any_rank_survives_a_file(tmp_path, shape, dtype):
  array = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
  datum.write(tmp_path / 'x.datum', np.asarray(array))
  found = datum.read(tmp_path / 'x.datum')
  assert found.dtype == (np.float32 if dtype.startswith('float') else np.uint32)
  assert_array_equal(found, array)


def test_what_a_datum_cannot_hold():
  for array, message in (
    (np.zeros(2, np.int64), 'found int64'),
    (np.zeros(2, bool), 'found bool'),
    (np.array([2**32], np.uint64), 'integers of 32 bits, found 4294967296'),
  ):
    with pytest.raises(ValueError, match=message):
      datum.encode(array)


def test_damage(tmp_path):
  with pytest.raises(UserError, match=r'none\.datum: not readable'):
    datum.read(tmp_path / 'none.datum')
  for data, message in (
    (b'\xff\xff', 'not readable'),
    (b'', 'without values'),
    (bytes.fromhex('0a040a020103' + FLOATS[12:]), r'shape \(1, 3\) has 2 values'),
  ):
    (tmp_path / 'x.datum').write_bytes(data)
    with pytest.raises(UserError, match=message):
      datum.read(tmp_path / 'x.datum')


def test_both_forms_of_a_pca_hold_the_same(tmp_path):
  covariance = Covariance(4)
  covariance.add(np.random.default_rng(0).normal(size=(50, 4)))
  pca_files.save(covariance.pca(), tmp_path)
  ours = pca_files.load_configured(extraction_pb2.DelfPcaConfig(path=str(tmp_path), dimensions=3))
  theirs = pca_files.load_configured(
    extraction_pb2.DelfPcaConfig(
      mean_path=str(tmp_path / 'mean.datum'),
      projection_matrix_path=str(tmp_path / 'pca_proj_mat.datum'),
      variances_path=str(tmp_path / 'pca_variances.datum'),
      dimensions=3,
    )
  )
  assert (ours.input_dimensions, ours.dimensions) == (4, 3)
  for name in pca_files.NAMES:
    assert_array_equal(getattr(ours, name), getattr(theirs, name))
