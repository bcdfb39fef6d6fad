"""Configs of the tensorflow/models DELF code are converted to configs that extract the same features."""

import pytest
from google.protobuf import text_format

from delf_d2r import config as configs
from delf_d2r.data.legacy import config_files
from delf_d2r.errors import ConfigError
from delf_d2r.protos import aggregation_pb2, delf_legacy_config_pb2, extraction_pb2

Aggregation = aggregation_pb2.AggregationConfig

# The values of detect_to_retrieve/delf_gld_config.pbtxt (docs/reference.md 3.6).
GLD = """
model_path: "parameters/delf_gld_20190411/model"
image_scales: .25
image_scales: .5
image_scales: 2.0
delf_local_config {
  use_pca: true
  layer_name: ""
  iou_threshold: 1.0
  max_feature_num: 1000
  score_threshold: 100.0
  pca_parameters {
    mean_path: "pca/mean.datum"
    projection_matrix_path: "pca/pca_proj_mat.datum"
    pca_dim: 128
    use_whitening: false
  }
}
"""
DELG = """
model_path: "parameters/r50delg_gld_20200814"
image_scales: 1
is_tf2_exported: true
use_local_features: true
use_global_features: true
delf_local_config { use_pca: false max_feature_num: 900 score_threshold: 175.0 }
delf_global_config { use_pca: false image_scales_ind: 0 }
max_image_size: 1024
"""


def convert(text, change=''):
  message = text_format.Parse(text, delf_legacy_config_pb2.DelfConfig())
  text_format.Merge(change, message)
  experiment = config_files.as_experiment(message)
  # What comes out is valid.
  overrides = [configs.to_text(experiment)]
  return configs.load_or_default(None, ['extraction'], overrides=overrides).extraction


def test_config_of_detect_to_retrieve():
  found = convert(GLD)
  assert found.extractor == extraction_pb2.ExtractionConfig.DELF
  assert found.delf.model_path == 'parameters/delf_gld_20190411/model'
  assert list(found.delf.image_scales) == [0.25, 0.5, 2.0]
  assert (found.max_features, found.min_attention) == (1000, 100)
  pca = found.delf.pca
  assert (pca.mean_path, pca.projection_matrix_path) == ('pca/mean.datum', 'pca/pca_proj_mat.datum')
  assert (pca.dimensions, pca.whitening) == (128, False)
  sizes = (found.max_image_size, found.min_image_size, found.max_crop_size, found.min_crop_size)
  assert sizes == (0, 0, 0, 0)  # -1 there.
  assert not found.apply_exif_orientation


def test_config_of_delg():
  found = convert(DELG)
  assert (found.max_features, found.min_attention, found.max_image_size, found.max_crop_size) == (
    900,
    175,
    1024,
    1024,
  )
  assert not found.delf.HasField('pca')


@pytest.mark.parametrize(('chosen', 'scales'), [('', [1, 0.5, 0.25]), ('2 0', [0.25, 1])])
def test_global_descriptors_alone(chosen, scales):
  change = 'use_local_features: false image_scales: 0.5 image_scales: 0.25'
  message = text_format.Parse(DELG, delf_legacy_config_pb2.DelfConfig())
  message.delf_global_config.ClearField('image_scales_ind')
  indices = ' '.join(f'image_scales_ind: {position}' for position in chosen.split())
  found = convert(text_format.MessageToString(message), f'{change} delf_global_config {{ {indices} }}')
  assert found.extractor == extraction_pb2.ExtractionConfig.GLOBAL
  assert list(found.global_descriptor.image_scales) == scales
  assert found.global_descriptor.model_path == 'parameters/r50delg_gld_20200814'
  assert (found.max_image_size, found.max_crop_size, found.apply_exif_orientation) == (1024, 1024, False)


def test_defaults_of_the_research_code_hold():
  found = convert('model_path: "x" delf_local_config { use_pca: false }')
  assert (found.max_features, found.min_attention) == (1000, 100)


