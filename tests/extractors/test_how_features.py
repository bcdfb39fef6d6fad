"""Features of HOW: activations smoothed, the strongest before smoothing, from a backbone's weights alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose
from support.delf_models import noise

from delf_d2r.extractors import delf
from delf_d2r.models.backbones import efficientnet_lite, zoo
from delf_d2r.protos import extraction_pb2

pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')


def smoothed(features):
  """Mean over the 3 x 3 cells around each cell of [H, W, C], of those that there are."""
  found = np.empty_like(features)
  for y in range(features.shape[0]):
    for x in range(features.shape[1]):
      around = features[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
      found[y, x] = around.reshape(-1, features.shape[2]).mean(axis=0)
  return found


@pytest.mark.slow
def test_features_are_those_of_the_paper(tmp_path):
  keras.utils.set_random_seed(0)
  weights = tmp_path / 'lite.weights.h5'
  efficientnet_lite.build().save_weights(weights)
  config = extraction_pb2.ExtractionConfig(extractor='DELF', max_features=30)
  config.delf.image_scales.append(1)
  network = config.delf.network
  network.backbone_weights, network.endpoint, network.attention_endpoint = str(weights), 'conv3', 'conv3'
  network.attention, network.smoothing, network.reduced_dimensions = network.L2_NORM, 3, 0

  image = noise(64, 96)
  found = delf.build(config)(image)

  backbone = zoo.build('EFFICIENTNET_LITE0', endpoints=('conv3',), weights=weights)
  features = backbone(backbone.normalize(tf.constant(image[None], tf.float32)))['conv3'][0].numpy()
  attention = np.linalg.norm(features, axis=2).reshape(-1)
  order = np.argsort(-attention, kind='stable')[:30]
  expected = smoothed(features).reshape(-1, 40)[order]
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  assert_allclose(found.attention, attention[order], rtol=1e-3)
  assert_allclose(found.descriptors, expected, rtol=1e-2, atol=1e-3)
  assert found.dimensions == 40
