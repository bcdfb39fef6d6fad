"""A run whose residuals are projected before their signs are taken, on real photos."""

import json
import shutil

import numpy as np
import pytest
from oracles import kernels_oracle as oracle

from delf_d2r.data.artefacts import codebook_files, feature_files, ranking_files, records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.doctor import inspect, result_checks
from delf_d2r.doctor.findings import Severity
from delf_d2r.doctor.inspect import diagnose
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ArtefactError, ConfigError, UserError
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.stages import aggregate_features, build_index

pytestmark = pytest.mark.slow

MASKS = 'aggregation { regions: REGIONAL_AGGREGATION region_masks: true }'


@pytest.fixture(scope='module')
def given(finished):
  return {kind: finished.artefacts[kind] for kind in ('features', 'query_features')}


@pytest.fixture(scope='module')
def projected(run, given, tmp_path_factory):
  """A run with 64 bits of a rotation, and region masks."""
  output = tmp_path_factory.mktemp('projected')
  return run('codebook { bits: 64 projection { kinds: ROTATION } }', MASKS, given=given, output=output)


def test_codes_are_those_of_the_oracle(projected):
  made = projected.artefacts
  centroids = np.array(codebook_files.load_centroids(made['codebook'].path))
  projection = codebook_files.load_projection(made['codebook'].path)
  assert (projection.bits, projection.kinds.tolist()) == (64, [0] * len(centroids))
  images = map(records.decode_descriptors, made['descriptors'].records())
  for image, features in zip(images, feature_files.read(made['features']), strict=True):
    descriptors, offsets = features.features.descriptors, features.region_offsets
    assigned = np.square(descriptors[:, None] - centroids).sum(-1).argmin(1)[:, None]
    dense = oracle.regional_vlad(descriptors, assigned, offsets, centroids)
    kept, _ = oracle.asmk(dense)
    values = dense[kept] @ projection.matrices[0]
    (only,) = image.descriptors
    assert (only.dimensions, only.visual_words.tolist()) == (64, kept)
    different = np.unpackbits(only.values, axis=1) != (values > 0)
    # Where the order of a sum decides.
    assert np.abs(values[different]).max(initial=0) < 1e-6
    break


def test_the_engine_answers_as_the_run_does(projected, benchmark):
  engine = SearchEngine.load(projected.artefacts['index'].path.parent)
  assert engine.index.dimensions == 64
  stored = ranking_files.load(projected.artefacts['rankings'].path)
  for query, ranking in zip(
    feature_files.read(projected.artefacts['query_features']), stored.rankings, strict=True
  ):
    found = engine.rank(engine.describe(query), top_k=len(ranking))
    np.testing.assert_array_equal(found.image_ids, ranking.image_ids)
    np.testing.assert_array_equal(found.scores, ranking.scores)
  name = engine.index.image_names[0]
  assert engine.search(benchmark.images_dir / name, top_k=1).results[0].name == name


def test_photos_that_are_added_later_have_the_same_codes(projected, benchmark, tmp_path):
  folder = shutil.copytree(projected.artefacts['index'].path, tmp_path / 'index')
  engine = SearchEngine.load(folder)
  names = engine.index.image_names
  engine.remove([names[0]])
  engine.add({names[0]: benchmark.images_dir / names[0]}, boxes={names[0]: np.zeros((0, 4), np.float32)})
  engine.save()
  again = SearchEngine.load(folder)
  assert again.index.dimensions == 64
  assert again.search(benchmark.images_dir / names[0], top_k=1).results[0].name == names[0]


def test_the_doctor_finds_nothing_wrong(projected):
  folder = projected.artefacts['index'].path.parent
  assert errors(folder) == []


def errors(folder):
  return [str(item) for item in diagnose(folder).findings if item.severity is Severity.ERROR]


