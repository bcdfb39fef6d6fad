"""DELF as an extractor: descriptors, thresholds, PCA, regions, and the errors that a user can mend."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.delf_models import noise, tiny_module

from delf_d2r import config as configs
from delf_d2r.data.artefacts import pca_files
from delf_d2r.data.legacy import datum
from delf_d2r.errors import UserError
from delf_d2r.extractors import delf, global_descriptor, reduction, region_extractor
from delf_d2r.extractors.delf import DelfExtractor
from delf_d2r.extractors.resize import resize
from delf_d2r.kernels.pca import Covariance, Pca
from delf_d2r.models.delf import export
from delf_d2r.models.saved_models.local_features import RawFeatures
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import FEATURE_ARRAYS, Boxes

Config = extraction_pb2.ExtractionConfig
RAW = RawFeatures(
  boxes=np.array([[0, 0, 10, 20], [0, 1, 10, 21], [30, 30, 40, 50]], np.float32),
  scales=np.array([1, 2, 0.5], np.float32),
  scores=np.array([30, 20, 10], np.float32),
  features=np.array([[3, 4], [0, 2], [-5, 0]], np.float32),
)


class Fake:
  """A model that finds the same in every image."""

  path, dimensions, stride, has_batches = 'fake', 2, 8.0, False

  def __init__(self, raw=RAW):
    self.raw = raw

  def extract(self, image, scales, *, max_features):
    return RawFeatures(*(array[:max_features] for array in vars(self.raw).values()))


def fake(*, max_features=10, min_attention=0.0, raw=RAW, **fields):
  delf = extraction_pb2.DelfConfig(**fields)
  return DelfExtractor(Fake(raw), delf, max_features=max_features, min_attention=min_attention)


IMAGE = np.zeros((60, 60, 3), np.uint8)


def test_locations_are_centres_and_descriptors_of_unit_length():
  found = fake()(IMAGE)
  assert_allclose(found.locations, [[5, 10], [5, 11], [35, 40]])
  assert_allclose(found.descriptors, [[0.6, 0.8], [0, 1], [-1, 0]], rtol=1e-6)
  assert_array_equal(found.attention, RAW.scores)
  assert_array_equal(found.scales, RAW.scales)


def test_threshold_that_removes_some_or_all():
  extractor = fake(min_attention=20)
  assert len(extractor(IMAGE)) == 2
  assert extractor.note == ''
  extractor = fake(min_attention=100, max_features=2)
  found = extractor(IMAGE)
  assert found.descriptors.shape == (0, 2)
  assert 'min_attention 100 removes every feature' in extractor.note
  assert 'from 20 to 30' in extractor.note


def test_image_without_any_cell_is_no_matter_of_the_threshold():
  extractor = fake(min_attention=5, raw=RawFeatures(*(array[:0] for array in vars(RAW).values())))
  assert len(extractor(IMAGE)) == 0
  assert extractor.note == ''


def test_suppression():
  assert fake(nms_iou=0.5)(IMAGE).attention.tolist() == [30, 10]
  assert fake(nms_iou=0.95)(IMAGE).attention.tolist() == [30, 20, 10]
  # The limit counts what is left.
  assert fake(nms_iou=0.5, max_features=2)(IMAGE).attention.tolist() == [30, 10]


def write_pca(folder, dimensions=2, components=None):
  generator = np.random.default_rng(0)
  covariance = Covariance(dimensions)
  covariance.add(generator.normal(size=(50, dimensions)) @ np.diag(np.arange(dimensions) + 1.0))
  pca = covariance.pca()
  pca = Pca(pca.mean, pca.components[:components], pca.variances[:components])
  pca_files.save(pca, folder)
  return pca


@pytest.mark.parametrize('whitening', [False, True])
@pytest.mark.parametrize('form', ['ours', 'datum'])
def test_pca_as_in_tensorflow_models(tmp_path, whitening, form):
  pca = write_pca(tmp_path)
  if form == 'ours':
    options = {'path': str(tmp_path)}
  else:
    options = {
      'mean_path': str(tmp_path / 'mean.datum'),
      'projection_matrix_path': str(tmp_path / 'pca_proj_mat.datum'),
      'variances_path': str(tmp_path / 'pca_variances.datum') if whitening else '',
    }
  for dimensions in (1, 2):
    config = extraction_pb2.DelfPcaConfig(whitening=whitening, dimensions=dimensions, **options)
    extractor = fake(pca=config)
    assert extractor.dimensions == dimensions
    unit = RAW.features / np.linalg.norm(RAW.features, axis=1, keepdims=True)
    wanted = (unit - pca.mean) @ pca.components[:dimensions].T
    if whitening:
      wanted /= np.sqrt(pca.variances[:dimensions])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert_allclose(extractor(IMAGE).descriptors, wanted, rtol=1e-5, atol=1e-6)


def test_pca_that_does_not_fit(tmp_path):
  write_pca(tmp_path, dimensions=3)
  with pytest.raises(UserError, match='of 3 dimensions, but the model fake makes 2'):
    fake(pca=extraction_pb2.DelfPcaConfig(path=str(tmp_path)))
  with pytest.raises(UserError, match='5 dimensions are wanted, but the PCA has 3'):
    fake(pca=extraction_pb2.DelfPcaConfig(path=str(tmp_path), dimensions=5))


def of_files(folder, **arrays):
  for name, array in arrays.items():
    datum.write(folder / f'{name}.datum', np.asarray(array, np.float32))
  mean, matrix, variances = (str(folder / f'{name}.datum') for name in ('mean', 'matrix', 'variances'))
  return extraction_pb2.DelfPcaConfig(
    mean_path=mean, projection_matrix_path=matrix, variances_path=variances, whitening=True
  )


@pytest.mark.parametrize('form', ['datum', 'npy', 'folder of datum'])
def test_rows_of_published_pca_are_read_like_vectors(tmp_path, form):
  """mean.datum and pca_variances.datum of delf_gld_20190411 are [1, 1024]."""
  write_pca(tmp_path)
  mean, matrix, variances = (np.load(tmp_path / f'{name}.npy') for name in pca_files.NAMES)
  wanted = fake(pca=extraction_pb2.DelfPcaConfig(path=str(tmp_path), whitening=True))(IMAGE)
  config = of_files(tmp_path, mean=mean[None], matrix=matrix, variances=variances[None])
  if form == 'npy':
    # As `d2r convert` writes them from the published files.
    np.save(tmp_path / 'mean.npy', mean[None])
    np.save(tmp_path / 'variances.npy', variances[None])
    config = extraction_pb2.DelfPcaConfig(path=str(tmp_path), whitening=True)
  elif form == 'folder of datum':
    for name in pca_files.NAMES:
      (tmp_path / f'{name}.npy').unlink()
    datum.write(tmp_path / 'mean.datum', mean[None])
    datum.write(tmp_path / 'pca_variances.datum', variances[None])
    config = extraction_pb2.DelfPcaConfig(path=str(tmp_path), whitening=True)
  assert_array_equal(fake(pca=config)(IMAGE).descriptors, wanted.descriptors)


@pytest.mark.parametrize(
  ('wrong', 'value', 'found'),
  [
    ('mean', np.zeros(4), r'\[4\]'),
    ('mean', np.zeros((2, 2)), r'\[2, 2\]'),
    ('mean', [np.nan, 0], 'not finite'),
    ('variances', np.ones((2, 1)), r'\[2, 1\]'),
    ('variances', [np.inf, 1], 'not finite'),
    ('matrix', np.ones(2), r'\[2\]'),
    ('matrix', np.full((2, 2), np.nan), 'not finite'),
  ],
)
def test_damaged_pca_is_named_before_the_model_is_loaded(tmp_path, wrong, value, found):
  right = {'mean': np.zeros(2), 'matrix': np.eye(2), 'variances': np.ones(2)}
  config = of_files(tmp_path, **{**right, wrong: value})
  message = rf'^{tmp_path}/{wrong}\.datum: .*found.* {found}'
  with pytest.raises(UserError, match=message):
    fake(pca=config)
  # There is no such model, which would be noticed when it is loaded.
  extraction = extraction_pb2.ExtractionConfig(extractor='DELF')
  extraction.delf.model_path = str(tmp_path / 'model')
  extraction.delf.pca.CopyFrom(config)
  with pytest.raises(UserError, match=message):
    delf.build(extraction)
  extraction.extractor = extraction_pb2.ExtractionConfig.GLOBAL
  extraction.global_descriptor.model_path = str(tmp_path / 'model')
  extraction.global_descriptor.pca.CopyFrom(config)
  with pytest.raises(UserError, match=message):
    global_descriptor.build(extraction)
  with pytest.raises(UserError, match=message):
    reduction.require_usable(extraction)


# On an exported network


@pytest.fixture(scope='module')
def model_path(tmp_path_factory):
  path = tmp_path_factory.mktemp('models') / 'tiny'
  from support.delf_models import tiny_model

  export.save(tiny_module(), tiny_model().config, path, card={'name': 'tiny'})
  return path


def build(model_path, **fields):
  config = configs.default('extraction').extraction
  config.extractor = Config.DELF
  config.delf.CopyFrom(extraction_pb2.DelfConfig(model_path=str(model_path), image_scales=[0.5, 1.0]))
  for name, value in fields.items():
    setattr(config, name, value)
  return region_extractor.build(configs.resolve(config))


GRID = Boxes.from_coordinates([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0.1, 0.2, 0.9, 0.7], [0.98, 0.98, 1, 1]])


@pytest.mark.slow
def test_batches_of_crops_give_what_single_crops_give(model_path, monkeypatch):
  image = noise(128, 160)
  together = build(model_path, max_features=50).extract('x', image, GRID)
  # Both quarters are of one shape; now each has a batch of its own.
  monkeypatch.setattr('delf_d2r.extractors.region_extractor._BATCH_PIXELS', 1)
  alone = build(model_path, max_features=50).extract('x', image, GRID)
  assert_array_equal(together.region_offsets, alone.region_offsets)
  assert together.region_offsets[-1] == 4 * 50  # The last box is too small for any.
  for name in FEATURE_ARRAYS:
    assert_allclose(getattr(together.features, name), getattr(alone.features, name), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_shared_feature_maps_give_each_box_its_own_best(model_path):
  image = noise(128, 160)
  extractor = build(model_path, max_features=30, region_features=Config.SHARED_FEATURE_MAP)
  found = extractor.extract('x', image, GRID)
  whole = build(model_path, max_features=30).extract('x', image, Boxes.empty())
  for name in FEATURE_ARRAYS:
    assert_array_equal(getattr(found.region(0), name), getattr(whole.features, name))
  every = build(model_path, max_features=10**6).extract('x', image, Boxes.empty()).features
  for r, box in enumerate(GRID.coordinates, start=1):
    region = found.region(r)
    low, high = np.array(box[:2]) * (128, 160), np.array(box[2:]) * (128, 160)
    inside = np.all((every.locations >= low) & (every.locations <= high), axis=1)
    # The shorter side of a box spans side / (8 * 2) cells at scale 0.5: at least 4 from 64 pixels on.
    coarse_too = min(high - low) >= 64
    inside &= (every.scales == 1) | coarse_too
    assert_array_equal(region.attention, every.attention[inside][:30])
    assert_array_equal(region.locations, every.locations[inside][:30])


def test_one_forward_pass_with_shared_feature_maps(model_path, monkeypatch):
  extractor = build(model_path, region_features=Config.SHARED_FEATURE_MAP)
  calls = []
  model = extractor._extractor._model
  extract = model.extract
  monkeypatch.setattr(model, 'extract', lambda *a, **k: calls.append(1) or extract(*a, **k))
  extractor.extract('x', noise(96, 96), GRID)
  assert calls == [1]


def test_locations_are_those_of_the_photo_after_resizing(model_path):
  image = noise(192, 256)
  reduced = build(model_path, max_features=5, max_image_size=128).extract('x', image, Boxes.empty())
  small = resize(image, max_size=128, min_size=0)
  plain = build(model_path, max_features=5).extract('x', small, Boxes.empty())
  assert_allclose(reduced.features.locations, 2 * plain.features.locations)
  assert_allclose(reduced.features.scales, 2 * plain.features.scales)


def test_missing_default_model(monkeypatch, tmp_path):
  monkeypatch.setattr(delf, 'DEFAULT_MODEL', tmp_path / 'default')
  with pytest.raises(UserError, match=r'model_path is empty.*has none'):
    build('')
