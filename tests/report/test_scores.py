"""What the parts of a fused score mean, for each way of joining them."""

import numpy as np
import pytest
from google.protobuf import text_format

from delf_d2r.kernels import fusion
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.report import scores


def meanings(config):
  return scores.meanings(text_format.Parse(config, FusionConfig()))


def test_nothing_without_fusion():
  assert scores.meanings(None) == {}


def test_the_default_experiment():
  found = meanings('normalization: BACKGROUND weight: 4 norm_order: 2')
  assert list(found) == ['local', 'global', 'score']
  assert found['global'].endswith(', times 4.')
  assert found['score'].startswith('√(local² + global²); a part below 0 is added as it is. ')
  assert 'standard deviations; 0 is what a photo of something else has on average' in found['score']


@pytest.mark.parametrize('local, whole', [(23.8, 27.21), (1.26, -7.71), (-1.91, -4.13)])
def test_the_formula_is_that_of_the_kernel(local, whole):
  found = fusion.add(np.array([local]), np.array([whole]), 1.0, norm_order=2).scores[0]
  root = (max(local, 0) ** 2 + max(whole, 0) ** 2) ** 0.5
  assert found == pytest.approx(root + min(local, 0) + min(whole, 0), rel=1e-6)


@pytest.mark.parametrize(
  'config, of_global, of_score',
  [
    (
      'weight: 1',
      'each).',
      'the sum of local and global. Both parts are in standard deviations; 0 is the mean of',
    ),
    ('', 'each), times 0.5.', 'the sum of local and global. Both'),
    ('normalization: NONE weight: 1', 'each).', 'similarities without a unit.'),
    ('normalization: BACKGROUND power: 2 weight: 3', 'each), to the power of 2, times 3.', 'the sum of'),
    (
      'normalization: BACKGROUND norm_order: 3',
      'each), times 0.5.',
      '(local^3 + global^3)^(1/3); a part below',
    ),
    ('normalization: BACKGROUND norm_order: 1 power: 1', 'each), times 0.5.', 'the sum of local and global.'),
  ],
)
def test_other_ways_of_joining(config, of_global, of_score):
  found = meanings(config)
  assert found['global'].endswith(of_global)
  assert of_score in found['score']
