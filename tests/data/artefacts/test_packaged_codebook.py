"""The small files of the codebook that comes with the package."""

import json

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.config import shipped_codebook
from delf_d2r.data.artefacts import packaged_codebook
from delf_d2r.data.artefacts.packaged_codebook import PackagedCodebook, QuantisedWords
from delf_d2r.errors import ArtefactError
from delf_d2r.kernels.projection import Projection
from delf_d2r.stages import train_codebook

KINDS = np.array([0, 1, 1, 0, 1, 0], np.uint8)


def words(seed=0):
  values = np.random.default_rng(seed).normal(0, [[0.3], [0.1], [0.1], [0.3], [0.1], [0.3]], (6, 8))
  values[:, 0] += 4 * KINDS
  values[:, 5] = 0.25
  return values.astype(np.float32)


def codebook(**changes):
  config = configs.default('extraction', 'codebook')
  config.codebook.num_words = 6
  config.codebook.projection.kinds.append(1)
  config.codebook.bits = 8
  fields = {
    'config': config,
    'words': QuantisedWords.of(words(), KINDS, 2),
    'projection': Projection(np.stack([np.eye(8, dtype=np.float32)] * 2), KINDS),
    'report': {'approximate_recall': 0.5},
    'card': {'name': 'x', 'models': {'model': 'abc'}},
  }
  return PackagedCodebook(**(fields | changes))


def test_words_are_rounded_to_half_a_step_of_their_kind():
  before = words()
  quantised = QuantisedWords.of(before, KINDS, 2)
  assert quantised.values.dtype == np.int8
  for kind in (0, 1):
    own = before[kind == KINDS]
    steps = (own.max(axis=0) - own.min(axis=0)) / 254
    error = np.abs(quantised.centroids[kind == KINDS] - own)
    assert (error <= steps / 2 + 1e-6).all()
  # A dimension of one value loses nothing.
  np.testing.assert_array_equal(quantised.centroids[:, 5], before[:, 5])
  assert quantised.centroids.dtype == np.float32


def test_a_kind_without_words():
  before = words()[:1]
  quantised = QuantisedWords.of(before, np.zeros(1, np.uint8), 2)
  np.testing.assert_allclose(quantised.centroids, before, atol=1e-6)


def test_values_are_those_of_two_roundings():
  """Product and sum are rounded one after the other, on every machine."""
  quantised = QuantisedWords.of(words(), KINDS, 2)
  for k, row in enumerate(quantised.values):
    for d, value in enumerate(row):
      product = np.float32(np.float32(value) * quantised.scales[KINDS[k], d])
      assert quantised.centroids[k, d] == np.float32(product + quantised.offsets[KINDS[k], d])


def test_round_trip(tmp_path):
  saved = codebook()
  packaged_codebook.save(saved, tmp_path)
  found = packaged_codebook.load(tmp_path)
  np.testing.assert_array_equal(found.words.centroids, saved.words.centroids)
  np.testing.assert_array_equal(found.projection.matrices, saved.projection.matrices)
  np.testing.assert_array_equal(found.projection.kinds, KINDS)
  assert (found.config, found.report, found.card) == (saved.config, saved.report, saved.card)


def test_the_digest_is_that_of_what_decides_the_descriptors(tmp_path):
  def digest(changed, name):
    (tmp_path / name).mkdir()
    packaged_codebook.save(changed, tmp_path / name)
    return packaged_codebook.load(tmp_path / name).digest

  first = digest(codebook(), 'first')
  assert len(first) == 16
  assert digest(codebook(card={'name': 'y', 'models': {}}), 'other_card') == first
  assert digest(codebook(words=QuantisedWords.of(words(1), KINDS, 2)), 'other_words') != first
  other = Projection(np.stack([-np.eye(8, dtype=np.float32)] * 2), KINDS)
  assert digest(codebook(projection=other), 'other_projection') != first


@pytest.mark.parametrize('name', ['values.npy', 'scales.npy', 'word_kinds.npy', 'projections.npy'])
def test_missing_files(tmp_path, name):
  packaged_codebook.save(codebook(), tmp_path)
  (tmp_path / name).unlink()
  with pytest.raises(ArtefactError, match=name):
    packaged_codebook.load(tmp_path)


@pytest.mark.parametrize(
  ('name', 'array'),
  [
    ('values.npy', np.zeros((6, 8), np.float32)),
    ('values.npy', np.zeros((6, 7), np.int8)),
    ('scales.npy', np.full((2, 8), np.nan, np.float32)),
    ('offsets.npy', np.zeros((1, 8), np.float32)),
    ('word_kinds.npy', np.full(6, 2, np.uint8)),
    ('projections.npy', np.zeros((2, 7, 8), np.float32)),
    ('projections.npy', np.full((2, 8, 8), np.inf, np.float32)),
  ],
)
def test_files_that_do_not_fit(tmp_path, name, array):
  packaged_codebook.save(codebook(), tmp_path)
  np.save(tmp_path / name, array)
  with pytest.raises(ArtefactError, match='Install the package again'):
    packaged_codebook.load(tmp_path)


@pytest.mark.parametrize('name', ['codebook.pbtxt', 'report.json', 'codebook_card.json'])
@pytest.mark.parametrize('text', ['{', '[]', None])
def test_damaged_texts(tmp_path, name, text):
  packaged_codebook.save(codebook(), tmp_path)
  (tmp_path / name).unlink()
  if text is not None:
    (tmp_path / name).write_text(text)
  with pytest.raises(ArtefactError, match=r'missing or damaged .*Install the package again'):
    packaged_codebook.load(tmp_path)


# The codebook of the package itself ------------------------------------------------------------------


def test_the_codebook_of_the_package_is_small_and_sound():
  files = list(shipped_codebook.DIRECTORY.iterdir())
  assert sum(file.stat().st_size for file in files) <= 2 << 20
  found = packaged_codebook.load(shipped_codebook.DIRECTORY)
  options = found.config.codebook
  centroids = found.words.centroids
  assert centroids.shape == (options.num_words, 128)
  assert len(np.unique(centroids, axis=0)) == len(centroids)
  assert found.report['approximate_recall'] > 0.9
  assert json.loads((shipped_codebook.DIRECTORY / 'codebook_card.json').read_text())['notes']
  origins = train_codebook.unit_origins(found.config.extraction, 128)
  # Each word lies within the unit sphere of its kind.
  assert (np.linalg.norm(centroids - origins[found.words.kinds], axis=1) < 1.01).all()


def test_the_codebook_of_the_package_belongs_to_the_default_model():
  """If this fails, the default model was made again: `make default-codebook` makes the codebook of it."""
  loaded = configs.load_or_default(
    None,
    ['extraction', 'codebook'],
    overrides=['codebook { source: SHIPPED } extraction { extractor: ROOT_SIFT_AND_DELF }'],
  )
  train_codebook.require_shipped_fits(loaded.codebook, loaded.extraction)