def test_whitening_takes_its_variances_along():
  found = convert(
    GLD, 'delf_local_config { pca_parameters { use_whitening: true pca_variances_path: "v.datum" } }'
  )
  assert (found.delf.pca.whitening, found.delf.pca.variances_path) == (True, 'v.datum')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ('use_local_features: false use_global_features: false', 'nothing to extract'),
    ('use_local_features: false delf_global_config { use_pca: true }', 'descriptor of every scale before'),
    (
      'use_local_features: false delf_global_config { image_scales_ind: 1 }',
      r'\[1\], .*: there are 1 image_scales',
    ),
    ('use_square_images: true', 'keep their aspect ratio'),
    ('delf_local_config { use_resized_coordinates: true }', 'refer to the original photo'),
    ('delf_local_config { use_pca: true }', 'needs pca_parameters'),
    ('max_image_size: 0', 'no pixel would be left'),
  ],
)
def test_what_has_no_counterpart_is_refused(change, message):
  with pytest.raises(ConfigError, match=message):
    convert(DELG, change)


def test_only_configs_of_the_research_code_are_taken_for_such(tmp_path):
  path = tmp_path / 'x.pbtxt'
  for text, is_legacy in (
    (GLD, True),
    (DELG, True),
    ('extraction { max_features: 5 }', False),
    ('max_features: 5', False),
    ('max_image_size: 800', False),  # Of either form; ours comes first.
    ('{', False),
  ):
    path.write_text(text)
    assert (config_files.parse(path) is not None) == is_legacy
  assert config_files.parse(tmp_path / 'none.pbtxt') is None


# The values of detect_to_retrieve/index_aggregation_config.pbtxt.
INDEX = """
codebook_size: 65536
feature_dimensionality: 128
aggregation_type: ASMK_STAR
use_l2_normalization: false
codebook_path: "parameters/codebook"
num_assignments: 1
use_regional_aggregation: true
feature_batch_size: 100
alpha: 3.0
tau: 0.0
"""


def aggregation(tmp_path, text, *overrides):
  path = tmp_path / 'x.pbtxt'
  path.write_text(text)
  return config_files.load_aggregation(path, overrides=overrides).aggregation


def test_published_config_of_aggregation(tmp_path):
  found = aggregation(tmp_path, INDEX)
  assert found.kernel == Aggregation.ASMK_STAR
  assert found.regions == Aggregation.REGIONAL_AGGREGATION
  assert (found.num_assignments, found.alpha, found.tau, found.normalize) == (1, 3, 0, False)
  assert aggregation(tmp_path, INDEX, 'aggregation.alpha: 2').alpha == 2


@pytest.mark.parametrize(
  ('text', 'kernel', 'normalize'),
  [
    ('aggregation_type: VLAD alpha: 5', Aggregation.VLAD, True),
    ('aggregation_type: ASMK use_l2_normalization: false', Aggregation.ASMK, False),
    ('codebook_size: 8 num_assignments: 3', Aggregation.ASMK_STAR, True),
  ],
)
def test_other_configs_of_aggregation(tmp_path, text, kernel, normalize):
  found = aggregation(tmp_path, text)
  assert (found.kernel, found.normalize, found.regions) == (kernel, normalize, Aggregation.WHOLE_IMAGE)


def test_aggregation_of_no_kernel_is_refused(tmp_path):
  with pytest.raises(ConfigError, match='aggregation_type: INVALID'):
    aggregation(tmp_path, 'aggregation_type: INVALID')


def test_own_configs_of_aggregation_are_read_as_such(tmp_path):
  for text in ('kernel: ASMK alpha: 2', 'aggregation { kernel: ASMK alpha: 2 }'):
    assert aggregation(tmp_path, text).kernel == Aggregation.ASMK
  assert aggregation(tmp_path, 'alpha: 2').kernel == Aggregation.ASMK_STAR
  assert config_files.load_aggregation(None, overrides=['aggregation.tau: 0.5']).aggregation.tau == 0.5
