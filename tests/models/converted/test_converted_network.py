"""The package's network in other runtimes than TensorFlow: the same features, and what is refused."""

import json
import pathlib
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.delf_models import noise, tiny_model, tiny_module

from delf_d2r import config as configs
from delf_d2r.errors import UserError
from delf_d2r.extractors import delf, network_runtime, region_extractor
from delf_d2r.extractors.registry import DEFAULT_MODEL, DEFAULT_NETWORK
from delf_d2r.models.converted import network_file, quantization, runtimes
from delf_d2r.models.converted.pyramid import ConvertedGlobalDescriptors, ConvertedLocalFeatures
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import Boxes

pytest.importorskip('onnxruntime', reason='converted networks are run by onnxruntime')

Config = extraction_pb2.ExtractionConfig
ONNXRUNTIME, FLOAT32, INT8 = Config.ONNXRUNTIME, Config.FLOAT32, Config.INT8
SCALES = np.array([0.25, 0.7071, 1.0, 1.5], np.float32)
PHOTO = noise(150, 213)


def network():
  return network_file.load(DEFAULT_NETWORK, DEFAULT_MODEL)


def by_place(raw):
  """Returns the features of all cells in the order of their places."""
  order = np.lexsort((*raw.boxes.T, raw.scales))
  return raw.boxes[order], raw.scales[order], raw.scores[order], raw.features[order]


def same_features(converted, saved, *, max_features=10**6):
  ours, theirs = (
    by_place(model.extract(PHOTO, SCALES, max_features=max_features)) for model in (converted, saved)
  )
  for array, expected in zip(ours[:2], theirs[:2], strict=True):
    assert_allclose(array, expected, rtol=1e-5, atol=1e-3)
  for array, expected in zip(ours[2:], theirs[2:], strict=True):
    assert_allclose(array, expected, atol=3e-5 * np.abs(expected).max())


def test_local_features_are_those_of_the_saved_model():
  from delf_d2r.models.saved_models import local_features

  saved = local_features.load(str(DEFAULT_MODEL))
  converted = ConvertedLocalFeatures(network(), ONNXRUNTIME, FLOAT32)
  assert (converted.dimensions, converted.stride) == (saved.dimensions, saved.stride)
  same_features(converted, saved)
  best = converted.extract(PHOTO, SCALES, max_features=20)
  assert len(best.scores) == 20
  assert np.all(np.diff(best.scores) <= 0)
  assert_allclose(best.scores, saved.extract(PHOTO, SCALES, max_features=20).scores, rtol=1e-4)


def test_global_descriptors_are_those_of_the_saved_model():
  from delf_d2r.models.saved_models import global_descriptors

  saved = global_descriptors.load(str(DEFAULT_MODEL))
  converted = ConvertedGlobalDescriptors(network(), ONNXRUNTIME, FLOAT32)
  assert converted.dimensions == saved.dimensions
  assert_allclose(converted(PHOTO, SCALES), saved(PHOTO, SCALES), atol=1e-5)


def test_conversion_gives_the_bytes_of_the_package(tmp_path):
  from delf_d2r.models.converted import convert

  convert.write(DEFAULT_MODEL, tmp_path / 'network.onnx')
  assert (tmp_path / 'network.onnx').read_bytes() == DEFAULT_NETWORK.read_bytes()


def test_it_is_small_because_it_shares_the_weights():
  assert sum(file.stat().st_size for file in DEFAULT_NETWORK.parent.iterdir()) < 400_000


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """A tiny model of another form: reduced to 16 dimensions, stride 8, float32 weights, no global head."""
  from delf_d2r.models.delf import export

  model = tiny_model()
  return export.save(tiny_module(), model.config, tmp_path_factory.mktemp('exported') / 'model', card={})


def test_another_model_of_export_delf_converts(exported, tmp_path):
  from delf_d2r.models.converted import convert
  from delf_d2r.models.saved_models import local_features

  convert.write(exported, tmp_path / 'network.onnx')
  converted = network_file.load(tmp_path / 'network.onnx', exported)
  assert converted.outputs == ('attention', 'descriptors')
  assert converted.reduction is None
  same_features(ConvertedLocalFeatures(converted, ONNXRUNTIME, FLOAT32), local_features.load(str(exported)))


def test_conversion_refuses_other_models(exported, tmp_path):
  from delf_d2r.models.converted import convert

  shutil.copytree(exported, tmp_path / 'model')
  (tmp_path / 'model' / 'delf_model.pbtxt').unlink()
  with pytest.raises(UserError, match='only models of export_delf can be converted'):
    convert.convert(tmp_path / 'model')


