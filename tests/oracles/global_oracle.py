"""Global descriptors as their papers define them, slowly."""

from fractions import Fraction

import numpy as np


def rmac_squares(rows: int, columns: int, levels: int) -> list[tuple[int, int, int]]:
  """(top, left, side) of every square: Tolias, Sicre and Jegou, ICLR 2016, section 4.2."""
  short, long = min(rows, columns), max(rows, columns)
  number, nearest = 1, 0.0
  if long > short:
    nearest = np.inf
    for m in range(2, 200):
      # Neighbours of side `short`, m of them evenly along `long`.
      overlap = 1 - Fraction(long - short, (m - 1) * short)
      if abs(overlap - Fraction(2, 5)) < nearest:
        number, nearest = m, abs(overlap - Fraction(2, 5))
  found = []
  for level in range(1, levels + 1):
    side = max(int(2 * short / (level + 1)), 1)
    along_long = level + number - 1
    for i in range(along_long if rows == long and rows != columns else level):
      for j in range(along_long if columns == long and rows != columns else level):
        count_i = along_long if rows > columns else level
        count_j = along_long if columns > rows else level
        top = 0 if count_i == 1 else int((rows - side) * i / (count_i - 1))
        left = 0 if count_j == 1 else int((columns - side) * j / (count_j - 1))
        found.append((top, left, side))
  return found


def rmac(activations: np.ndarray, levels: int, project=lambda x: x) -> np.ndarray:
  """[D]: maxima over squares, of unit length, projected, of unit length, summed, of unit length."""
  total = 0
  for top, left, side in rmac_squares(*activations.shape[:2], levels):
    vector = np.array(
      [
        activations[top : top + side, left : left + side, c].astype(float).max()
        for c in range(activations.shape[2])
      ]
    )
    vector = project(vector / np.linalg.norm(vector))
    total = total + vector / np.linalg.norm(vector)
  return total / np.linalg.norm(total)


def learned_whitening(descriptors: np.ndarray, groups) -> np.ndarray:
  """[D, D], rows: S^(-1/2) of the pairs, then the principal components of what it whitens.

  Radenovic, Tolias and Chum, TPAMI 2019, section 3.4, over every pair, one after the other.
  """
  x = descriptors.astype(float)
  dimensions = x.shape[1]
  within, same = np.zeros((dimensions, dimensions)), set()
  for group in groups:
    for i in group:
      for j in group:
        if i < j:
          within += np.outer(x[i] - x[j], x[i] - x[j])
          same.add((i, j))
  within /= len(same)
  between = np.zeros((dimensions, dimensions))
  for i in range(len(x)):
    for j in range(i + 1, len(x)):
      if (i, j) not in same:
        between += np.outer(x[i] - x[j], x[i] - x[j])
  values, vectors = np.linalg.eigh(within)
  root = vectors @ np.diag(values**-0.5) @ vectors.T
  values, vectors = np.linalg.eigh(root @ between @ root)
  return vectors[:, np.argsort(-values)].T @ root


def regions_of_channel(activation: np.ndarray, threshold: float) -> list[tuple[float, float, int, float]]:
  """(y, x, area, strength) of the regions of [H, W]: a flood fill over cells that touch, also by corners."""
  wanted = activation >= threshold * activation.max()
  if activation.max() <= 0:
    return []
  seen, found = np.zeros(activation.shape, bool), []
  for start in zip(*np.nonzero(wanted), strict=True):
    if seen[start]:
      continue
    seen[start] = True
    cells, waiting = [], [start]
    while waiting:
      y, x = waiting.pop()
      cells.append((y, x))
      for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
        inside = 0 <= near[0] < activation.shape[0] and 0 <= near[1] < activation.shape[1]
        if inside and wanted[near] and not seen[near]:
          seen[near] = True
          waiting.append(near)
    weights = np.array([activation[cell] for cell in cells], float)
    middle = (np.array(cells) + 0.5).T @ weights / weights.sum()
    found.append((*middle, len(cells), weights.max()))
  return sorted(found, key=lambda region: -region[3])
