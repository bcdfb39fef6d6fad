"""Artefacts of one run that were made from different states of the photos."""

import pathlib

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.doctor import inputs
from delf_d2r.protos import manifest_pb2


def made_from(place: str, fingerprint: str) -> Artefact:
  manifest = manifest_pb2.Manifest(kind='features')
  manifest.inputs.add(role='images', fingerprint=fingerprint, path='/photos')
  return Artefact(pathlib.Path('/run') / place, manifest)


def test_photos_of_different_moments():
  boxes, features = made_from('boxes', '1'), made_from('features', '2')
  (finding,) = inputs.changed_copies([boxes, features])
  assert finding.place == '/run/features'
  assert list(inputs.changed_copies([features, made_from('descriptors', '2')])) == []


def test_distractors_of_the_same_folder_are_other_photos():
  features, theirs = made_from('features', '1'), made_from('distractors/features', '2')
  assert list(inputs.changed_copies([features, theirs])) == []
  assert len(list(inputs.changed_copies([theirs, made_from('distractors/boxes', '3')]))) == 1
