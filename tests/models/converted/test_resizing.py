"""Resizing without TensorFlow is TensorFlow's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from delf_d2r.models.converted import resizing

tf = pytest.importorskip('tensorflow')


@pytest.mark.parametrize('antialias', [False, True])
@pytest.mark.parametrize('shape', [(60, 80), (53, 79), (1, 7), (45, 31)])
@pytest.mark.parametrize('scale', [0.013, 0.25, 0.3536, 0.7071, 1.0, 1.4142, 2.0])
def test_it_is_that_of_tensorflow(shape, scale, antialias):
  pixels = np.random.default_rng(0).uniform(-1, 1, (*shape, 3)).astype(np.float32)
  size = tuple(max(1, round(side * scale)) for side in shape)
  expected = tf.image.resize(pixels, size, antialias=antialias).numpy()
  found = resizing.resize(pixels, size, antialias=antialias)
  assert found.dtype == np.float32
  assert_allclose(found, expected, atol=1e-6)


def test_one_axis_may_grow_while_the_other_shrinks():
  pixels = np.random.default_rng(1).uniform(-1, 1, (40, 30, 3)).astype(np.float32)
  expected = tf.image.resize(pixels, (17, 50), antialias=True).numpy()
  assert_allclose(resizing.resize(pixels, (17, 50)), expected, atol=1e-6)
