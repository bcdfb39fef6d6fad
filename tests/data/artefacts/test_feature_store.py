"""Features by name: where they are expected, where they are not, and where there are none."""

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer, records
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.structures import ImageFeatures, LocalFeatures

NAMES = tuple(f'{letter}.jpg' for letter in 'abcdefg')


def features(name, n):
  descriptors = np.full((n, 4), ord(name[0]), np.float32)
  zeros = np.zeros(n, np.float32)
  return ImageFeatures(
    name,
    10,
    20,
    np.array([[0, 0, 1, 1]], np.float32),
    np.array([0, n]),
    LocalFeatures(np.zeros((n, 2), np.float32), zeros, zeros, descriptors),
  )


@pytest.fixture(params=[1, 3, 100])
def artefact(tmp_path, request):
  plan = Plan('features', configs.default('extraction'), (Input('images', 'x', tmp_path),))
  with artefact_writer.writing(tmp_path / 'features', plan) as writer:
    for shard in writer.ledger.missing(len(NAMES), request.param):
      with writer.ledger.write(shard) as file:
        for item in shard.items:
          file.add(records.encode_features(features(NAMES[item], item)), images=1)
    return writer.finish()


def test_every_image_at_its_position(artefact):
  store = FeatureStore(artefact)
  assert len(store) == 7
  for position in (5, 0, 6, 3):
    found = store.read(NAMES[position], position=position)
    assert (found.name, len(found.features)) == (NAMES[position], position)
    assert (found.features.descriptors == ord(NAMES[position][0])).all()


@pytest.mark.parametrize('position', [0, 6, 7, -1, 1000])
def test_an_image_elsewhere_is_found_by_name(artefact, position):
  assert FeatureStore(artefact).read('d.jpg', position=position).name == 'd.jpg'


def test_no_other_record_is_read(artefact, monkeypatch):
  store = FeatureStore(artefact)
  monkeypatch.setattr(Artefact, 'records', lambda self: pytest.fail('all records are read'))
  assert store.read('e.jpg', position=4).name == 'e.jpg'


def test_an_image_that_is_not_there(artefact):
  with pytest.raises(ArtefactError, match=r'no features of z\.jpg among those of 7 images\. Give'):
    FeatureStore(artefact).read('z.jpg', position=2)


def test_damage_is_found_when_it_is_met(artefact):
  shard = artefact.path / artefact.manifest.shards[-1].file
  data = bytearray(shard.read_bytes())
  data[-10] ^= 1
  shard.write_bytes(data)
  store = FeatureStore(artefact)
  assert store.read('a.jpg', position=0).name == 'a.jpg'
  with pytest.raises(UserError, match='checksum'):
    store.read('g.jpg', position=6)