def test_the_doctor_tells_of_a_projection_that_does_not_fit(projected, tmp_path):
  made = projected.artefacts
  folder = shutil.copytree(made['codebook'].path, tmp_path / 'codebook')
  (folder / 'projections.npy').unlink()
  assert any('projections.npy' in text for text in errors(folder))
  matrices = np.load(made['codebook'].path / 'projections.npy')
  np.save(folder / 'projections.npy', 2 * matrices[:, :, :32])
  found = str(list(result_checks.codebook(Artefact.open(folder, 'codebook'))))
  assert 'it projects to 32 bits, its config says codebook.bits 64' in found
  assert 'columns that are not orthonormal' in found


def test_an_index_with_the_codebook_of_other_bits(projected, tmp_path):
  folder = shutil.copytree(projected.artefacts['index'].path, tmp_path / 'index')
  matrices = np.load(folder / 'projections.npy')
  np.save(folder / 'projections.npy', matrices[:, :, :32])
  with pytest.raises(ArtefactError, match=r'makes descriptors of 32 dimensions .*postings have 64\. Build'):
    SearchEngine.load(folder)
  found = str(list(inspect._index(Artefact.open(folder, 'index'))))
  assert 'the codebook has dimensions (bits) 32, the postings 64' in found
  # Without the files, residuals would be taken as they are.
  for name in ('projections.npy', 'word_kinds.npy'):
    (folder / name).unlink()
  with pytest.raises(ArtefactError, match=r'projections\.npy: missing'):
    SearchEngine.load(folder)


def test_an_index_with_another_codebook_of_the_same_sizes(projected, tmp_path):
  folder = shutil.copytree(projected.artefacts['index'].path, tmp_path / 'index')
  np.save(folder / 'projections.npy', -np.load(folder / 'projections.npy'))
  with pytest.raises(ArtefactError, match=r'its codebook is \w+, but its postings are of .* \w+\. Build'):
    SearchEngine.load(folder)
  found = str(list(inspect._index(Artefact.open(folder, 'index'))))
  assert 'its postings are of the codebook' in found


def test_indexes_of_different_projections_are_not_merged(projected, finished, run, given):
  other = run('codebook { bits: 64 projection { kinds: ROTATION seed: 1 } }', MASKS, given=given)
  first, second = (
    InvertedIndex.load(made.artefacts['index'].path / 'inverted') for made in (projected, other)
  )
  with pytest.raises(ValueError, match=r'codebook: expected \w{16} as in .*, found \w{16}; merge'):
    InvertedIndex.merge([first, second])
  # An index without projection is what it always was.
  plain = finished.artefacts['index'].path / 'inverted'
  assert InvertedIndex.load(plain).codebook == ''
  assert json.loads((plain / 'index.json').read_text())['version'] == 1
  assert (
    json.loads((projected.artefacts['index'].path / 'inverted' / 'index.json').read_text())['version'] == 4
  )


def test_descriptors_of_another_codebook_are_refused(projected, finished, load, tmp_path):
  with pytest.raises(UserError, match=r'of 64 dimensions \(bits\), but .* is the codebook \w+ of 128\. Give'):
    build_index.run(
      load(), projected.artefacts['descriptors'], finished.artefacts['codebook'], tmp_path / 'index'
    )
  assert not (tmp_path / 'index').exists()


@pytest.mark.parametrize('kernel', ['ASMK', 'VLAD'])
def test_other_kernels_are_refused(projected, load, tmp_path, kernel):
  wanted = f'aggregation.kernel: {kernel}'
  with pytest.raises(ConfigError, match=rf'bits has an effect only with .*ASMK_STAR, found {kernel}'):
    load('codebook.bits: 64', wanted)
  with pytest.raises(ConfigError, match=r'codebook\.projection has an effect only with'):
    load('codebook { projection { kinds: ITQ } }', wanted)
  made = projected.artefacts
  with pytest.raises(UserError, match=rf'projects residuals to 64 bits, .*ASMK_STAR, found {kernel}'):
    aggregate_features.run(load(wanted), made['features'], made['codebook'], tmp_path / 'descriptors')
