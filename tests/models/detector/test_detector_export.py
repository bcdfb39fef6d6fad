"""Exports of detectors: the Object Detection API's contract, equal outputs, nothing needed but TensorFlow."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from numpy.testing import assert_allclose
from support import tiny_detector_training

from delf_d2r.models.detector import export, model_garden, network
from delf_d2r.models.saved_models import directory
from delf_d2r.protos import detector_pb2

tiny_detector_training.require_official()

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]
SHAPES = ((70, 90), (64, 64), (150, 40))


def images(shape):
  return tf.constant(tiny_detector_training.photo(5, shape=shape)[0][None])


@pytest.fixture(scope='module')
def built():
  """A detector that finds something everywhere."""
  tiny_detector_training.require_wheel()
  model_garden.keras().utils.set_random_seed(1)
  config = tiny_detector_training.load(
    tiny_detector_training.TINY, 'model { min_score: 0.001 backbone_weights: "imagenet" }'
  )
  found = network.Detector(config.detector_training.model)
  generator = np.random.default_rng(2)
  for variable in found.network.variables:
    if variable.name.endswith(('/scores/kernel:0', '/boxes/kernel:0')):
      variable.assign(generator.normal(0, 0.5, variable.shape))
  return found


@pytest.fixture(scope='module')
def exported(built, tmp_path_factory):
  module = export.DetectorModule(built)
  return export.save(module, built, tmp_path_factory.mktemp('exports') / 'tiny', card={'name': 'Tiny'})


def assert_same(found, expected, tolerance=1e-5):
  assert set(found) == set(expected)
  for name, value in expected.items():
    assert_allclose(found[name], value, atol=tolerance, err_msg=name)


@pytest.mark.parametrize('shape', SHAPES)
def test_reloaded_outputs_are_those_of_the_detector(built, exported, shape):
  loaded = tf.saved_model.load(str(exported))
  found = loaded.signatures['serving_default'](input_tensor=images(shape))
  count = int(found['num_detections'][0])
  assert 1 < count <= 100
  assert found['detection_boxes'].shape == (1, count, 4)
  assert found['detection_scores'].shape == found['detection_classes'].shape == (1, count)
  assert {value.dtype for value in found.values()} == {tf.float32}
  assert set(found['detection_classes'].numpy().ravel()) == {1}
  # It is the photo that decides, not the biases alone.
  assert np.ptp(found['detection_scores']) > 0.05
  expected = built.detect(images(shape))
  assert_allclose(found['detection_boxes'], expected['boxes'][:, :count], atol=1e-4)
  assert_allclose(found['detection_scores'], expected['scores'][:, :count], atol=1e-5)
  assert int(expected['counts'][0]) == count
  boxes, scores = found['detection_boxes'].numpy()[0], found['detection_scores'].numpy()[0]
  assert boxes.min() >= 0
  assert boxes.max() <= 1
  assert np.all(boxes[:, 2:] > boxes[:, :2])
  assert np.all(np.diff(scores) <= 0)
  # The model can be called, too.
  assert_same(loaded(images(shape)), found)


@pytest.mark.filterwarnings('ignore:pkg_resources is deprecated')
def test_tensorflow_hub_loads_it(exported):
  hub = pytest.importorskip('tensorflow_hub', exc_type=ImportError)
  expected = tf.saved_model.load(str(exported)).signatures['serving_default'](images(SHAPES[0]))
  assert_same(hub.load(str(exported)).signatures['serving_default'](images(SHAPES[0])), expected, 0)


def test_it_loads_without_what_it_was_built_with(exported):
  program = f"""
    import sys
    for name in ('official', 'tf_keras', 'keras', 'delf_d2r'):
      sys.modules[name] = None
    import tensorflow as tf
    found = tf.saved_model.load({str(exported)!r})(tf.zeros((1, 50, 60, 3), tf.uint8))
    print(sorted(found))
  """
  done = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program)], capture_output=True, text=True, check=False
  )
  assert 'detection_boxes' in done.stdout, done.stderr


def test_half_weights_take_half_the_space_and_change_little(built, exported, tmp_path):
  module = export.DetectorModule(built, half_weights=True)
  halved = export.save(module, built, tmp_path / 'half', card={})
  sizes = [(path / 'saved_model.pb').stat().st_size for path in (exported, halved)]
  assert sizes[1] < 0.6 * sizes[0]
  full, half = (tf.saved_model.load(str(path))(images(SHAPES[0])) for path in (exported, halved))
  # Rounding may change the order of what is nearly equal.
  best = 5
  assert_allclose(half['detection_scores'][:, :best], full['detection_scores'][:, :best], atol=0.01)
  assert not np.array_equal(half['detection_scores'][:, :best], full['detection_scores'][:, :best])


def test_constants_beyond_half_precision_stay_whole():
  graph = tf.Graph()
  with graph.as_default():
    for name, scale in (('fits', 1.0), ('large', 1e6)):
      tf.constant(scale * np.linspace(-1, 1, 1000), tf.float32, name=name)
    tf.constant(np.ones(1000), tf.float64, name='double')
    tf.constant([1.0], name='small')
  halved = export.with_half_constants(graph.as_graph_def())
  assert {node.name: node.op for node in halved.node} == {
    'fits/half': 'Const',
    'fits': 'Cast',
    'large': 'Const',
    'double': 'Const',
    'small': 'Const',
  }


def test_the_export_holds_config_and_card(exported):
  config = detector_pb2.DetectorModelConfig()
  text_format.Parse((exported / export.CONFIG).read_text(), config)
  assert (config.image_size, config.backbone_weights) == (64, '')
  assert json.loads((exported / directory.CARD_JSON).read_text()) == {'name': 'Tiny'}
