"""Checks of an index to which images were added: their features, stopped saves, what nobody needs."""

import pathlib

import numpy as np
import pytest
from oracles.index_inputs import random_descriptors

from delf_d2r.data.artefacts import index_files, live_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.index_files import ImageBoxes
from delf_d2r.data.artefacts.live_files import LiveState
from delf_d2r.doctor import index_checks
from delf_d2r.doctor.findings import Severity
from delf_d2r.index import InvertedIndex
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.protos.manifest_pb2 import Manifest
from delf_d2r.structures import ImageFeatures, LocalFeatures

BOX = np.array([[0, 0, 1, 1]], np.float32)


def features(name):
  return ImageFeatures(name, 10, 20, BOX, np.array([0, 0]), LocalFeatures.empty(4))


@pytest.fixture
def index(tmp_path):
  """An index of a.jpg and b.jpg, of which the second was added."""
  descriptors = random_descriptors(0, 2, num_words=9, dimensions=16, kernel=Kernel.ASMK)
  built = InvertedIndex.build(
    descriptors,
    ['a.jpg', 'b.jpg'],
    num_words=9,
    kernel=Kernel.ASMK,
    directory=tmp_path / index_files.INVERTED,
  )
  digest = live_files.add_features(tmp_path, features('b.jpg'))
  state = LiveState(ImageBoxes.of_images([BOX, BOX]), {'b.jpg': digest})
  live_files.prepare(tmp_path, state, replacing=1)
  live_files.finish(tmp_path)
  manifest = Manifest(kind='index')
  manifest.counts.add(name='images', value=2)
  return Artefact(tmp_path, manifest), built.checksum, digest


def found(index, names=('a.jpg', 'b.jpg')):
  artefact, checksum, _ = index
  return [(one.severity, one.problem) for one in index_checks.added(artefact, names, checksum)]


def stored(index) -> pathlib.Path:
  artefact, _, digest = index
  return artefact.path / 'added' / f'{digest}.features'


def test_a_sound_index_has_no_findings(index):
  assert found(index) == []


def test_missing_and_damaged_features_are_named_by_their_image(index):
  content = stored(index).read_bytes()
  for damage in (lambda path: path.write_bytes(content[:-1]), pathlib.Path.unlink):
    damage(stored(index))
    ((severity, problem),) = found(index)
    assert severity is Severity.ERROR
    assert 'missing or damaged: 1 (b.jpg)' in problem


def test_an_added_image_without_postings(index):
  index[0].manifest.counts[0].value = 1
  ((severity, problem),) = found(index, names=['a.jpg'])
  assert severity is Severity.ERROR
  assert 'no postings: 1 (b.jpg)' in problem


def test_what_a_stopped_change_leaves_is_a_note(index):
  artefact, checksum, digest = index
  live_files.add_features(artefact.path, features('c.jpg'))
  state = LiveState(ImageBoxes.of_images([BOX] * 2), {'b.jpg': digest})
  live_files.prepare(artefact.path, state, replacing=checksum)
  artefact.manifest.counts[0].value = 3
  findings = found(index)
  assert {severity for severity, _ in findings} == {Severity.NOTE}
  assert [problem.split(',')[0].split(':')[0] for _, problem in findings] == [
    '1 features of images that are not in the index',
    'a change is being saved',
    'the manifest counts 3 images',
  ]