def test_missing_damaged_or_of_another_model(exported, tmp_path):
  with pytest.raises(UserError, match=r'converted form of .* is missing'):
    network_file.load(tmp_path / 'nothing.onnx', DEFAULT_MODEL)
  damaged = tmp_path / 'network.onnx'
  damaged.write_bytes(DEFAULT_NETWORK.read_bytes()[:1000])
  with pytest.raises(UserError, match='damaged'):
    network_file.load(damaged, DEFAULT_MODEL)
  with pytest.raises(UserError, match=r'converted from a SavedModel whose saved_model.pb has the SHA-256'):
    network_file.load(DEFAULT_NETWORK, exported)


def test_changed_weights_are_refused(tmp_path):
  shutil.copytree(DEFAULT_MODEL, tmp_path / 'model')
  (data,) = (tmp_path / 'model' / 'variables').glob('variables.data-*')
  content = bytearray(data.read_bytes())
  content[1000] ^= 1
  data.write_bytes(content)
  with pytest.raises(UserError, match=r'variables.data-.* has the SHA-256'):
    network_file.load(DEFAULT_NETWORK, tmp_path / 'model')


def test_eight_bits_change_few_signs():
  exact = ConvertedLocalFeatures(network(), ONNXRUNTIME, FLOAT32)
  rounded = ConvertedLocalFeatures(quantization.quantized(network()), ONNXRUNTIME, INT8)
  photo = noise(320, 416, seed=3)
  ours, theirs = (by_place(model.extract(photo, SCALES, max_features=10**6)) for model in (rounded, exact))
  assert_array_equal(ours[0], theirs[0])
  assert 0 < np.mean(np.signbit(ours[3]) != np.signbit(theirs[3])) < 0.1
  assert np.corrcoef(ours[2], theirs[2])[0, 1] > 0.97


def test_rounding_of_weights_and_activations():
  converted = network()
  names = quantization.activations(converted)
  assert len(names) == len(set(names)) > 40
  assert 'images' not in names
  ranges = dict.fromkeys(names, (-1.0, 6.0))
  graph = quantization.with_ranges(converted, ranges).graph.graph
  constants = {tensor.name: network_file.value_of(tensor) for tensor in graph.initializer}
  kernels = {node.input[1] for node in converted.graph.graph.node if node.op_type == 'Conv'}
  weights = {
    tensor.name: network_file.value_of(tensor)
    for tensor in converted.graph.graph.initializer
    if tensor.name in kernels
  }
  rounded = [name for name in weights if f'{name}/integers' in constants]
  # All convolutions but the first three and two of attention.
  assert len(weights) - len(rounded) == 5
  for name in rounded:
    scales = constants[f'{name}/scales'].reshape(-1, 1, 1, 1)
    restored = constants[f'{name}/integers'] * scales
    assert np.all(np.abs(restored - weights[name]) <= 0.501 * scales)
  for name in names:
    assert constants[f'{name}/scale'] == np.float32(7 / 255)
    assert constants[f'{name}/zero'] == 36


def test_calibration_covers_nearly_all_values():
  converted = network()
  names = quantization.activations(converted)
  run = runtimes.open_network(quantization.observed(converted), names, runtime=ONNXRUNTIME, precision=FLOAT32)
  images = np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)
  ranges = quantization.calibrate(converted, run, [images])
  assert ranges.keys() == set(names)
  for name, value in zip(names, run(images), strict=True):
    low, high = ranges[name]
    assert np.mean((value >= low - 1e-3) & (value <= high * 1.001 + 1e-3)) > 0.99


def test_calibration_that_is_missing_or_of_another_network(tmp_path):
  copy = tmp_path / 'network.onnx'
  shutil.copy(DEFAULT_NETWORK, copy)
  with pytest.raises(UserError, match='missing or damaged'):
    quantization.quantized(network_file.load(copy, DEFAULT_MODEL))
  place = DEFAULT_NETWORK.parent / quantization.CALIBRATION
  content = json.loads(place.read_text(encoding='utf-8')) | {'network_sha256': 'other'}
  (tmp_path / quantization.CALIBRATION).write_text(json.dumps(content), encoding='utf-8')
  with pytest.raises(UserError, match='belongs to another network'):
    quantization.quantized(network_file.load(copy, DEFAULT_MODEL))


