"""Regions of activations: those of a flood fill, the strongest of each channel, empty maps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import global_oracle
from scipy import ndimage

from delf_d2r.kernels import activation_regions


def maps(seed=0, channels=6):
  noise = np.random.default_rng(seed).normal(size=(14, 17, channels))
  return ndimage.gaussian_filter(noise, (1.5, 1.5, 0)).astype(np.float32)


@pytest.mark.parametrize('threshold', [0.3, 0.6, 1.0])
def test_regions_are_those_of_a_flood_fill(threshold):
  activations = maps()
  found = activation_regions.find(activations, threshold=threshold, most=100)
  expected = [
    (channel, *region)
    for channel in range(activations.shape[2])
    for region in global_oracle.regions_of_channel(activations[..., channel], threshold)
  ]
  channels, ys, xs, areas, strengths = np.array(expected).T
  assert_array_equal(found.channels, channels)
  assert_allclose(found.centers, np.stack([ys, xs], axis=1), rtol=1e-5)
  assert_array_equal(found.areas, areas)
  assert_allclose(found.strengths, strengths, rtol=1e-6)


def test_the_strongest_of_each_channel_are_kept():
  every = activation_regions.find(maps(), threshold=0.3, most=100)
  few = activation_regions.find(maps(), threshold=0.3, most=2)
  assert max(np.bincount(every.channels)) > 2
  for channel in range(6):
    assert_array_equal(few.strengths[few.channels == channel], every.strengths[every.channels == channel][:2])


def test_dead_channels_have_no_regions():
  activations = np.zeros((4, 5, 3), np.float32)
  assert len(activation_regions.find(activations, threshold=0.5, most=2).channels) == 0
  activations[..., 0] = -1
  activations[1, 2, 1] = 3
  found = activation_regions.find(activations, threshold=0.5, most=2)
  assert (found.channels.tolist(), found.centers.tolist()) == ([1], [[1.5, 2.5]])
  assert (found.areas.tolist(), found.strengths.tolist()) == ([1], [3])


def test_a_channel_that_is_nowhere_positive_has_no_regions():
  found = activation_regions.find(np.full((3, 3, 2), [-1, 0], np.float32), threshold=1, most=5)
  assert found.channels.shape == (0,)
