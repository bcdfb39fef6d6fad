"""Compares spatial verification with that of the tensorflow/models DELF code: k-d tree and scikit-image.

  python tests/benchmarks/benchmark_verification.py

Both get the same features, RootSIFT of real photos: some points are in both images, moved by an affine
transform and with noise added to their descriptors; scales are all different, as keypoints' are. Then only
the estimation is compared, on the same matches, and the merging of the features of overlapping boxes with a
k-d tree. Numbers are medians of alternating runs on one thread, in CPU time, which other work on the machine
increases least. `product` is the matrix product of all descriptors, a lower bound for comparing them all. The
last rows verify the top of a ranking, where 4 % of the images show the object of the query, like the stage
rerank_results, with a thread for each core, in wall time for each pair; the tensorflow/models DELF code has
one thread.
"""

import argparse
import concurrent.futures
import functools
import os
import pathlib
import statistics
import sys
import time

import numpy as np
from threadpoolctl import threadpool_limits

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks.measuring import DEFAULT_PHOTOS, alternate, print_table, root_sift, seconds  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.geometry import legacy_rule, verification  # noqa: E402
from delf_d2r.geometry.matching import PutativeMatches  # noqa: E402
from delf_d2r.geometry.merging import merge_regions  # noqa: E402
from delf_d2r.structures import ImageFeatures, LocalFeatures  # noqa: E402
from delf_d2r.verifier import Verifier  # noqa: E402

MATRIX = np.array([[0.9, -0.25], [0.2, 1.1]])
# Of each component: descriptors of one point come to be some 0.33 apart.
NOISE = 0.03
# Features of the query and of the index image, and how many are the same; then matches, right and wrong.
SIZES = (
  (1000, 1000, 400),
  (1000, 1000, 100),
  (1000, 1000, 0),
  (1000, 4000, 400),
  (1000, 4000, 0),
  (3000, 3000, 400),
)
GEOMETRY = ((400, 400), (400, 1600), (100, 250), (0, 350))
HEAD = 100


def make_pair(
  rng, descriptors, *, features: int, inliers: int, others: int | None = None
) -> tuple[LocalFeatures, LocalFeatures]:
  """Returns a query and an index image of as many features or `others`; i < inliers is the same point."""
  others = others or features
  query, index = np.split(rng.permutation(descriptors)[: features + others], [features])
  query[:inliers] = index[:inliers] + rng.normal(0, NOISE, (inliers, query.shape[1]))
  places = make_places(rng, max(features, others), inliers)
  return as_features(rng, places[0][:features], query), as_features(rng, places[1][:others], index)


def make_places(rng, features: int, inliers: int) -> tuple[np.ndarray, np.ndarray]:
  """Places [N, 2] in query and index image."""
  # Each in a pixel of its own: of several matches of one pixel the first counts.
  index = np.column_stack(np.divmod(rng.permutation(800**2)[:features], 800)) + rng.uniform(
    0.2, 0.8, (features, 2)
  )
  query = index @ MATRIX.T + [60, -20] + rng.normal(0, 1, (features, 2))
  query[inliers:] = rng.uniform(0, 800, (features - inliers, 2))
  return query, index


def as_features(rng, places: np.ndarray, descriptors: np.ndarray) -> LocalFeatures:
  n = len(places)
  unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
  scales = rng.uniform(2, 20, n)
  return LocalFeatures(*(part.astype(np.float32) for part in (places, scales, np.zeros(n), unit)))


