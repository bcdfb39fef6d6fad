"""TFRecord framing: TensorFlow reads and writes the same files; no damage goes unnoticed."""

import os
import tracemalloc

import pytest
from support import tfrecord_files

from delf_d2r.data.artefacts import tfrecord
from delf_d2r.errors import ArtefactError

RECORDS = [b'', b'a', bytes(range(256)), b'\n' * 3]


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'gr\u00fc\u00dfe 1.tfrecord'
  assert tfrecord_files.write(path, RECORDS) == len(RECORDS)
  return path


@pytest.fixture
def tensorflow(monkeypatch):
  monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '3')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  return pytest.importorskip('tensorflow')


def test_round_trip(file):
  assert list(tfrecord.read_file(file)) == RECORDS


def test_empty_file_has_no_records(tmp_path):
  tfrecord_files.write(tmp_path / 'x', [])
  assert list(tfrecord.read_file(tmp_path / 'x')) == []
  assert tfrecord.record_offsets(tmp_path / 'x') == []


def test_record_by_offset(file):
  offsets = tfrecord.record_offsets(file)
  assert offsets == [0, 16, 33, 305]  # Each record takes 16 bytes more than its data.
  assert [tfrecord.read_at(file, offset) for offset in offsets] == RECORDS


@pytest.mark.parametrize('offset', [1, 17, 324, 10**9])
def test_offset_at_which_no_record_starts(file, offset):
  with pytest.raises(ArtefactError, match=str(offset)):
    tfrecord.read_at(file, offset)


def test_write_record_returns_the_bytes_written(file, tmp_path):
  with open(tmp_path / 'x', 'wb') as out:
    sizes = [tfrecord.write_record(out, data) for data in RECORDS]
  assert sum(sizes) == os.path.getsize(tmp_path / 'x')
  assert (tmp_path / 'x').read_bytes() == file.read_bytes()


def test_every_truncation_is_found(file):
  content = file.read_bytes()
  ends = {*tfrecord.record_offsets(file), len(content)}
  for size in range(len(content)):
    file.write_bytes(content[:size])
    if size in ends:
      # Whole records are left: the manifest knows the size of the file.
      assert list(tfrecord.read_file(file)) == RECORDS[: sorted(ends).index(size)]
      continue
    with pytest.raises(ArtefactError) as raised:
      list(tfrecord.read_file(file))
    assert f'{file}: damaged at byte ' in str(raised.value)
    assert 'run its stage again' in str(raised.value)


def test_every_flipped_bit_is_found(file):
  content = file.read_bytes()
  for position in range(len(content)):
    for bit in (1, 128):
      damaged = bytearray(content)
      damaged[position] ^= bit
      file.write_bytes(damaged)
      with pytest.raises(ArtefactError, match='damaged at byte'):
        list(tfrecord.read_file(file))


def test_records_before_the_damage_are_read(file):
  content = file.read_bytes()
  file.write_bytes(content[:-1])
  found = []
  with pytest.raises(ArtefactError, match='damaged at byte 305'):
    found.extend(tfrecord.read_file(file))
  assert found == RECORDS[:-1]


def test_length_cannot_ask_for_memory(tmp_path):
  # 1 TiB, with a checksum that is right.
  length = (2**40).to_bytes(8, 'little')
  path = tmp_path / 'x'
  path.write_bytes(length + tfrecord._masked_crc(length).to_bytes(4, 'little') + bytes(100))
  tracemalloc.start()
  try:
    for read in (lambda: list(tfrecord.read_file(path)), lambda: tfrecord.record_offsets(path)):
      with pytest.raises(ArtefactError, match='it ends within a record'):
        read()
    assert tracemalloc.get_traced_memory()[1] < 1e6
  finally:
    tracemalloc.stop()


def test_checksum_is_the_masked_crc32c_of_the_format():
  # CRC-32C of "123456789" is 0xe3069283 (RFC 3720's polynomial), then rotated by 15 and shifted.
  rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
  assert tfrecord._masked_crc(b'123456789') == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def test_tensorflow_reads_our_files(file, tensorflow):
  found = [record.numpy() for record in tensorflow.data.TFRecordDataset(str(file))]
  assert found == RECORDS


def test_we_read_tensorflow_files(file, tmp_path, tensorflow):
  path = tmp_path / 'theirs.tfrecord'
  with tensorflow.io.TFRecordWriter(str(path)) as writer:
    for record in RECORDS:
      writer.write(record)
  assert list(tfrecord.read_file(path)) == RECORDS
  assert path.read_bytes() == file.read_bytes()
