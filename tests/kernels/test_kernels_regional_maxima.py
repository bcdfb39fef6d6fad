"""R-MAC's squares: the paper's grid, and maxima within it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import global_oracle

from delf_d2r.kernels import regional_maxima

sides = st.integers(1, 60)


@given(rows=sides, columns=sides, levels=st.integers(1, 5))
def test_the_grid_is_that_of_the_paper(rows, columns, levels):
  found = regional_maxima.squares(rows, columns, levels=levels)
  expected = global_oracle.rmac_squares(rows, columns, levels)
  assert [(top, left, bottom - top) for top, left, bottom, _ in found.tolist()] == expected


@given(rows=sides, columns=sides)
def test_squares_lie_within_and_level_1_covers_the_map(rows, columns):
  found = regional_maxima.squares(rows, columns, levels=3)
  assert np.all(found[:, :2] >= 0)
  assert np.all(found[:, 2:] <= (rows, columns))
  assert_array_equal(found[:, 2] - found[:, 0], found[:, 3] - found[:, 1])
  covered = np.zeros((rows, columns), int)
  for top, left, bottom, right in regional_maxima.squares(rows, columns, levels=1):
    covered[top:bottom, left:right] += 1
  # On wide maps gaps come from rounding only: the ends are always covered.
  assert covered[0, 0] > 0
  assert covered[-1, -1] > 0


@pytest.mark.parametrize(
  ('rows', 'columns', 'first_level'),
  [(24, 24, [0]), (24, 32, [0, 8]), (24, 60, [0, 12, 24, 36])],
)
def test_neighbours_share_about_40_percent(rows, columns, first_level):
  found = regional_maxima.squares(rows, columns, levels=1)
  assert_array_equal(found[:, 1], first_level)
  assert_array_equal(regional_maxima.squares(columns, rows, levels=1)[:, 0], first_level)


def test_maxima():
  activations = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
  grid = np.array([[0, 0, 1, 1], [0, 0, 3, 4], [1, 1, 3, 3]])
  assert_array_equal(regional_maxima.maxima(activations, grid), [[0, 1], [22, 23], [20, 21]])
