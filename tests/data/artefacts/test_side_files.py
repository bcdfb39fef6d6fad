"""What lies beside the shards of an artefact is listed in its manifest, and any change of it is noticed."""

import pathlib

import google_crc32c
import pytest

from delf_d2r import config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, side_files
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Plan, read_manifest
from delf_d2r.errors import ArtefactError

CONTENT = b'\0\1\2' * 100


@pytest.fixture
def path(tmp_path):
  plan = Plan('features', configs.default('extraction'), ())
  with artefact_writer.writing(tmp_path / 'made', plan) as writer:
    for shard in writer.ledger.missing(1, 1):
      with writer.ledger.write(shard) as file:
        file.add(b'record')
        file.add_error('a.jpg', 'is broken')
    for name in ('scores.npy', 'käfer.json', 'empty'):
      files.write_atomically(writer.path / name, b'' if name == 'empty' else CONTENT)
    (writer.path / 'checkpoints').mkdir()
    (writer.path / 'checkpoints' / '1').write_bytes(CONTENT)
    writer.finish()
  return tmp_path / 'made'


def test_the_manifest_lists_every_file_of_the_folder_itself(path):
  manifest = read_manifest(path / MANIFEST)
  found = {file.file: (file.bytes, file.crc32c) for file in manifest.side_files}
  assert list(found) == ['empty', 'errors.jsonl', 'käfer.json', 'scores.npy']
  assert found['scores.npy'] == (300, google_crc32c.value(CONTENT))
  assert found['empty'] == (0, 0)
  for file in manifest.side_files:
    side_files.check(path, file)


def test_finishing_again_leaves_the_list(path):
  before = (path / MANIFEST).read_bytes()
  plan = Plan('features', configs.default('extraction'), ())
  with artefact_writer.writing(path, plan) as writer:
    assert writer.finished
  assert (path / MANIFEST).read_bytes() == before


@pytest.mark.parametrize(
  'damage, message',
  [
    (lambda place: place.unlink(), r'scores\.npy: No such file'),
    (lambda place: place.write_bytes(CONTENT[:-1]), r'scores\.npy: expected 300 bytes, found 299'),
    (lambda place: place.write_bytes(b'\1' + CONTENT[1:]), r'scores\.npy: expected checksum'),
    (lambda place: (place.unlink(), place.mkdir()), r'scores\.npy: '),
  ],
)
def test_any_change_is_noticed(path, damage, message):
  damage(path / 'scores.npy')
  artefact = Artefact.open(path, 'features')
  (file,) = (file for file in artefact.manifest.side_files if file.file == 'scores.npy')
  with pytest.raises(ArtefactError, match=f'{message}.*Delete {path} and run its stage again'):
    side_files.check(path, file)


@pytest.mark.parametrize(
  'damage, message',
  [
    (lambda place: place.unlink(), 'it is missing'),
    (lambda place: place.write_bytes(CONTENT[:-1]), 'it has 299'),
    (lambda place: (place.unlink(), place.mkdir()), 'it is missing'),
  ],
)
def test_what_lacks_a_file_is_not_called_up_to_date(path, damage, message):
  damage(path / 'scores.npy')
  plan = Plan('features', configs.default('extraction'), ())
  again = f'Delete {path} and run its stage again'
  with artefact_writer.writing(path, plan) as writer:
    assert writer.finished
    with pytest.raises(
      ArtefactError, match=rf'scores\.npy: the manifest says 300 bytes, {message}\. {again}'
    ):
      writer.reuse('things')


def test_a_manifest_from_elsewhere_names_no_file_outside(path):
  file = read_manifest(path / MANIFEST).side_files[0]
  for name in ('../made/scores.npy', str(pathlib.Path('/etc/passwd')), ''):
    file.file = name
    with pytest.raises(ArtefactError, match='leads out of it'):
      side_files.check(path, file)
