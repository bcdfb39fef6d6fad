"""Exports: equal outputs wherever they are loaded, a card that says what they are, nothing half-written."""

import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from numpy.testing import assert_allclose, assert_array_equal
from support.delf_models import TINY, make_model, noise, tiny_model, tiny_module

from delf_d2r.data.artefacts import artefact_writer, pca_files
from delf_d2r.data.artefacts.artefact import Plan
from delf_d2r.errors import UserError
from delf_d2r.kernels.pca import Covariance
from delf_d2r.models.delf import export, pyramid
from delf_d2r.models.saved_models import directory, global_descriptors, local_features
from delf_d2r.protos import delf_model_pb2, experiment_pb2
from delf_d2r.stages import export_delf

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]
SCALES = np.array([0.5, 1.0, 1.4142], np.float32)
INPUTS = {
  'input_image': tf.constant(noise(90, 70)),
  'input_scales': tf.constant(SCALES),
  'input_max_feature_num': tf.constant(40),
  'input_abs_thres': tf.constant(0.0),
}


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  path = tmp_path_factory.mktemp('exports') / 'tiny'
  return export.save(tiny_module(), tiny_model().config, path, card={'name': 'Tiny', 'data': {'photos': 3}})


def by_place(outputs):
  """Returns the features in the order of their boxes, since rounding decides between equal attention."""
  order = np.lexsort(np.round(outputs['boxes'], 1).T)
  return {name: np.asarray(value)[order] for name, value in outputs.items()}


def assert_same(found, expected):
  assert set(found) == set(expected)
  for outputs in (found, expected):
    assert np.all(np.diff(np.ravel(outputs['scores'])) <= 0)
  found = by_place(found)
  for name, value in by_place(expected).items():
    scale = np.abs(value).max()
    assert_allclose(found[name], value, atol=1e-5 * scale, err_msg=name)


def test_eager_graph_and_reloaded_outputs_are_equal(exported):
  eager = pyramid.select(
    pyramid.extract(tiny_model(), INPUTS['input_image'][None], INPUTS['input_scales']), 40, 0.0
  )
  graph = tiny_module().serving_default(**INPUTS)
  reloaded = tf.saved_model.load(str(exported)).signatures['serving_default'](**INPUTS)
  assert_same(graph, eager)
  assert_same(reloaded, graph)


@pytest.mark.filterwarnings('ignore:pkg_resources is deprecated')
def test_tensorflow_hub_loads_it(exported):
  hub = pytest.importorskip('tensorflow_hub', exc_type=ImportError)
  loaded = hub.load(str(exported)).signatures['serving_default'](**INPUTS)
  assert_same(loaded, tiny_module().serving_default(**INPUTS))


def test_own_loader_gives_the_same_alone_and_in_batches(exported):
  model = local_features.load(str(exported))
  assert (model.kind, model.dimensions, model.stride, model.has_batches) == ('TensorFlow 2', 16, 8, True)
  images = np.stack([noise(90, 70, seed) for seed in (0, 5)])
  expected = tiny_module().serving_default(**INPUTS)
  for found in (
    model.extract(images[0], SCALES, max_features=40),
    model.extract_batch(images, SCALES, max_features=40)[0],
  ):
    assert_same({**vars(found), 'scores': found.scores[:, None]}, expected)


def test_the_export_holds_config_and_card(exported):
  config = delf_model_pb2.DelfModelConfig()
  text_format.Parse((exported / export.CONFIG).read_text(), config)
  assert config.endpoint == 'conv3'
  assert json.loads((exported / directory.CARD_JSON).read_text())['data'] == {'photos': 3}
  assert '| photos | 3 |' in (exported / directory.CARD_MARKDOWN).read_text()
  assert exported.stat().st_mode & 0o777 == 0o755


def fitted(folder, dimensions=16):
  covariance = Covariance(dimensions)
  covariance.add(np.random.default_rng(0).normal(size=(99, dimensions)))
  pca_files.save(covariance.pca(), folder)
  return covariance.pca()


def test_pca_built_into_the_graph(tmp_path):
  pca = fitted(tmp_path).truncated(5)
  matrix, offset = pca.as_affine(whitening=True)
  module = export.LocalFeatureModule(tiny_model(), pca=pca, whitening=True)
  raw = tiny_module().serving_default(**INPUTS)['features'].numpy()
  expected = raw / np.linalg.norm(raw, axis=1, keepdims=True) @ matrix + offset
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  assert_allclose(module.serving_default(**INPUTS)['features'], expected, atol=1e-5)
  (tmp_path / 'other').mkdir()
  other = fitted(tmp_path / 'other', 7)
  with pytest.raises(UserError, match='of 7 dimensions, but the model makes 16'):
    export.LocalFeatureModule(tiny_model(), pca=other)


# The stage


