"""Matching, and the reference rule of verification, in the plainest form: one pair, one sample at a time."""

import numpy as np


def match(query, index, *, max_distance=np.inf, ratio=1.0, mutual=True):
  """(feature of the query, feature of the index image) of every match, sorted."""
  if not len(query) or not len(index):
    return []
  distances = [[float(np.linalg.norm(q - x)) for x in index.astype(float)] for q in query.astype(float)]
  found = {}
  for i, row in enumerate(distances):
    j = min(range(len(row)), key=lambda j: (row[j], j))
    others = [d for k, d in enumerate(row) if k != j]
    if row[j] >= max_distance or (ratio < 1 and others and row[j] >= ratio * min(others)):
      continue
    column = [distances[k][j] for k in range(len(distances))]
    if not mutual or i == min(range(len(column)), key=lambda k: (column[k], k)):
      found[i] = j
  return sorted(found.items())


def one_way_matches(query, index, *, max_distance):
  """Reference rule: the nearest neighbour of each feature of the query, if nearer than the threshold."""
  found = []
  for i, q in enumerate(query.astype(float)):
    distances = np.linalg.norm(index.astype(float) - q, axis=1)
    if len(distances) and distances.min() < max_distance:
      found.append((i, int(distances.argmin())))
  return found


def affine_agreements(query, index, matrix, *, max_residual):
  """Returns which (y, x) pairs an affine matrix [3, 3] takes to within max_residual pixels."""
  agree = []
  for q, x in zip(query.astype(float), index.astype(float), strict=True):
    moved = matrix @ [*x, 1]
    agree.append(float(np.hypot(*(moved[:2] - q))) < max_residual)
  return np.array(agree)


def candidates(query, index, *, count, groups, farthest):
  """Returns the candidates of each descriptor of the query, one list of positions for each.

  The centre is summed in float32, row after row, since a component may be equal to it.
  """
  centre = np.zeros(query.shape[1], np.float32)
  for row in [*query, *index]:
    centre = centre + row
  centre = centre / np.float32(len(query) + len(index))
  found = []
  for own in query:
    distances = [int(np.count_nonzero((own > centre) != (other > centre))) for other in index]
    least = sorted(min(distances[first::groups]) for first in range(min(groups, len(index))))
    limit = least[min(count, len(least)) - 1] if least[0] <= farthest else -1
    found.append([j for j, distance in enumerate(distances) if distance <= limit])
  return found


def most_agreeing(source, target, samples, fit, *, max_residual, is_possible):
  """Returns how many pairs agree with the best of the transforms that `fit` finds through each sample."""
  most = 0
  for sample in samples:
    matrix = fit(source[sample], target[sample])
    if matrix is not None and is_possible(matrix):
      moved = [matrix @ [*place, 1] for place in source]
      most = max(
        most, sum(np.hypot(*(m[:2] - t)) <= max_residual for m, t in zip(moved, target, strict=True))
      )
  return most
