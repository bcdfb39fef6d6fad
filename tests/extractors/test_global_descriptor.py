"""Global descriptors: pooled from a backbone or told by a SavedModel, over scales, reduced by PCA."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from oracles import global_oracle
from support.delf_models import make_model, noise

from delf_d2r.data.artefacts import pca_files
from delf_d2r.errors import UserError
from delf_d2r.extractors import activation_regions, global_descriptor
from delf_d2r.kernels.pca import Covariance
from delf_d2r.models.backbones import efficientnet_lite, zoo
from delf_d2r.models.backbones.activations import Activations
from delf_d2r.models.backbones.pooled import PooledBackbone
from delf_d2r.models.delf import export
from delf_d2r.models.saved_models import global_descriptors
from delf_d2r.protos import extraction_pb2
from delf_d2r.protos.delf_model_pb2 import DelfModelConfig

# Keras 3.15 converts variables in a way that NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')
SCALES = np.array([0.5, 1.0], np.float32)


def build_global(**fields):
  """The extractor of a GlobalConfig."""
  return global_descriptor.build(
    extraction_pb2.ExtractionConfig(extractor='GLOBAL', global_descriptor=fields)
  )


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> str:
  """Random weights of the whole EfficientNet-Lite0."""
  keras.utils.set_random_seed(0)
  path = tmp_path_factory.mktemp('weights') / 'lite.weights.h5'
  efficientnet_lite.build().save_weights(path)
  return str(path)


@pytest.fixture(scope='module')
def build(weights):
  """An extractor on conv3, 40 channels."""

  def build(**fields):
    fields = {'backbone_weights': weights, 'endpoint': 'conv3', 'image_scales': SCALES.tolist(), **fields}
    return build_global(**fields)

  return build


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


@functools.cache
def network(weights):
  return zoo.build('EFFICIENTNET_LITE0', endpoints=('conv3',), weights=weights)


def feature_map(image, weights, scale):
  """float64 [H', W', 40], by the network as it was trained."""
  backbone = network(weights)
  size = np.round(np.array(image.shape[:2]) * scale).astype(int)
  pixels = (tf.image.resize(image[None].astype(np.float32), size, antialias=True) - 127) / 128
  return backbone(pixels)['conv3'][0].numpy().astype(float)


def expected(image, weights, *, power, scale_power=1):
  """The definition."""
  total = 0
  for scale in SCALES:
    cells = np.maximum(feature_map(image, weights, scale).reshape(-1, 40), 1e-6)
    pooled = cells.max(axis=0) if np.isinf(power) else (cells**power).mean(axis=0) ** (1 / power)
    total = total + unit(pooled) ** scale_power
  return unit(total ** (1 / scale_power))


@pytest.mark.slow
@pytest.mark.parametrize('power', [3.0, 1.0, np.inf])
def test_it_is_the_generalised_mean_over_cells_summed_over_scales(build, weights, power):
  image = noise(96, 130)
  found = build(gem_power=power)(image)
  assert_allclose(found.descriptors[0], expected(image, weights, power=power), rtol=1e-3, atol=1e-5)
  assert_allclose(np.linalg.norm(found.descriptors), 1, rtol=1e-6)
  assert_allclose(found.locations, [[48, 65]])
  assert (found.scales.tolist(), found.attention.tolist()) == ([1], [1])


@pytest.mark.slow
def test_scales_are_summed_by_a_power(build, weights):
  image = noise(96, 130)
  found = build(scale_power=3)(image).descriptors[0]
  assert_allclose(found, expected(image, weights, power=3, scale_power=3), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_squares_sum_to_rmac(build, weights, tmp_path):
  covariance = Covariance(40)
  covariance.add(np.random.default_rng(0).normal(size=(200, 40)))
  pca_files.save(covariance.pca(), tmp_path)
  matrix, offset = covariance.pca().truncated(12).as_affine(whitening=True)
  image = noise(96, 130)
  for options, project in (
    ({}, lambda x: x),
    ({'pca': {'path': str(tmp_path), 'dimensions': 12, 'whitening': True}}, lambda x: x @ matrix + offset),
  ):
    extractor = build(pooling=global_descriptor.Config.R_MAC, image_scales=[1.0], **options)
    found = extractor(image)
    assert extractor.dimensions == found.dimensions
    assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, rtol=1e-5)
    whole = global_oracle.rmac(feature_map(image, weights, 1), 3, project)
    assert_allclose(unit(found.descriptors.sum(axis=0)), whole, rtol=1e-3, atol=1e-4)
  # A map of 12 x 17 cells of 8 pixels: the first square is 12 cells high and wide.
  assert_allclose(found.locations[0], [48, 130 * 6 / 17])
  assert_allclose(found.scales[0], 12 * np.sqrt(8 * 130 / 17), rtol=1e-5)
  half = build(pooling=global_descriptor.Config.R_MAC, image_scales=[0.5, 1.0], **options)(image)
  assert_allclose(half.descriptors[-len(found) :], found.descriptors, atol=1e-5)
  assert len(half) > len(found)


@pytest.mark.slow
def test_activation_regions_lie_where_the_image_responds(weights):
  config = extraction_pb2.ExtractionConfig(extractor='ACTIVATION_REGIONS', max_features=50)
  config.activation_regions.backbone_weights, config.activation_regions.endpoint = weights, 'conv3'
  extractor = activation_regions.build(config)
  # A patch of texture on grey, in an image whose sides are no multiples of the stride.
  image = np.full((150, 203, 3), 127, np.uint8)
  image[80:120, 120:170] = noise(40, 50)
  found = extractor(image)
  assert extractor.dimensions == found.dimensions == 1
  assert 20 < len(found) <= 50
  assert np.all(np.diff(found.attention) <= 0)
  channels = found.descriptors[:, 0].astype(int)
  assert np.bincount(channels).max() <= 2
  middle = np.median(found.locations, axis=0)
  assert_allclose(middle, [100, 145], atol=25)
  assert np.all((found.locations >= 0) & (found.locations <= image.shape[:2]))
  config.min_attention = float(found.attention[9])
  assert len(activation_regions.build(config)(image)) == 10


def test_alexnet_and_images_that_it_is_too_large_for(tmp_path):
  keras.utils.set_random_seed(0)
  path = tmp_path / 'alexnet.weights.h5'
  zoo.build('ALEXNET', endpoints=('conv5',)).model.save_weights(path)
  extractor = build_global(backbone='ALEXNET', backbone_weights=str(path), endpoint='conv4')
  for size in [(10, 10), (10, 300), (64, 100)]:
    assert_allclose(np.linalg.norm(extractor(noise(*size)).descriptors), 1, rtol=1e-5)


@pytest.mark.slow
def test_default_scales(build):
  image = noise(96, 130)
  scales = [2**-0.5, 1, 2**0.5]
  assert_allclose(
    build(image_scales=[])(image).descriptors, build(image_scales=scales)(image).descriptors, atol=1e-6
  )


@pytest.mark.slow
def test_images_of_all_sizes_share_one_trace_and_none_is_too_small(weights):
  activations = Activations(DelfModelConfig.EFFICIENTNET_LITE0, weights, 'conv3')
  describe = PooledBackbone(activations, gem_power=3)
  for size in [(96, 130), (10, 10), (10, 300), (61, 47)]:
    assert np.isfinite(describe(noise(*size), SCALES)).all()
  assert describe._run.experimental_get_tracing_count() == 1


@pytest.mark.slow
def test_pca_reduces_and_has_to_fit(build, tmp_path):
  covariance = Covariance(40)
  covariance.add(np.random.default_rng(0).normal(size=(200, 40)) * np.arange(1, 41))
  pca_files.save(covariance.pca(), tmp_path)
  image = noise(64, 64)
  whole = build()(image).descriptors
  pca = {'path': str(tmp_path), 'dimensions': 8, 'whitening': True}
  extractor = build(pca=pca)
  matrix, offset = covariance.pca().truncated(8).as_affine(whitening=True)
  assert extractor.dimensions == 8
  assert_allclose(extractor(image).descriptors, unit(whole @ matrix + offset), atol=1e-5)
  with pytest.raises(
    UserError, match=r'global_descriptor\.pca reduces .* 40 dim.* EFFICIENTNET_LITE0 makes 24'
  ):
    build(endpoint='conv2', pca=pca)


def test_what_cannot_be_built(build, tmp_path):
  with pytest.raises(UserError, match=r"no endpoint \['conv9'\]"):
    build(endpoint='conv9')
  with pytest.raises(UserError, match='no such file of weights'):
    build(backbone_weights=str(tmp_path / 'nowhere.h5'))


# SavedModels


@pytest.fixture(scope='module')
def own_export(tmp_path_factory):
  """An export of the package with a global head."""
  model = make_model(global_dimensions=6, classifier_endpoint='conv3')
  folder = tmp_path_factory.mktemp('export') / 'delg'
  return export.save(export.LocalFeatureModule(model), model.config, folder, card={})


@pytest.mark.slow
def test_own_export_with_a_global_head(own_export):
  image = noise(90, 70)
  extractor = build_global(model_path=str(own_export), image_scales=SCALES.tolist())
  serving = tf.saved_model.load(str(own_export)).signatures['serving_default']
  rows = serving(
    input_image=tf.constant(image),
    input_scales=tf.constant([2.0, *SCALES]),
    input_max_feature_num=tf.constant(5),
    input_abs_thres=tf.constant(0.0),
    input_global_scales_ind=tf.constant([1, 2]),
  )['global_descriptors']
  assert extractor.dimensions == 6
  assert_allclose(extractor(image).descriptors[0], unit(unit(rows.numpy()).sum(axis=0)), atol=1e-5)


@pytest.mark.slow
def test_the_model_of_the_package_needs_no_weights_from_elsewhere(own_export, monkeypatch):
  monkeypatch.setattr(global_descriptor, 'DEFAULT_MODEL', own_export)
  options = {'image_scales': SCALES.tolist()}
  shipped, named = (
    build_global(**which, **options) for which in ({'shipped_model': True}, {'model_path': str(own_export)})
  )
  image = noise(90, 70)
  assert_array_equal(shipped(image).descriptors, named(image).descriptors)
  config = extraction_pb2.ExtractionConfig(extractor=extraction_pb2.ExtractionConfig.GLOBAL)
  config.global_descriptor.shipped_model = True
  assert global_descriptor.model_files(config) == {'model': own_export}


def stand_in(image, scales):
  """A descriptor for each scale, [S, 3]."""
  return tf.reduce_mean(tf.cast(image, tf.float32), axis=(0, 1))[None] ** scales[:, None]


def stand_in_rows(image):
  return np.mean(image.astype(float), axis=(0, 1))[None] ** SCALES[:, None]


def write_tf1(path, *, selects_scales):
  """As TensorFlow 1 wrote them, made before or after models selected scales themselves."""
  v1 = tf.compat.v1
  with tf.Graph().as_default(), v1.Session() as session:
    image = v1.placeholder(tf.uint8, [None, None, 3], name='input_image')
    scales = v1.placeholder(tf.float32, [None], name='input_scales')
    rows = stand_in(image, scales)
    if selects_scales:
      rows = tf.gather(rows, v1.placeholder(tf.int32, [None], name='input_global_scales_ind'))
    tf.identity(rows, name='global_descriptors')
    builder = v1.saved_model.builder.SavedModelBuilder(str(path))
    builder.add_meta_graph_and_variables(session, ['serve'])
    builder.save()
  return str(path)


def write_tf2(path, *, output='global_descriptors', pools=False):
  module = tf.Module()
  function = tf.function(
    lambda input_image, input_scales: {
      output: tf.reduce_sum(stand_in(input_image, input_scales), axis=0)
      if pools
      else stand_in(input_image, input_scales)
    }
  ).get_concrete_function(
    input_image=tf.TensorSpec([None, None, 3], tf.uint8, name='input_image'),
    input_scales=tf.TensorSpec([None], tf.float32, name='input_scales'),
  )
  tf.saved_model.save(module, str(path), signatures={'serving_default': function})
  return str(path)


@pytest.mark.parametrize('selects_scales', [False, True])
def test_form_of_tensorflow_1(tmp_path, selects_scales):
  model = global_descriptors.load(write_tf1(tmp_path / 'model', selects_scales=selects_scales))
  image = noise(40, 50)
  assert model.dimensions == 3
  assert_allclose(model(image, SCALES), stand_in_rows(image), rtol=1e-4)


def test_form_of_tensorflow_2(tmp_path):
  image = noise(40, 50)
  assert_allclose(
    global_descriptors.load(write_tf2(tmp_path / 'a'))(image, SCALES), stand_in_rows(image), rtol=1e-4
  )
  pooled = global_descriptors.load(write_tf2(tmp_path / 'b', output='global_descriptor', pools=True))
  assert_allclose(pooled(image, SCALES), stand_in_rows(image).sum(axis=0, keepdims=True), rtol=1e-4)


def test_model_without_global_descriptors_is_named(tmp_path):
  path = write_tf2(tmp_path / 'model', output='logits')
  with pytest.raises(UserError, match=r"no model of global descriptors: .*'input_scales'\] -> \['logits'\]"):
    global_descriptors.load(path)


def write_plain(path, spec, function):
  """A SavedModel of one input and one output."""
  served = tf.function(lambda image: {'embedding': function(tf.cast(image, tf.float32))})
  concrete = served.get_concrete_function(tf.TensorSpec(*spec, name='image'))
  tf.saved_model.save(tf.Module(), str(path), signatures={'serving_default': concrete})
  return str(path)


def first_row(images):
  """Height, and the mean of each channel, of the first image."""
  means = tf.reduce_mean(images, axis=(1, 2))
  return tf.concat([tf.cast(tf.shape(images)[1:2], tf.float32)[None], means], axis=1)


def test_any_model_from_an_image_to_a_descriptor(tmp_path):
  image = np.full((40, 60, 3), (51, 102, 204), np.uint8)
  free = global_descriptors.load(write_plain(tmp_path / 'a', ([None, None, None, 3], tf.float32), first_row))
  assert free.dimensions == 4
  assert_allclose(free(image, SCALES), [[20, 0.2, 0.4, 0.8], [40, 0.2, 0.4, 0.8]], rtol=1e-4)
  fixed = global_descriptors.load(write_plain(tmp_path / 'b', ([1, 32, 32, 3], tf.uint8), first_row))
  assert_allclose(fixed(image, SCALES), [[32, 51, 102, 204]], rtol=1e-5)
  single = write_plain(tmp_path / 'c', ([None, None, 3], tf.uint8), lambda image: first_row(image[None])[0])
  extractor = build_global(model_path=single, image_scales=[1])
  assert_allclose(extractor(image).descriptors, [unit(np.array([40, 51, 102, 204]))], rtol=1e-5)


def test_what_is_no_model_from_an_image_to_a_descriptor(tmp_path):
  dense = write_plain(tmp_path / 'a', ([None, None, None, 3], tf.float32), lambda images: images[:, ::2])
  with pytest.raises(UserError, match=r'to one descriptor \[D\] or \[1, D\], found image of shape'):
    global_descriptors.load(dense)
  words = write_plain(tmp_path / 'b', ([None, 7], tf.float32), lambda rows: rows)
  with pytest.raises(UserError, match=r'expected one image .* found image of shape \(None, 7\)'):
    global_descriptors.load(words)