def test_a_trained_artefact_becomes_a_model_with_its_numbers(tmp_path):
  config = experiment_pb2.ExperimentConfig()
  config.training.model.CopyFrom(
    delf_model_pb2.DelfModelConfig(**TINY, num_classes=3, classifier_endpoint='conv3')
  )
  config.training.seed = 7
  with artefact_writer.writing(tmp_path / 'trained', Plan('delf', config, ())) as writer:
    model = make_model(num_classes=3, classifier_endpoint='conv3')
    model.save(tmp_path / 'trained' / 'delf.weights.h5')
    history = (
      '{"step": 1, "group": "validation", "loss": 2.5}\n{"step": 9, "group": "validation", "loss": 0.5}\n'
    )
    (tmp_path / 'trained' / 'history.jsonl').write_text(history)
    (tmp_path / 'trained' / 'best.json').write_text('{"step": 9, "value": 0.5, "file": "x"}')
    trained = writer.finish({'photos': 12})
  output = export_delf.run_trained(trained, tmp_path / 'a' / 'model', export_delf.Options(notes='CC0'))
  found = tf.saved_model.load(str(output)).signatures['serving_default'](**INPUTS)
  expected = pyramid.select(
    pyramid.extract(model, INPUTS['input_image'][None], INPUTS['input_scales']), 40, 0.0
  )
  assert_same(found, expected)
  card = json.loads((output / directory.CARD_JSON).read_text())
  assert card['metrics'] == {'validation': 'step 9, loss 0.5'}
  assert card['chosen checkpoint'] == 'step 9, best by validation: 0.5'
  assert card['curves'] == {'step 1': 'validation loss 2.5', 'step 9': 'validation loss 0.5'}
  assert (card['seed'], card['notes'], card['counts']['photos']) == (7, 'CC0', 12)
  # No name of a folder of this machine in what is passed on.
  assert str(tmp_path) not in (output / directory.CARD_MARKDOWN).read_text()


def test_existing_output_is_kept(tmp_path):
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'x').write_text('mine')
  with pytest.raises(UserError, match='exists already'):
    export_delf.run(tiny_model().config, '', tmp_path / 'model', export_delf.Options())
  with pytest.raises(UserError, match='exists already'):
    export.save(tiny_module(), tiny_model().config, tmp_path / 'model', card={})
  assert (tmp_path / 'model' / 'x').read_text() == 'mine'


def test_bad_options(tmp_path):
  fitted(tmp_path)
  for options, message in (
    ({'nms_iou': 0.0}, r'nms_iou is 0; it must be in \(0, 1\]'),
    ({'pca': str(tmp_path), 'dimensions': 20}, '20 dimensions are wanted, but the PCA has 16'),
    ({'pca': str(tmp_path / 'nowhere')}, 'missing or damaged'),
  ):
    with pytest.raises(UserError, match=message):
      export_delf.run(tiny_model().config, '', tmp_path / 'model', export_delf.Options(**options))
  assert not (tmp_path / 'model').exists()


def test_nothing_is_left_of_an_export_that_failed(tmp_path, monkeypatch):
  monkeypatch.setattr(directory, '_markdown', lambda card: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    export.save(tiny_module(), tiny_model().config, tmp_path / 'model', card={})
  assert list(tmp_path.iterdir()) == []


def test_half_weights_take_half_the_space_and_change_little(exported, tmp_path):
  module = export.LocalFeatureModule(tiny_model(), half_weights=True)
  halved = export.save(module, tiny_model().config, tmp_path / 'half', card={'name': 'Half'})
  sizes = [
    sum(file.stat().st_size for file in (path / 'variables').glob('*.data*')) for path in (exported, halved)
  ]
  # The reduction stays as it is; the tiny network has few weights beside them.
  assert sizes[1] < 0.65 * sizes[0]
  full, half = (
    tf.saved_model.load(str(path)).signatures['extract_batch'](
      input_images=INPUTS['input_image'][None],
      input_scales=INPUTS['input_scales'],
      input_max_feature_num=tf.constant(10_000),
    )
    for path in (exported, halved)
  )
  # Attention orders the features, and rounding may change the order: compare what does not depend on it.
  for name in ('scores', 'features'):
    one, two = (np.sort(outputs[name].numpy().ravel()) for outputs in (full, half))
    assert_allclose(one, two, atol=0.01 * np.abs(one).max())
    assert not np.array_equal(one, two)


def test_attention_of_an_endpoint_of_another_stride_is_refused():
  config = {'endpoint': 'conv3', 'attention': delf_model_pb2.DelfModelConfig.L2_NORM}
  with pytest.raises(UserError, match=r"'conv3': 8, 'conv2': 4"):
    make_model(**config, attention_endpoint='conv2')


@pytest.mark.parametrize('half_weights', [False, True])
def test_global_descriptors_are_in_the_contract_alone_and_with_the_whole(tmp_path, half_weights):
  model = make_model(
    global_dimensions=6, classifier_endpoint='conv4', global_input_normalized=True, num_classes=3
  )
  module = export.LocalFeatureModule(model, half_weights=half_weights)
  path = export.save(module, model.config, tmp_path / 'delg', card={})
  signatures = tf.saved_model.load(str(path)).signatures
  inputs = {name: INPUTS[name] for name in ('input_image', 'input_scales')}
  alone = signatures['extract_global'](**inputs)
  assert set(alone) == {'global_descriptors'}
  whole = signatures['serving_default'](**INPUTS, input_global_scales_ind=tf.range(3))['global_descriptors']
  assert_array_equal(alone['global_descriptors'], whole)
  expected = pyramid.extract_global(model, INPUTS['input_image'][None], INPUTS['input_scales'])[0]
  assert_allclose(whole, expected, atol=(0.02 if half_weights else 1e-4) * np.abs(expected).max())
  # Scales are chosen by their numbers.
  chosen = signatures['serving_default'](**INPUTS, input_global_scales_ind=tf.constant([2, 0]))
  assert_array_equal(chosen['global_descriptors'], whole.numpy()[[2, 0]])
  assert local_features.load(str(path)).dimensions == 16
  found = global_descriptors.load(str(path))
  assert found.dimensions == 6
  assert_array_equal(found(INPUTS['input_image'].numpy(), SCALES), whole)
  # Centres of classes are for training alone.
  names = [name for name, _ in tf.train.list_variables(str(path / 'variables' / 'variables'))]
  assert not any('center' in name for name in names)


def test_models_without_a_global_head_have_no_such_signature(exported):
  assert set(tf.saved_model.load(str(exported)).signatures) == {'serving_default', 'extract_batch'}
