"""What a codebook is trained on: the rule of the sample, its limits, and what is held out."""

import json

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer, codebook_files, records
from delf_d2r.data.artefacts.artefact import Input, Plan
from delf_d2r.errors import UserError
from delf_d2r.kernels import projection as projections
from delf_d2r.protos import codebook_pb2
from delf_d2r.stages import train_codebook
from delf_d2r.structures import ImageFeatures, LocalFeatures

DIMENSIONS = 4
Config = codebook_pb2.ProjectionConfig


def image_features(name, whole, boxed):
  """An image with `whole` features in region 0, which say 0 in their last component, and `boxed` others."""
  n = whole + boxed
  descriptors = np.random.default_rng(len(name) + whole).random((n, DIMENSIONS)).astype(np.float32)
  descriptors[:, -1] = np.arange(n) >= whole
  zeros = np.zeros(n, np.float32)
  return ImageFeatures(
    name,
    10,
    10,
    np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5]], np.float32),
    np.array([0, whole, n]),
    LocalFeatures(np.zeros((n, 2), np.float32), zeros, zeros, descriptors),
  )


@pytest.fixture
def make_features(tmp_path):
  def make(images, *, per_shard=2):
    config = configs.default('extraction')
    path = tmp_path / f'features-{len(list(tmp_path.iterdir()))}'
    with artefact_writer.writing(path, Plan('features', config, (Input('images', 'x', tmp_path),))) as writer:
      for shard in writer.ledger.missing(len(images), per_shard):
        with writer.ledger.write(shard) as file:
          for item in shard.items:
            image = images[item]
            whole = int(image.region_offsets[1])
            file.add(
              records.encode_features(image), images=1, features=len(image.features), whole_features=whole
            )
      return writer.finish()

  return make


def options(**fields):
  config = configs.default('codebook')
  for name, value in fields.items():
    setattr(config.codebook, name, value)
  return config


IMAGES = [
  image_features(f'{name}.jpg', whole, 3) for name, whole in zip('abcde', (0, 40, 7, 100, 3), strict=True)
]


def test_boxes_play_no_role(make_features):
  sample = train_codebook.sample_descriptors(make_features(IMAGES), options(num_words=2).codebook)
  assert sample.shape == (150, DIMENSIONS)
  assert not sample[:, -1].any()


def test_sample_depends_neither_on_shards_nor_on_the_order_of_images(make_features):
  chosen = options(num_words=2, max_descriptors=60).codebook
  samples = [
    train_codebook.sample_descriptors(make_features(images, per_shard=per_shard), chosen)
    for images, per_shard in ((IMAGES, 1), (IMAGES, 5), (IMAGES[::-1], 2))
  ]
  np.testing.assert_array_equal(samples[0], samples[1])
  rows = [sorted(map(tuple, sample.tolist())) for sample in samples]
  # At the very end a sample is cut to its limit, which drops the last rows of the last image alone.
  assert len(set(rows[0]) ^ set(rows[2])) <= 6


def test_every_image_gives_the_same_share(make_features):
  chosen = options(num_words=2, max_descriptors=75).codebook
  sample = train_codebook.sample_descriptors(make_features(IMAGES), chosen)
  assert 70 <= len(sample) <= 75
  for image, expected in ((IMAGES[1], 20), (IMAGES[3], 50)):
    own = {tuple(row) for row in image.region(0).descriptors.tolist()}
    assert abs(sum(tuple(row) in own for row in sample.tolist()) - expected) <= 5


@pytest.mark.parametrize(
  ('fields', 'expected'),
  [
    ({'max_descriptors': 0, 'max_descriptors_per_word': 0}, 0),
    ({'max_descriptors': 500, 'max_descriptors_per_word': 0}, 500),
    ({'max_descriptors': 500, 'max_descriptors_per_word': 100}, 200),
    ({'max_descriptors': 0, 'max_descriptors_per_word': 100}, 200),
  ],
)
def test_limits(fields, expected):
  assert train_codebook.most_descriptors(options(num_words=2, **fields).codebook) == expected


def test_too_few_descriptors_leave_nothing_behind(make_features, tmp_path):
  features = make_features(IMAGES)
  with pytest.raises(UserError, match=r'num_words is 151.*only 150 descriptors.*Lower'):
    train_codebook.run(options(num_words=151), features, tmp_path / 'codebook')
  assert not (tmp_path / 'codebook').exists()


def test_without_any_feature(make_features, tmp_path):
  features = make_features([image_features('a.jpg', 0, 0)])
  with pytest.raises(UserError, match='only 0 descriptors'):
    train_codebook.run(options(num_words=1), features, tmp_path / 'codebook')


def test_report_beside_the_codebook(make_features, tmp_path):
  artefact = train_codebook.run(
    options(num_words=8, iterations=4), make_features(IMAGES), tmp_path / 'codebook'
  )
  report = json.loads((artefact.path / 'report.json').read_text())
  assert len(report['loss']) == 4
  assert report['loss'][-1] <= report['loss'][0]
  assert report['num_words'] == 8
  # Small codebooks are always searched exactly.
  assert codebook_files.load_recall(artefact.path) == 1.0
  assert codebook_files.load_centroids(artefact.path).shape == (8, DIMENSIONS)


def test_recall_is_measured_on_descriptors_that_were_not_trained_on():
  descriptors = np.random.default_rng(0).random((300_000, 2)).astype(np.float32)
  trained, held_out = train_codebook._hold_out(descriptors, options(num_words=100).codebook)
  assert len(held_out) == 2000
  assert len(trained) == 298_000
  both = np.concatenate([trained, held_out])
  np.testing.assert_array_equal(
    np.sort(both.view('f4,f4').ravel()), np.sort(descriptors.view('f4,f4').ravel())
  )


