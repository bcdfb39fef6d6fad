"""Runs with the codebook that comes with the package: nothing is trained, and indexes can be merged."""

import json
import pathlib

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.config import shipped_codebook
from delf_d2r.data.artefacts import codebook_files, feature_files, packaged_codebook
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.doctor import inspect
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ArtefactError, ConfigError, UserError
from delf_d2r.experiments import experiment
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.stages import export_codebook, train_codebook

pytestmark = pytest.mark.slow

SHIPPED = 'codebook { source: SHIPPED }'


@pytest.fixture(scope='module')
def exported(run, finished, tmp_path_factory):
  """A codebook of the tiny benchmark in the form of the package, and the artefact that it is of."""
  given = {kind: finished.artefacts[kind] for kind in ('features', 'query_features')}
  made = run('codebook { bits: 64 projection { kinds: ROTATION } }', given=given).artefacts['codebook']
  output = tmp_path_factory.mktemp('exported')
  loss = export_codebook.run(made, output, name='Tiny', notes='Synthetic.')
  return output, made, loss


@pytest.fixture(autouse=True)
def shipped(exported, monkeypatch) -> pathlib.Path:
  """Makes it the codebook of the package."""
  monkeypatch.setattr(shipped_codebook, 'DIRECTORY', exported[0])
  return exported[0]


@pytest.fixture
def tiny(tmp_path):
  """Returns a config that says nothing about the codebook but its source."""
  text = """
    regions { source: NONE }
    extraction {
      max_features: 150 max_image_size: 320 max_crop_size: 320 images_per_shard: 4
      root_sift { contrast_threshold: 0.02 }
    }
    codebook { source: SHIPPED }
    aggregation { kernel: ASMK_STAR }
  """
  (tmp_path / 'shipped.pbtxt').write_text(text)
  return lambda *overrides: configs.load(tmp_path / 'shipped.pbtxt', experiment.STAGES, overrides=overrides)


def test_the_export_says_what_it_loses(exported):
  output, made, loss = exported
  assert loss.same_word > 0.98
  assert loss.changed_bits < 0.02
  assert loss.error_after == pytest.approx(loss.error_before, rel=0.01)
  found = packaged_codebook.load(output)
  before = codebook_files.load_centroids(made.path)
  np.testing.assert_allclose(found.words.centroids, before, atol=5e-3)
  np.testing.assert_array_equal(found.projection.matrices, codebook_files.load_projection(made.path).matrices)
  card = found.card
  assert (card['name'], card['notes'], card['models']) == ('Tiny', 'Synthetic.', {})
  assert card['loss of one byte a dimension']['same_word'] == loss.same_word
  assert found.report['num_words'] == 256


def test_exports_that_are_refused(exported, tiny, tmp_path):
  output, made, _ = exported
  with pytest.raises(UserError, match='is not empty'):
    export_codebook.run(made, output)
  unpacked = train_codebook.run(tiny(), None, tmp_path / 'codebook')
  with pytest.raises(UserError, match=r'were not trained here \(codebook.source: SHIPPED\)'):
    export_codebook.run(unpacked, tmp_path / 'out')


def test_two_folders_have_one_codebook_and_can_be_merged(benchmark, tiny, shipped, tmp_path):
  names = sorted(path.name for path in benchmark.images_dir.iterdir())
  outcomes = []
  for part in (names[::2], names[1::2]):
    dataset = Dataset(ImageList(benchmark.images_dir, tuple(part)))
    output = tmp_path / f'run_{len(outcomes)}'
    outcomes.append(experiment.run(tiny(), dataset, output, options=experiment.Options(workers=1)).artefacts)
  first, second = (made['codebook'] for made in outcomes)
  assert first.manifest.fingerprint == second.manifest.fingerprint
  assert [item.role for item in first.inputs] == ['shipped_codebook']
  assert first.require_input('shipped_codebook').fingerprint == packaged_codebook.load(shipped).digest
  for name in ('codebook.npy', 'projections.npy', 'word_kinds.npy', 'report.json'):
    assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
  options = first.config.codebook
  assert (options.num_words, options.iterations, options.bits) == (256, 5, 64)
  indexes = [SearchEngine.load(made['index'].path).index for made in outcomes]
  assert {index.codebook for index in indexes} == {codebook_files.digest(first.path)}
  merged = InvertedIndex.merge(indexes, directory=tmp_path / 'merged')
  assert InvertedIndex.load(tmp_path / 'merged').codebook == indexes[0].codebook
  assert sorted(merged.image_names) == names
  engine = SearchEngine.load(tmp_path / 'run_0')
  query = engine.describe(next(feature_files.read(outcomes[0]['features'])))
  assert merged.search(query, top_k=1).image_ids.tolist() == [merged.image_names.index(names[0])]
  # A run is whole without the package's codebook, and sound.
  errors = [item for item in inspect.diagnose(tmp_path / 'run_0').findings if item.severity.name == 'ERROR']
  assert errors == []


