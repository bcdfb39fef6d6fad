"""Files of some kilobytes that would unpack to gigabytes are refused before unpacking."""

import io
import resource
import struct
import zipfile
import zlib

import numpy as np
import pytest

from delf_d2r.data.artefacts import live_files
from delf_d2r.data.foreign import hloc_files
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.errors import ArtefactError, UserError

ZEROS = bytes(1 << 20)


def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mat_bomb(order='<', megabytes=200):
  """Writes a MATLAB file of one compressed element that unpacks to a number of zeros."""
  packer = zlib.compressobj(1)
  packed = b''.join(packer.compress(ZEROS) for _ in range(megabytes)) + packer.flush()
  header = b'MATLAB 5.0'.ljust(124) + struct.pack(f'{order}H', 0x0100) + (b'IM' if order == '<' else b'MI')
  return header + struct.pack(f'{order}II', 15, len(packed)) + packed


@pytest.mark.parametrize('order', ['<', '>'])
def test_matlab_bomb(tmp_path, order):
  (tmp_path / 'gnd.mat').write_bytes(mat_bomb(order))
  assert (tmp_path / 'gnd.mat').stat().st_size < 2_000_000
  before = peak()
  with pytest.raises(UserError, match=r'gnd\.mat: it unpacks to over 16,777,216 bytes'):
    ground_truth.load(tmp_path / 'gnd.mat')
  assert peak() - before < 100_000_000


def npz_bomb(name, megabytes=150):
  data = io.BytesIO()
  with (
    zipfile.ZipFile(data, 'w', zipfile.ZIP_DEFLATED) as archive,
    archive.open(f'{name}.npy', 'w') as member,
  ):
    np.lib.format.write_array_header_1_0(
      member, {'descr': '|u1', 'fortran_order': False, 'shape': (megabytes << 20,)}
    )
    for _ in range(megabytes):
      member.write(ZEROS)
  return data.getvalue()


def test_zip_bombs(tmp_path, monkeypatch):
  monkeypatch.setattr(hloc_files, 'MAX_NPZ_BYTES', 2**20)
  bomb = npz_bomb('keypoints')
  (tmp_path / 'x.npz').write_bytes(bomb)
  (tmp_path / 'live.npz').write_bytes(bomb)
  before = peak()
  with pytest.raises(UserError, match='it unpacks to 157,286,5'):
    hloc_files.read_npz(tmp_path / 'x.npz')
  with pytest.raises(ArtefactError, match=r'live\.npz: damaged \(it unpacks to'):
    live_files.load(tmp_path, 1)
  assert peak() - before < 100_000_000
