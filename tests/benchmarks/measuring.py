"""Shared by the benchmarks of kernels: alternating timings, tables, local descriptors of real photos."""

import pathlib
import random
import statistics
import sys
import time

import cv2
import numpy as np

DEFAULT_PHOTOS = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'landmarks'


def seconds(function, clock=time.perf_counter) -> float:
  start = clock()
  function()
  return clock() - start


def alternate(functions: dict, *, rounds: int, clock=time.perf_counter) -> dict[str, float]:
  """Returns the median seconds of each function; they are called in turn, after one round of warming up."""
  times = {name: [] for name in functions}
  for round_number in range(rounds + 1):
    for name, function in functions.items():
      time.sleep(0.05)  # threads of OpenMP spin a while for more work, at the cost of the next function
      elapsed = seconds(function, clock)
      if round_number:
        times[name].append(elapsed)
  return {name: statistics.median(own) for name, own in times.items()}


def print_table(header: tuple, rows: list[tuple]) -> None:
  for row in (header, ('---',) * len(header), *rows):
    print('|', ' | '.join(f'{cell:.4g}' if isinstance(cell, float) else str(cell) for cell in row), '|')


def root_sift(photos: pathlib.Path, *, count: int, seed: int = 0) -> np.ndarray:
  """Returns RootSIFT of photos in random order, float32 [count, 128]; exits if there are too few."""
  paths = sorted(p for p in photos.rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg', '.png'))
  random.Random(seed).shuffle(paths)
  sift = cv2.SIFT_create(1500)
  found, total = [], 0
  for path in paths:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
      continue
    scale = min(1.0, 800 / max(image.shape))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, descriptors = sift.detectAndCompute(image, None)
    if descriptors is not None:
      found.append(np.sqrt(descriptors / descriptors.sum(axis=1, keepdims=True)).astype(np.float32))
      total += len(descriptors)
    if total >= count:
      return np.random.default_rng(seed).permutation(np.concatenate(found))[:count]
  sys.exit(f'expected {count} descriptors, found {total} in {photos}; name a larger folder with --photos')
