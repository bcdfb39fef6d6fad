"""Artefacts: when they are what was planned, and what is refused on opening."""

import os
import pathlib

import pytest
from google.protobuf import text_format
from support import tfrecord_files

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact as artefacts
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Input, Plan, with_comparison
from delf_d2r.errors import ArtefactError
from delf_d2r.protos import aggregation_pb2, manifest_pb2

Aggregation = aggregation_pb2.AggregationConfig
PHOTOS = Input('images', 'f00d', pathlib.Path('/photos'))


def plan(kind='descriptors', inputs=(PHOTOS,), **aggregation):
  config = configs.default('aggregation')
  config.aggregation.MergeFrom(Aggregation(**aggregation))
  return Plan(kind, config, inputs)


@pytest.fixture
def directory(tmp_path):
  path = tmp_path / 'art\u00e9fact 1'
  path.mkdir()
  tfrecord_files.write(path / 'a.tfrecord', [b'one', b'two'])
  tfrecord_files.write(path / 'b.tfrecord', [])
  manifest = plan().to_manifest()
  for name in ('a.tfrecord', 'b.tfrecord'):
    manifest.shards.add(file=name, bytes=(path / name).stat().st_size)
  manifest.counts.add(name='images', value=2)
  (path / MANIFEST).write_text(text_format.MessageToString(manifest), encoding='utf-8')
  return path


# Fingerprints


@pytest.mark.parametrize('kind', ['descriptors', 'index'])
@pytest.mark.parametrize(
  'change', [{'alpha': 1}, {'tau': 0.5}, {'normalize': True}, {'use_idf': True}, {'query_num_assignments': 5}]
)
def test_how_descriptors_are_compared_makes_nothing_stale(kind, change):
  assert plan(kind, **change).fingerprint == plan(kind).fingerprint
  assert not plan(kind, **change).differences(plan(kind).to_manifest())


@pytest.mark.parametrize('kind', ['rankings', 'metrics'])
def test_how_descriptors_are_compared_makes_rankings_stale(kind):
  assert plan(kind, alpha=1).fingerprint != plan(kind).fingerprint
  assert plan(kind, alpha=1).differences(plan(kind).to_manifest()) == ['aggregation.alpha is 3 there, 1 here']


def test_normalize_is_part_of_a_vlad():
  old, new = (plan(kernel=Aggregation.VLAD, normalize=value) for value in (False, True))
  assert new.differences(old.to_manifest()) == ['aggregation.normalize is False there, True here']


def test_name_of_the_experiment_and_places_are_no_part_of_the_fingerprint():
  moved = plan(inputs=(Input('images', 'f00d', pathlib.Path('/elsewhere')),))
  moved.config.name = 'renamed'
  assert moved.fingerprint == plan().fingerprint
  assert not moved.differences(plan().to_manifest())


@pytest.mark.parametrize(
  ('other', 'difference'),
  [
    (plan(kernel=Aggregation.ASMK), 'aggregation.kernel is ASMK_STAR there, ASMK here'),
    (plan(inputs=(Input('images', 'beef', PHOTOS.path),)), 'input images is f00d (/photos) there, beef'),
    (plan(inputs=()), 'input images is f00d there, none here'),
    (plan(inputs=(PHOTOS, Input('boxes', '1', PHOTOS.path))), 'input boxes is none there, 1 (/photos) here'),
    (plan('index'), 'it is an artefact of kind descriptors, not index'),
  ],
)
def test_differences_name_the_field_and_both_values(other, difference):
  assert other.fingerprint != plan().fingerprint
  (found,) = other.differences(plan().to_manifest())
  assert found.startswith(difference)


def test_a_difference_without_a_name_is_a_difference_still():
  manifest = plan().to_manifest()
  manifest.fingerprint = 'made by another layout'
  assert plan().differences(manifest) == [
    f'its fingerprint is made by another layout there, {plan().fingerprint} here'
  ]


def test_comparison_fields_are_merged_where_they_say_something():
  merged = with_comparison(plan().config, Aggregation(alpha=1, kernel=Aggregation.VLAD))
  assert merged.aggregation.alpha == 1
  assert merged.aggregation.kernel == Aggregation.ASMK_STAR
  assert not merged.aggregation.HasField('normalize')
  assert with_comparison(plan().config, None) == plan().config


def test_folder_whose_name_is_no_utf8_can_be_an_input():
  path = pathlib.Path(os.fsdecode(b'/photos/\xff'))
  manifest = plan(inputs=(Input('images', 'f00d', path),)).to_manifest()
  assert manifest.inputs[0].path == '/photos/\\xff'


# Opening