def make_image(rng, descriptors, *, boxes: int, features: int) -> ImageFeatures:
  """Returns an image whose boxes each have a third of their features from the whole image."""
  whole = as_features(rng, rng.uniform(0, 800, (features, 2)), rng.permutation(descriptors)[:features])
  parts = [whole]
  for _ in range(boxes):
    new = as_features(rng, rng.uniform(0, 800, (features, 2)), rng.permutation(descriptors)[:features])
    same = rng.permutation(features)[: features // 3]
    parts.append(LocalFeatures.concatenate([whole.take(same), new.take(slice(len(same), None))]))
  offsets = np.cumsum([0, *map(len, parts)])
  return ImageFeatures(
    '', 800, 800, np.zeros((boxes + 1, 4), np.float32), offsets, LocalFeatures.concatenate(parts)
  )


def correct(matches, verification, inliers: int) -> str:
  """Returns the numbers of correct and of wrong inliers."""
  query, index = matches.query[verification.inliers], matches.index[verification.inliers]
  right = (query == index) & (query < inliers)
  return f'{right.sum()} right, {(~right).sum()} wrong'


def product_seconds(pair, rounds: int) -> float:
  query, index = (features.descriptors for features in pair)
  with threadpool_limits(1, user_api='blas'):
    return alternate({'': lambda: query @ index.T}, rounds=rounds, clock=time.thread_time)['']


def head_seconds(verifier: Verifier, pairs) -> float:
  """Returns the wall time of a pair, with a thread for each core."""
  with (
    threadpool_limits(1, user_api='blas'),
    concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
  ):
    return seconds(lambda: list(pool.map(lambda pair: verifier(*pair), pairs))) / len(pairs)


def compare(what: str, functions: dict, inliers: int, rounds: int) -> tuple:
  """Returns a row: the times of the tensorflow/models DELF code and of this library, and their inliers."""
  with threadpool_limits(1, user_api='blas'):
    found = [correct(*function(), inliers) for function in functions.values()]
    times = alternate(functions, rounds=rounds, clock=time.thread_time)
  legacy, here = times.values()
  return [what, 1e3 * legacy, 1e3 * here, legacy / here, *found]


def main(flags) -> None:
  rng = np.random.default_rng(flags.seed)
  descriptors = root_sift(flags.photos, count=max(n + m for n, m, _ in SIZES), seed=flags.seed)
  compat = configs.load_or_default(None, ['verification'], overrides=['verification { compat: true }'])
  verifiers = {
    'reference': Verifier(compat.verification),
    'here': Verifier(configs.default('verification').verification),
  }
  rows = []
  for features, others, inliers in SIZES:
    pair = make_pair(rng, descriptors, features=features, others=others, inliers=inliers)
    functions = {name: functools.partial(verify, *pair) for name, verify in verifiers.items()}
    row = compare(f'{features} x {others} features, {inliers} the same', functions, inliers, flags.rounds)
    rows.append([*row, 1e3 * product_seconds(pair, flags.rounds)])
  for inliers, outliers in GEOMETRY:
    numbers = np.arange(inliers + outliers)
    matches = PutativeMatches(numbers, numbers, np.zeros(len(numbers), np.float32), numbers >= 0)
    query, index = make_places(rng, len(numbers), inliers)
    functions = {
      'reference': lambda: (matches, legacy_rule.verify(query, index, max_residual=10, trials=1000, seed=0)),  # noqa: B023
      'here': lambda: (matches, verification.verify(query, index, verification.Options())),  # noqa: B023
    }
    row = compare(f'geometry, {inliers} of {len(numbers)} matches right', functions, inliers, flags.rounds)
    rows.append([*row, ''])
  image = make_image(rng, descriptors, boxes=5, features=1000)
  merge = {
    name: functools.partial(merge_regions, image, compiled=name == 'here') for name in ('tree', 'here')
  }
  tree, here = alternate(merge, rounds=flags.rounds, clock=time.thread_time).values()
  rows.append(['features of 5 boxes merged, by a k-d tree', 1e3 * tree, 1e3 * here, tree / here, '', '', ''])
  print_table(
    ('pair', 'reference, ms', 'here, ms', 'ratio', 'inliers, reference', 'inliers, here', 'product, ms'), rows
  )
  pairs = [make_pair(rng, descriptors, features=1000, inliers=400 * (n < 4)) for n in range(HEAD)]
  few = seconds(lambda: [verifiers['reference'](*pair) for pair in pairs[: HEAD // 5]]) / (HEAD // 5)
  here = statistics.median(head_seconds(verifiers['here'], pairs) for _ in range(flags.rounds))
  print(
    f'a head of {HEAD}: reference {1e3 * few:.0f} ms a pair, here {1e3 * here:.2f} ms, {few / here:.0f} times'
  )


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--photos', type=pathlib.Path, default=DEFAULT_PHOTOS, help='any folder of photos')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--seed', type=int, default=0)
  main(parser.parse_args())