# Projections of residuals --------------------------------------------------------------------------

# Unit vectors in 16 dimensions around the origin, and as many around a point at distance 4.
ORIGINS = np.stack([np.zeros(16), 4 * np.eye(1, 16)[0]]).astype(np.float32)


def two_kinds(count=400):
  directions = np.random.default_rng(0).standard_normal((count, 16))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  return (ORIGINS[np.arange(count) % 2] + directions).astype(np.float32)


def projected(*kinds, bits=0, seed=0):
  config = options(num_words=10).codebook
  config.projection.kinds.extend(kinds)
  config.projection.seed = seed
  config.bits = bits
  return config


def learn(config, origins=ORIGINS):
  descriptors = two_kinds()
  return train_codebook.learn_projection(descriptors[:10], descriptors, origins, config)


def test_residuals_are_taken_as_they_are_unless_told_otherwise():
  assert learn(options(num_words=10).codebook) is None
  assert learn(projected(Config.NONE)) is None


def test_each_kind_of_features_has_its_projection():
  found = learn(projected(Config.ROTATION, Config.NONE, bits=8))
  assert found.kinds.tolist() == [0, 1] * 5
  assert found.matrices.shape == (2, 16, 8)
  np.testing.assert_array_equal(found.matrices[1], np.eye(16, 8))
  np.testing.assert_array_equal(found.matrices[0], projections.rotation(16, 8, np.random.default_rng([0, 0])))


def test_one_value_holds_for_all_kinds_with_a_rotation_for_each():
  found = learn(projected(Config.ROTATION))
  assert found.matrices.shape == (2, 16, 16)
  assert not np.allclose(*found.matrices)
  assert not np.allclose(found.matrices, learn(projected(Config.ROTATION, seed=1)).matrices)


@pytest.mark.parametrize('kind', [Config.PCA_ROTATION, Config.ITQ])
def test_learned_from_residuals_of_the_own_kind(kind):
  found = learn(projected(kind, bits=8))
  descriptors = two_kinds()
  own = descriptors[::2]
  distances = np.linalg.norm(own[:, None] - descriptors[:10], axis=-1)
  residuals = own - descriptors[distances.argmin(axis=1)]
  function = projections.pca_rotation if kind == Config.PCA_ROTATION else projections.itq
  expected = function(residuals, 8, np.random.default_rng([0, 0]))
  np.testing.assert_allclose(found.matrices[0], expected, atol=1e-5)


def test_an_extractor_of_one_kind_without_a_certain_length():
  found = learn(projected(Config.ROTATION, bits=8), ORIGINS[:0])
  assert found.matrices.shape == (1, 16, 8)
  assert not found.kinds.any()


def test_impossible_projections():
  with pytest.raises(UserError, match=r'codebook.bits is 24, but descriptors have only 16 dimensions. Set'):
    learn(projected(Config.ROTATION, bits=24))
  with pytest.raises(UserError, match=r'kinds has 3 values, but the extractor has 2 kinds of local features'):
    learn(projected(*[Config.ROTATION] * 3))


def test_words_of_another_codebook_are_those_that_would_be_trained(make_features, tmp_path):
  config, features = options(num_words=8, iterations=2), make_features(IMAGES)
  plain = train_codebook.run(config, features, tmp_path / 'plain')
  config.codebook.projection.kinds.append(Config.ITQ)
  trained = train_codebook.run(config, features, tmp_path / 'trained')
  taken = train_codebook.run(config, features, tmp_path / 'taken', words=plain)
  back = train_codebook.run(options(num_words=8, iterations=2), features, tmp_path / 'back', words=trained)
  for one, other in ((trained, taken), (plain, back)):
    assert one.manifest.fingerprint == other.manifest.fingerprint
    assert one.counts == other.counts
    files = {file.file for file in one.manifest.side_files}
    assert files == {file.file for file in other.manifest.side_files}
    for name in files:
      assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
  with pytest.raises(UserError, match=r'would be trained: codebook\.iterations is 2 there, 3 here'):
    train_codebook.run(options(num_words=8, iterations=3), features, tmp_path / 'x', words=plain)
  other_features = make_features(IMAGES[:4])
  other_features.manifest.fingerprint = 'other'
  with pytest.raises(UserError, match=r'not those that would be trained: input features is'):
    train_codebook.run(config, other_features, tmp_path / 'x', words=plain)


def test_the_artefact_has_the_projection(make_features, tmp_path):
  config = options(num_words=8, iterations=2)
  plain = train_codebook.run(config, make_features(IMAGES), tmp_path / 'plain')
  assert codebook_files.load_projection(plain.path) is None
  assert codebook_files.load_bits(plain.path) == DIMENSIONS
  config.codebook.projection.kinds.append(Config.ITQ)
  found = train_codebook.run(config, make_features(IMAGES), tmp_path / 'projected')
  again = train_codebook.run(config, make_features(IMAGES), tmp_path / 'again')
  assert (found.path / 'codebook.npy').read_bytes() == (plain.path / 'codebook.npy').read_bytes()
  assert (found.path / 'projections.npy').read_bytes() == (again.path / 'projections.npy').read_bytes()
  assert found.manifest.fingerprint == again.manifest.fingerprint != plain.manifest.fingerprint
  assert {file.file for file in found.manifest.side_files} == {
    'codebook.npy',
    'projections.npy',
    'report.json',
    'word_kinds.npy',
  }
  assert codebook_files.load_projection(found.path).matrices.shape == (1, DIMENSIONS, DIMENSIONS)
