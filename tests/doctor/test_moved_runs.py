"""Inputs of a moved run whose manifests have the old places."""

import pathlib

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.doctor import missing
from delf_d2r.protos import manifest_pb2


def artefact(path: str, **inputs: str) -> Artefact:
  manifest = manifest_pb2.Manifest(kind='features')
  for role, place in inputs.items():
    manifest.inputs.add(role=role, fingerprint='1', path=place)
  return Artefact(pathlib.Path('/new') / path, manifest)


def test_inputs_moved_with_their_run():
  index = artefact(
    'run/with_distractors/index', descriptors='/old/descriptors', distractors='/old/distractors/descriptors'
  )
  siblings = [
    artefact('another/descriptors'),
    artefact('run/descriptors'),
    artefact('run/distractors/descriptors'),
    index,
  ]

  def place(role):
    return missing.place_of(index, index.input(role), siblings).as_posix()

  assert place('descriptors') == '/new/run/descriptors'
  assert place('distractors') == '/new/run/distractors/descriptors'


def test_those_of_another_run_are_not_taken_for_them():
  index = artefact('run/index', descriptors='/old/descriptors')
  found = missing.place_of(index, index.input('descriptors'), [index, artefact('another/descriptors')])
  assert found.as_posix() == '/old/descriptors'


def test_distractors_lie_in_a_folder_of_their_own():
  assert missing.are_distractors(artefact('run/distractors/other/features'))
  assert not missing.are_distractors(artefact('run/with_distractors/index'))
  assert not missing.are_distractors(artefact('run/features'))