def test_made_without_features_in_the_same_form(tiny, exported, tmp_path):
  artefact = train_codebook.run(tiny(), None, tmp_path / 'codebook')
  np.testing.assert_array_equal(
    codebook_files.load_centroids(artefact.path), packaged_codebook.load(exported[0]).words.centroids
  )
  assert codebook_files.load_bits(artefact.path) == 64
  assert codebook_files.load_recall(artefact.path) == 1.0
  assert train_codebook.run(tiny(), None, tmp_path / 'codebook').manifest == artefact.manifest


def test_training_needs_features(tiny, tmp_path):
  config = tiny('codebook { source: K_MEANS num_words: 8 }')
  with pytest.raises(UserError, match=r'needs features\. Give the output of extract_features, or set'):
    train_codebook.run(config, None, tmp_path / 'codebook')


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('codebook.num_words: 4096', r'num_words is 4096, but source is SHIPPED, .* has 256\. Remove num_words'),
    ('codebook.bits: 128', 'bits is 128, but source is SHIPPED, and the codebook of the package has 64'),
    (
      'codebook { projection { kinds: ITQ } }',
      'projection is kinds: ITQ, but .* has kinds: ROTATION',
    ),
    (
      'aggregation.kernel: VLAD',
      'projects residuals, .* found VLAD. Set codebook.source: K_MEANS',
    ),
    (
      'extraction.extractor: ROOT_SIFT_AND_DELF',
      'trained for extraction.extractor ROOT_SIFT, found ROOT_SIFT_AND_DELF. Set codebook.source: K_MEANS',
    ),
    (
      'extraction.root_sift.contrast_threshold: 0.01',
      r'trained for extraction.root_sift .*0\.0199.*, found .*0\.0099.*K_MEANS',
    ),
  ],
)
def test_contradictions(tiny, override, message):
  with pytest.raises(ConfigError, match=message):
    tiny(override)


def test_values_that_agree_may_be_given(tiny):
  assert tiny('codebook { num_words: 256 bits: 64 }') == tiny()
  # Nothing is trained.
  assert tiny('codebook { iterations: 20 seed: 3 assignment: APPROXIMATE }') == tiny()


def test_a_saved_config_of_a_release_with_another_codebook(tiny, shipped, tmp_path, monkeypatch):
  saved = tiny()
  (tmp_path / 'config.pbtxt').write_text(configs.to_text(saved))
  other = packaged_codebook.load(shipped)
  other.config.codebook.num_words = 512
  (tmp_path / 'other').mkdir()
  packaged_codebook.save(other, tmp_path / 'other')
  monkeypatch.setattr(shipped_codebook, 'DIRECTORY', tmp_path / 'other')
  # The run can be read and searched; its codebook cannot be made again.
  assert configs.load(tmp_path / 'config.pbtxt') == saved
  with pytest.raises(UserError, match=r'codebook.num_words is 256, .* this release has 512\. Remove'):
    train_codebook.run(saved, None, tmp_path / 'codebook')


def test_another_network_is_refused_before_any_work(tiny, shipped, dataset, tmp_path, monkeypatch):
  other = packaged_codebook.load(shipped)
  other.card['models']['model'] = 'abc'
  (tmp_path / 'other').mkdir()
  packaged_codebook.save(other, tmp_path / 'other')
  monkeypatch.setattr(shipped_codebook, 'DIRECTORY', tmp_path / 'other')
  with pytest.raises(UserError, match=r'was trained for the model abc, found None\. Train one .*K_MEANS'):
    experiment.run(tiny(), dataset, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_without_the_files_of_the_package(tiny, tmp_path, monkeypatch):
  saved = tiny()
  monkeypatch.setattr(shipped_codebook, 'DIRECTORY', tmp_path / 'missing')
  with pytest.raises(ConfigError, match='source is SHIPPED, but this installation has no codebook'):
    tiny()
  with pytest.raises(ArtefactError, match='missing or damaged'):
    train_codebook.run(saved, None, tmp_path / 'codebook')


def test_the_artefact_does_not_need_the_package(tiny, tmp_path, monkeypatch):
  made = train_codebook.run(tiny(), None, tmp_path / 'codebook')
  monkeypatch.setattr(shipped_codebook, 'DIRECTORY', tmp_path / 'missing')
  again = Artefact.open(made.path, 'codebook')
  assert codebook_files.load_bits(again.path) == 64
  assert json.loads((again.path / 'report.json').read_text())['num_words'] == 256
