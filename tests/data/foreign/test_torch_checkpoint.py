"""PyTorch checkpoints: tensors are read, programs are not executed."""

import pickle
import struct

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from delf_d2r.data.foreign import torch_checkpoint
from delf_d2r.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C


def state_pickle(
  items: dict, *, called=b'ctorch._utils\n_rebuild_tensor_v2\n', storage=b'ctorch\nFloatStorage\n'
):
  """Writes the pickled state dict of {name: (key, count, offset, shape, strides)} by opcodes."""
  data = b'\x80\x02}('
  for name, (key, count, offset, shape, strides) in items.items():
    data += pickle.dumps(name, 0)[:-1] + called + b'('
    # The persistent id ('storage', FloatStorage, key, 'cpu', count, None).
    data += b'(' + b''.join(pickle.dumps(v, 0)[:-1] for v in ('storage',)) + storage
    data += b''.join(pickle.dumps(v, 0)[:-1] for v in (key, 'cpu', count, None)) + b'tQ'
    data += b''.join(pickle.dumps(v, 2)[2:-1] for v in (offset, shape, strides, False, {})) + b'tR'
  return data + b'u.'


def checkpoint(items, storages, **options) -> bytes:
  sizes = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}}
  data = b''.join(pickle.dumps(value, 2) for value in (MAGIC, 1001, sizes))
  data += state_pickle(items, **options) + pickle.dumps(list(storages), 2)
  for values in storages.values():
    data += struct.pack('<q', len(values)) + np.asarray(values, '<f4').tobytes()
  return data


def load(tmp_path, data):
  path = tmp_path / 'x.pth'
  path.write_bytes(data)
  return torch_checkpoint.load(path)


def test_tensors_are_views_of_storages(tmp_path):
  items = {
    'a': ('1', 6, 0, (2, 3), (3, 1)),
    'transposed': ('1', 6, 0, (3, 2), (1, 3)),
    'part': ('2', 4, 1, (2,), (2,)),
    'scalar': ('2', 4, 2, (), ()),
    'empty': ('2', 4, 0, (0, 5), (5, 1)),
  }
  found = load(tmp_path, checkpoint(items, {'1': range(6), '2': [10, 11, 12, 13]}))
  assert_array_equal(found['a'], [[0, 1, 2], [3, 4, 5]])
  assert_array_equal(found['transposed'], found['a'].T)
  assert_array_equal(found['part'], [11, 13])
  assert found['scalar'] == 12
  assert found['empty'].shape == (0, 5)
  assert {array.dtype for array in found.values()} == {np.dtype('float32')}


def test_any_other_global_is_refused(tmp_path):
  data = checkpoint({'a': ('1', 1, 0, (1,), (1,))}, {'1': [1]}, called=b'cos\nsystem\n')
  with pytest.raises(UserError, match=r'refused the global os.system.*nothing was executed'):
    load(tmp_path, data)


@pytest.mark.parametrize(
  'item',
  [
    ('1', 4, 1, (2, 2), (2, 1)),
    ('1', 4, -1, (1,), (1,)),
    ('1', 4, 3, (2,), (-3,)),
    ('1', 4, 0, (9999, 9999), (0, 0)),
  ],
)
def test_a_view_beyond_its_storage_is_refused(tmp_path, item):
  with pytest.raises(UserError, match='reaches beyond its storage of 4 items'):
    load(tmp_path, checkpoint({'a': item}, {'1': range(4)}))


def test_damage_is_a_clear_error(tmp_path):
  whole = checkpoint({'a': ('1', 4, 0, (4,), (1,))}, {'1': range(4)})
  for data in (b'', whole[:40], whole[:-3], b'PK\x03\x04 zip', pickle.dumps(5, 2)):
    with pytest.raises(UserError, match=r'x\.pth: no PyTorch checkpoint'):
      load(tmp_path, data)
  with pytest.raises(UserError, match='No such file'):
    torch_checkpoint.load(tmp_path / 'none.pth')


def test_memo_larger_than_the_file_is_refused(tmp_path):
  whole = checkpoint({'a': ('1', 1, 0, (1,), (1,))}, {'1': [1]})
  # LONG_BINPUT of slot 2^31: the unpickler of CPython would allocate that many slots.
  with pytest.raises(UserError, match='memo slot 2147483648 of a file of'):
    load(tmp_path, b'\x80\x02K\x01r\x00\x00\x00\x80.' + whole)