def test_runtime_that_is_not_installed(monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  with pytest.raises(UserError, match='needs the package onnxruntime'):
    runtimes.open_network(network(), ['attention'], runtime=ONNXRUNTIME, precision=FLOAT32)
  config = Config(extractor=Config.DELF, runtime=ONNXRUNTIME)
  with pytest.raises(UserError, match=r'extraction.runtime: ONNXRUNTIME needs the package onnxruntime'):
    delf.build(config)
  monkeypatch.setitem(sys.modules, 'openvino', None)
  automatic = Config(extractor=Config.DELF, runtime=Config.AUTO)
  assert not network_runtime.resolved(automatic).HasField('runtime')
  automatic.precision = INT8
  with pytest.raises(UserError, match='INT8 needs the package onnxruntime or openvino'):
    network_runtime.resolved(automatic)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('extractor: ROOT_SIFT runtime: ONNXRUNTIME', 'runtime has an effect only with extractor: DELF'),
    (
      'extractor: DELF delf { model_path: "x" } precision: INT8',
      'precision is INT8, but only the model that',
    ),
    ('extractor: DELF delf { model_path: "x" } runtime: OPENVINO', 'runtime is OPENVINO, but only the model'),
    ('extractor: GLOBAL runtime: ONNXRUNTIME', 'runtime is ONNXRUNTIME, but only the model that comes with'),
    ('extractor: DELF precision: INT8', 'precision is INT8, but runtime: TENSORFLOW has it not'),
    ('extractor: DELF runtime: ONNXRUNTIME precision: BFLOAT16', 'Set runtime: AUTO or OPENVINO'),
    ('extractor: DELF runtime: AUTO precision: INT8', ''),
    ('extractor: DELF delf { model_path: "x" } runtime: AUTO', ''),
    ('extractor: ROOT_SIFT_AND_DELF runtime: OPENVINO precision: BFLOAT16', ''),
    ('extractor: GLOBAL global_descriptor { shipped_model: true } runtime: OPENVINO', ''),
  ],
)
def test_configs(tmp_path, text, expected):
  path = tmp_path / 'config.pbtxt'
  path.write_text(f'name: "x" extraction {{ {text} }}', encoding='utf-8')
  if expected:
    with pytest.raises(UserError, match=expected):
      configs.load(path)
  else:
    configs.load(path)


def test_search_features_need_no_tensorflow():
  # Config, extractor and both kinds of features.
  script = """
    import sys
    sys.modules['tensorflow'] = None
    sys.modules['keras'] = None
    import numpy as np
    from delf_d2r.extractors import region_extractor
    from delf_d2r.protos import extraction_pb2
    from delf_d2r.structures import Boxes
    Config = extraction_pb2.ExtractionConfig
    photo = np.random.default_rng(0).integers(0, 256, (128, 160, 3), np.uint8)
    for precision in (Config.FLOAT32, Config.INT8):
      config = Config(extractor=Config.ROOT_SIFT_AND_DELF, runtime=Config.AUTO, precision=precision)
      assert len(region_extractor.build(config).extract('a', photo, Boxes.empty()).features)
      config = Config(extractor=Config.GLOBAL, runtime=Config.AUTO, precision=precision)
      config.global_descriptor.shipped_model = True
      assert len(region_extractor.build(config).extract('a', photo, Boxes.empty()).features) == 1
    assert sys.modules['tensorflow'] is None
  """
  root = pathlib.Path(delf.__file__).parents[2]
  subprocess.run([sys.executable, '-c', textwrap.dedent(script)], check=True, cwd=root)


def test_boxes_have_features_of_their_own():
  config = Config(extractor=Config.DELF, runtime=ONNXRUNTIME, max_features=50, region_features=Config.CROP)
  boxes = Boxes.from_coordinates([[0.1, 0.1, 0.9, 0.9]])
  found = region_extractor.build(config).extract('a', noise(256, 320), boxes)
  assert len(found.region_offsets) == 3
  assert np.all(np.diff(found.region_offsets) > 0)


@pytest.mark.parametrize(('precision', 'tolerance'), [(FLOAT32, 1e-4), (Config.BFLOAT16, 0.2), (INT8, 0.2)])
def test_openvino_gives_the_features_of_every_shape(precision, tolerance):
  pytest.importorskip('openvino', reason='an optional runtime')
  exact = ConvertedLocalFeatures(network(), ONNXRUNTIME, FLOAT32)
  converted = quantization.quantized(network()) if precision == INT8 else network()
  other = ConvertedLocalFeatures(converted, Config.OPENVINO, precision)
  for shape in ((96, 130), (200, 150), (96, 130)):
    photo = noise(*shape)
    ours, theirs = (by_place(model.extract(photo, SCALES, max_features=10**6)) for model in (other, exact))
    assert_array_equal(ours[0], theirs[0])
    cosines = np.sum(ours[3] * theirs[3], axis=1)
    assert cosines.mean() > 1 - tolerance