def test_open(directory):
  artefact = Artefact.open(str(directory), 'descriptors')
  assert list(artefact.records()) == [b'one', b'two']
  assert artefact.counts == {'images': 2}
  assert artefact.config == plan().config
  assert artefact.input('images') == PHOTOS
  assert artefact.input('boxes') is None
  assert artefact.require_input('images') == PHOTOS
  with pytest.raises(ArtefactError, match=r"names no input boxes, but \['images'\]"):
    artefact.require_input('boxes')
  assert artefact.as_input('descriptors') == Input('descriptors', plan().fingerprint, directory)


def test_open_of_nothing(tmp_path):
  with pytest.raises(ArtefactError, match=r'no finished artefact there.*Run the stage'):
    Artefact.open(tmp_path / 'nowhere', 'index')


def test_open_of_another_kind(directory):
  with pytest.raises(ArtefactError, match='holds descriptors, but index are needed here'):
    Artefact.open(directory, 'index')


def test_shard_that_was_cut_or_removed_since(directory):
  with open(directory / 'a.tfrecord', 'ab') as file:
    file.truncate(30)
  with pytest.raises(ArtefactError, match=r'a\.tfrecord: the manifest says 38 bytes, it has 30\. Delete'):
    Artefact.open(directory, 'descriptors')
  (directory / 'a.tfrecord').unlink()
  with pytest.raises(ArtefactError, match=r'a\.tfrecord: the manifest says 38 bytes, it is missing'):
    Artefact.open(directory, 'descriptors')


@pytest.mark.parametrize('file', ['../a.tfrecord', '/etc/passwd', ''])
def test_shard_that_leads_out_of_the_directory(directory, file):
  text = (directory / MANIFEST).read_text(encoding='utf-8')
  (directory / MANIFEST).write_text(text.replace('"a.tfrecord"', f'"{file}"'), encoding='utf-8')
  with pytest.raises(ArtefactError, match='leads out of it'):
    Artefact.open(directory, 'descriptors')


@pytest.mark.parametrize('content', [b'\xff\xfe', b'kind: ', b'nonsense: 3', b'\0', b'shards {'])
def test_damaged_manifest(directory, content):
  (directory / MANIFEST).write_bytes(content)
  with pytest.raises(ArtefactError, match=r'manifest\.pbtxt: damaged.*Delete .* run its stage again'):
    Artefact.open(directory, 'descriptors')


@pytest.mark.parametrize('version', ['format_version: 2', ''])
def test_manifest_of_another_version(directory, version):
  text = (directory / MANIFEST).read_text(encoding='utf-8')
  (directory / MANIFEST).write_text(text.replace('format_version: 1', version), encoding='utf-8')
  with pytest.raises(ArtefactError, match=r'format version [02], this library \(1\)'):
    Artefact.open(directory, 'descriptors')
  assert artefacts.read_manifest(directory / MANIFEST, any_version=True).kind == 'descriptors'


def test_manifest_states_kind_config_and_inputs():
  manifest = plan().to_manifest()
  assert (manifest.kind, manifest.format_version) == ('descriptors', 1)
  assert manifest.config == plan().config
  assert list(manifest.inputs) == [manifest_pb2.Input(role='images', fingerprint='f00d', path='/photos')]


# Where inputs lie


def test_an_input_beside_is_called_from_the_artefact(tmp_path, monkeypatch):
  run = tmp_path / 'run'
  run.mkdir()
  monkeypatch.chdir(tmp_path)
  beside, elsewhere = (
    Input('features', 'a', pathlib.Path('run/features')),
    Input('images', 'b', tmp_path / 'x'),
  )
  planned = plan(inputs=(beside, elsewhere)).to_manifest(pathlib.Path('run/codebook'))
  assert [item.path for item in planned.inputs] == ['../features', str(tmp_path / 'x')]
  monkeypatch.chdir('/')
  found = Artefact(run / 'codebook', planned)
  assert found.input('features').path == run / 'features'
  assert found.input('images').path == tmp_path / 'x'


def test_an_input_called_from_the_working_directory_is_found_there(tmp_path, monkeypatch):
  (tmp_path / 'run' / 'features').mkdir(parents=True)
  monkeypatch.chdir(tmp_path)
  manifest = manifest_pb2.Manifest()
  manifest.inputs.add(role='features', path='run/features')
  found = Artefact(pathlib.Path('run/codebook'), manifest)
  assert found.input('features').path == pathlib.Path('run/features')


def test_an_empty_manifest_is_called_so(tmp_path):
  (tmp_path / MANIFEST).write_text('')
  with pytest.raises(ArtefactError, match='empty, as a full disk'):
    Artefact.open(tmp_path, 'features')
