"""Spatial verification of one pair of images against the research code's way: k-d tree and scikit-image.

  python tests/benchmarks/benchmark_verification.py

Both get the same features, RootSIFT of real photos: some are the same points in both images, moved by an
affine transform, their descriptors disturbed. Then the transform alone, from the same matches. Medians of
alternating runs on one thread, in time of the processor, which other work on the machine does not add to.
"""

import argparse
import functools
import pathlib
import sys
import time

import numpy as np
from threadpoolctl import threadpool_limits

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks.measuring import DEFAULT_PHOTOS, alternate, print_table, root_sift  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.geometry import research_rule, verification  # noqa: E402
from delf_d2r.geometry.matching import PutativeMatches  # noqa: E402
from delf_d2r.structures import LocalFeatures  # noqa: E402
from delf_d2r.verifier import Verifier  # noqa: E402

MATRIX = np.array([[0.9, -0.25], [0.2, 1.1]])
# Of each component: descriptors of one point come to be some 0.33 apart.
NOISE = 0.03
# Features of each image, and how many are the same; then matches, right and wrong.
SIZES = ((1000, 400), (1000, 100), (1000, 0), (3000, 400))
GEOMETRY = ((400, 400), (100, 250), (0, 350))


def make_pair(rng, descriptors, *, features: int, inliers: int) -> tuple[LocalFeatures, LocalFeatures]:
  """Query and index image; feature i < inliers is the same point in both."""
  query, index = rng.permutation(descriptors)[: 2 * features].reshape(2, features, -1)
  query[:inliers] = index[:inliers] + rng.normal(0, NOISE, (inliers, query.shape[1]))
  return tuple(map(as_features, make_places(rng, features, inliers), (query, index)))


def make_places(rng, features: int, inliers: int) -> tuple[np.ndarray, np.ndarray]:
  """Places [N, 2] in query and index image."""
  index = rng.uniform(0, 800, (features, 2))
  query = index @ MATRIX.T + [60, -20] + rng.normal(0, 1, (features, 2))
  query[inliers:] = rng.uniform(0, 800, (features - inliers, 2))
  return query, index


def as_features(places: np.ndarray, descriptors: np.ndarray) -> LocalFeatures:
  n = len(places)
  unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
  return LocalFeatures(
    places.astype(np.float32), np.ones(n, np.float32), np.zeros(n, np.float32), unit.astype(np.float32)
  )


def correct(matches, verification, inliers: int) -> str:
  """How many inliers are right, and how many are not."""
  query, index = matches.query[verification.inliers], matches.index[verification.inliers]
  right = (query == index) & (query < inliers)
  return f'{right.sum()} right, {(~right).sum()} wrong'


def compare(what: str, functions: dict, inliers: int, rounds: int) -> tuple:
  """A row: the times of the research code's way and ours, and what they find."""
  with threadpool_limits(1, user_api='blas'):
    found = [correct(*function(), inliers) for function in functions.values()]
    times = alternate(functions, rounds=rounds, clock=time.thread_time)
  research, here = times.values()
  return what, 1e3 * research, 1e3 * here, research / here, *found


def main(flags) -> None:
  rng = np.random.default_rng(flags.seed)
  descriptors = root_sift(flags.photos, count=2 * max(SIZES)[0], seed=flags.seed)
  compat = configs.load_or_default(None, ['verification'], overrides=['verification { compat: true }'])
  verifiers = {
    'research': Verifier(compat.verification),
    'here': Verifier(configs.default('verification').verification),
  }
  rows = []
  for features, inliers in SIZES:
    pair = make_pair(rng, descriptors, features=features, inliers=inliers)
    functions = {name: functools.partial(verify, *pair) for name, verify in verifiers.items()}
    rows.append(compare(f'{features} features, {inliers} the same', functions, inliers, flags.rounds))
  for inliers, outliers in GEOMETRY:
    numbers = np.arange(inliers + outliers)
    matches = PutativeMatches(numbers, numbers, np.zeros(len(numbers), np.float32))
    query, index = make_places(rng, len(numbers), inliers)
    functions = {
      'research': lambda: (matches, research_rule.verify(query, index, max_residual=10, trials=1000, seed=0)),  # noqa: B023
      'here': lambda: (matches, verification.verify(query, index, verification.Options())),  # noqa: B023
    }
    rows.append(
      compare(f'geometry, {inliers} of {len(numbers)} matches right', functions, inliers, flags.rounds)
    )
  print_table(('pair', 'research, ms', 'here, ms', 'ratio', 'inliers, research', 'inliers, here'), rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--photos', type=pathlib.Path, default=DEFAULT_PHOTOS, help='any folder of photos')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--seed', type=int, default=0)
  main(parser.parse_args())
