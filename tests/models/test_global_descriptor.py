"""Global descriptors: pooled from a backbone or told by a SavedModel, over scales, reduced by PCA."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from delf_support import make_model, noise
from numpy.testing import assert_allclose

from delf_d2r.data import pca_files
from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import Covariance
from delf_d2r.models import backbones, efficientnet_lite, export, global_descriptor, global_model
from delf_d2r.protos import extraction_pb2

# Keras 3.15 converts variables in a way that NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')
SCALES = np.array([0.5, 1.0], np.float32)


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
    return global_descriptor.build(extraction_pb2.GlobalConfig(**fields))

  return build


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def expected(image, weights, *, power):
  """The definition, on the network as it was trained."""
  backbone = backbones.build('EFFICIENTNET_LITE0', endpoints=('conv3',), weights=weights)
  total = 0
  for scale in SCALES:
    size = np.round(np.array(image.shape[:2]) * scale).astype(int)
    pixels = (tf.image.resize(image[None].astype(np.float32), size, antialias=True) - 127) / 128
    cells = np.maximum(backbone(pixels)['conv3'].numpy().reshape(-1, 40).astype(float), 1e-6)
    pooled = cells.max(axis=0) if np.isinf(power) else (cells**power).mean(axis=0) ** (1 / power)
    total = total + unit(pooled)
  return unit(total)


@pytest.mark.parametrize('power', [3.0, 1.0, np.inf])
def test_it_is_the_generalised_mean_over_cells_summed_over_scales(build, weights, power):
  image = noise(96, 130)
  found = build(gem_power=power)(image)
  assert_allclose(found.descriptors[0], expected(image, weights, power=power), rtol=1e-3, atol=1e-5)
  assert_allclose(np.linalg.norm(found.descriptors), 1, rtol=1e-6)
  assert_allclose(found.locations, [[48, 65]])
  assert (found.scales.tolist(), found.attention.tolist()) == ([1], [1])


def test_default_scales(build):
  image = noise(96, 130)
  scales = [2**-0.5, 1, 2**0.5]
  assert_allclose(
    build(image_scales=[])(image).descriptors, build(image_scales=scales)(image).descriptors, atol=1e-6
  )


def test_images_of_all_sizes_share_one_trace_and_none_is_too_small(weights):
  describe = global_descriptor.PooledBackbone(
    extraction_pb2.GlobalConfig(backbone_weights=weights, endpoint='conv3')
  )
  for size in [(96, 130), (10, 10), (10, 300), (61, 47)]:
    assert np.isfinite(describe(noise(*size), SCALES)).all()
  assert describe._run.experimental_get_tracing_count() == 1


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


def test_own_export_with_a_global_head(tmp_path):
  model = make_model(global_dimensions=6, classifier_endpoint='conv3')
  path = export.save(export.LocalFeatureModule(model), model.config, tmp_path / 'delg', card={})
  image = noise(90, 70)
  extractor = global_descriptor.build(
    extraction_pb2.GlobalConfig(model_path=str(path), image_scales=SCALES.tolist())
  )
  serving = tf.saved_model.load(str(path)).signatures['serving_default']
  rows = serving(
    input_image=tf.constant(image),
    input_scales=tf.constant([2.0, *SCALES]),
    input_max_feature_num=tf.constant(5),
    input_abs_thres=tf.constant(0.0),
    input_global_scales_ind=tf.constant([1, 2]),
  )['global_descriptors']
  assert extractor.dimensions == 6
  assert_allclose(extractor(image).descriptors[0], unit(unit(rows.numpy()).sum(axis=0)), atol=1e-5)


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
  model = global_model.load(write_tf1(tmp_path / 'model', selects_scales=selects_scales))
  image = noise(40, 50)
  assert model.dimensions == 3
  assert_allclose(model(image, SCALES), stand_in_rows(image), rtol=1e-4)


def test_form_of_tensorflow_2(tmp_path):
  image = noise(40, 50)
  assert_allclose(
    global_model.load(write_tf2(tmp_path / 'a'))(image, SCALES), stand_in_rows(image), rtol=1e-4
  )
  pooled = global_model.load(write_tf2(tmp_path / 'b', output='global_descriptor', pools=True))
  assert_allclose(pooled(image, SCALES), stand_in_rows(image).sum(axis=0, keepdims=True), rtol=1e-4)


def test_model_without_global_descriptors_is_named(tmp_path):
  path = write_tf2(tmp_path / 'model', output='logits')
  with pytest.raises(UserError, match=r"no model of global descriptors: .*'input_scales'\] -> \['logits'\]"):
    global_model.load(path)
