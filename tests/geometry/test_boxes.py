"""Boxes: grids by hand, selection, overlap, pixels of a crop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from delf_d2r.geometry import boxes as geometry
from delf_d2r.structures import WHOLE_IMAGE, Boxes


def boxes(coordinates, scores):
  return Boxes(np.array(coordinates, np.float32).reshape(-1, 4), np.array(scores, np.float32))


# Grids


def test_grid_without_levels_is_empty():
  assert geometry.uniform_grid([], overlap=0.3).coordinates.shape == (0, 4)


def test_grid_of_one_is_the_whole_image():
  assert_array_equal(geometry.uniform_grid([1], overlap=0.3).coordinates, [WHOLE_IMAGE])


def test_grid_without_overlap():
  quarters = [[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], [0.5, 0, 1, 0.5], [0.5, 0.5, 1, 1]]
  assert_allclose(geometry.uniform_grid([2], overlap=0).coordinates, quarters)


def test_grid_with_overlap_by_hand():
  # Side 1 / (2 - 0.5) = 2/3, starts 0 and 1/3: neighbours share 1/3, half of a side.
  expected = [[0, 0, 2, 2], [0, 1, 2, 3], [1, 0, 3, 2], [1, 1, 3, 3]]
  assert_allclose(geometry.uniform_grid([2], overlap=0.5).coordinates, np.array(expected) / 3, rtol=1e-6)


@settings(deadline=None, database=None, derandomize=True)
@given(n=st.integers(1, 8), overlap=st.floats(0, 0.99))
def test_grids_reach_from_edge_to_edge_and_share_the_overlap(n, overlap):
  grid = geometry.uniform_grid([n], overlap=overlap)
  assert len(grid) == n * n
  ymin, xmin, ymax, xmax = grid.coordinates.reshape(n, n, 4).transpose(2, 0, 1).astype(float)
  assert (ymin[0].max(), xmin[:, 0].max()) == (0, 0)
  assert_allclose(ymax[-1], 1, rtol=1e-6)
  assert_allclose(xmax[:, -1], 1, rtol=1e-6)
  assert max(ymax.max(), xmax.max()) <= 1
  side = 1 / (n - (n - 1) * overlap)
  assert_allclose(ymax - ymin, side, atol=1e-6)
  assert_allclose(xmax[:, :-1] - xmin[:, 1:], overlap * side, atol=1e-6)
  assert_array_equal(grid.scores, np.ones(n * n))


def test_levels_follow_each_other():
  grid = geometry.uniform_grid([2, 3], overlap=0.3)
  assert len(grid) == 13
  assert_array_equal(grid.coordinates[:4], geometry.uniform_grid([2], overlap=0.3).coordinates)
  assert_array_equal(grid.coordinates[4:], geometry.uniform_grid([3], overlap=0.3).coordinates)


# Area and overlap


def test_area():
  assert_allclose(
    geometry.area(np.array([[0, 0, 1, 1], [0.5, 0.25, 1, 0.5], [0.5, 0, 0.4, 1]])), [1, 0.125, 0]
  )
  assert geometry.area(np.zeros((0, 4))).shape == (0,)


def test_intersection_over_union_by_hand():
  a = np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.25, 0.75]])
  b = np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], [0.5, 0.5, 1, 1], [0.25, 0.25, 0.25, 0.75]])
  # 1/16 of the image shared, 7/16 covered; touching boxes share nothing; boxes without area neither.
  assert_allclose(geometry.intersection_over_union(a, b), [[1, 1 / 7, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(('a', 'b'), [(0, 3), (3, 0), (0, 0)])
def test_overlap_with_no_boxes(a, b):
  assert geometry.intersection_over_union(np.zeros((a, 4)), np.zeros((b, 4))).shape == (a, b)


# Selection

SQUARES = [[0, 0, 0.5, 0.5], [0, 0, 0.4, 0.5], [0.5, 0.5, 1, 1], [0, 0, 0.1, 0.1]]


def test_select_of_nothing():
  found = geometry.select(Boxes.empty(), min_score=0.5, max_overlap=0.5, max_boxes=3)
  assert found.coordinates.shape == (0, 4)
  assert found.scores.shape == (0,)
  assert found.coordinates.dtype == np.float32


def test_select_puts_the_best_first_and_keeps_the_order_of_ties():
  found = geometry.select(boxes(SQUARES, [0.5, 0.9, 0.5, 0.9]))
  assert_allclose(found.scores, [0.9, 0.9, 0.5, 0.5])
  assert_allclose(found.coordinates, np.array(SQUARES)[[1, 3, 0, 2]])


def test_select_thresholds_are_inclusive():
  some = boxes(SQUARES, [0.25, 0.5, 0.75, 1])
  assert_allclose(geometry.select(some, min_score=0.5).scores, [1, 0.75, 0.5])
  assert_allclose(geometry.select(some, min_area=0.25).scores, [0.75, 0.25])
  areas = geometry.area(some.coordinates)
  for most in sorted(set(areas.tolist())):
    kept = geometry.select(some, max_area=most)
    assert len(kept) == (areas <= most).sum() - (areas == 0).sum()
    assert geometry.area(kept.coordinates).max(initial=0) <= most
  assert_allclose(geometry.select(boxes(SQUARES, [-0.1, 0, 1, -1])).scores, [1, 0])


def test_select_drops_near_duplicates_of_better_boxes():
  some = boxes(SQUARES, [1, 0.9, 0.8, 0.7])  # The second covers 0.8 of the first.
  assert_allclose(geometry.select(some, max_overlap=0.81).scores, [1, 0.9, 0.8, 0.7])
  assert_allclose(geometry.select(some, max_overlap=0.79).scores, [1, 0.8, 0.7])
  assert_allclose(geometry.select(some, max_overlap=0).scores, [1, 0.8])


def test_a_box_is_compared_with_kept_boxes_alone():
  # b overlaps a, c overlaps b but not a: b goes, so c stays.
  chain = [[0, 0, 0.4, 1], [0.2, 0, 0.6, 1], [0.4, 0, 0.8, 1]]
  assert_allclose(geometry.select(boxes(chain, [3, 2, 1]), max_overlap=0.3).scores, [3, 1])


def test_select_limits_the_number_last():
  some = boxes(SQUARES, [1, 0.9, 0.8, 0.7])
  assert_allclose(geometry.select(some, max_boxes=2).scores, [1, 0.9])
  assert_allclose(geometry.select(some, max_boxes=2, max_overlap=0.5).scores, [1, 0.8])


def test_select_clips_and_drops_what_has_no_area_in_the_image():
  wild = [[-0.5, -0.5, 0.5, 2], [1.1, 0, 1.5, 1], [0.5, 0.5, 0.5, 0.9], [0.6, 0, 0.5, 1], [np.nan, 0, 1, 1]]
  found = geometry.select(boxes(wild, [1] * 5), max_overlap=0.9)
  assert_allclose(found.coordinates, [[0, 0, 0.5, 1]])


def test_select_drops_scores_that_are_no_numbers():
  assert_allclose(geometry.select(boxes(SQUARES, [np.nan, 1, np.nan, 0])).scores, [1, 0])


# Random places


def test_random_placement_keeps_sizes_and_reaches_every_place():
  some = boxes([[0.1, 0.2, 0.35, 0.7], [0, 0, 1, 1], [0.5, 0.5, 0.6, 0.6]], [0.9, 0.5, 0.1])
  generator = np.random.default_rng(0)
  found = np.stack([geometry.random_placement(some, generator).coordinates for _ in range(2000)])
  assert found.dtype == np.float32
  sides = some.coordinates[:, 2:] - some.coordinates[:, :2]
  assert_allclose(found[..., 2:] - found[..., :2], np.broadcast_to(sides, (2000, 3, 2)), atol=1e-6)
  assert (found.min(), found.max()) == (0, 1)
  assert_allclose(found[..., :2].min(0), np.zeros((3, 2)), atol=0.01)
  assert_allclose(found[..., :2].max(0), 1 - sides, atol=0.01)
  assert_allclose(found[..., :2].mean(0), (1 - sides) / 2, atol=0.02)


def test_random_placement_depends_on_the_generator_alone():
  some = boxes(SQUARES, [1, 0.9, 0.8, 0.7])
  first, again, other = (geometry.random_placement(some, np.random.default_rng(seed)) for seed in (1, 1, 2))
  assert_array_equal(first.coordinates, again.coordinates)
  assert np.all(first.coordinates != other.coordinates)
  assert_array_equal(first.scores, some.scores)


def test_random_placement_of_no_boxes():
  assert geometry.random_placement(Boxes.empty(), np.random.default_rng(0)).coordinates.shape == (0, 4)


# Crops


@pytest.mark.parametrize(
  ('box', 'rows', 'columns'),
  [
    (WHOLE_IMAGE, (0, 480), (0, 640)),
    ((0.25, 0.5, 0.5, 0.75), (120, 240), (320, 480)),
    ((0.251, 0.501, 0.499, 0.749), (120, 240), (320, 480)),  # Every pixel that is touched.
    ((-1, -1, 2, 2), (0, 480), (0, 640)),
    ((1, 1, 2, 2), (480, 480), (640, 640)),
    ((-1, -1, 0, 0), (0, 0), (0, 0)),
    ((0.9, 0.9, 0.1, 0.1), (432, 432), (576, 576)),
    ((0.5, 0.5, 0.5001, 0.5001), (240, 241), (320, 321)),
  ],
)
def test_crop_slices(box, rows, columns):
  for form in (box, np.array(box, np.float32), list(box)):
    assert geometry.crop_slices(form, 480, 640) == (slice(*rows), slice(*columns))


@settings(max_examples=500, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_whole_pixels_survive_normalisation_in_either_precision(data):
  size = data.draw(st.integers(1, 20_000))
  low = data.draw(st.integers(0, size - 1))
  high = data.draw(st.integers(low + 1, size))
  for dtype in (np.float32, np.float64):
    box = np.array([low / size, 0, high / size, 1], dtype)
    assert geometry.crop_slices(box, size, 1) == (slice(low, high), slice(0, 1))


# Containing


def test_contains_its_edges():
  locations = np.array([[25, 20], [75, 100], [24.9, 50], [75.1, 50], [25, 100.1], [50, 60]], np.float32)
  inside = geometry.contains((0.25, 0.1, 0.75, 0.5), locations, 100, 200)
  assert_array_equal(inside, [True, True, False, False, False, True])


def test_contains_of_no_locations():
  assert geometry.contains(WHOLE_IMAGE, np.zeros((0, 2), np.float32), 10, 10).shape == (0,)
