"""Compares aggregation with loops over words: `asmk` 0.1.1 for one image, the plain formula for regions.

  python tests/benchmarks/benchmark_aggregation.py

1,000 features for each region, D = 128, K = 65,536, Zipf-like words; assignment is not timed.
"""

import argparse
import itertools
import pathlib
import sys
import types

import numpy as np
from asmk.kernel import ASMKKernel

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks.measuring import alternate, print_table  # noqa: E402

from delf_d2r.kernels.aggregation import Kernel, aggregate, aggregate_regions  # noqa: E402
from delf_d2r.kernels.compiled import HAVE_NUMBA  # noqa: E402

NUM_WORDS, DIMENSIONS = 65536, 128


def main(flags) -> None:
  rng = np.random.default_rng(flags.seed)
  centroids = rng.standard_normal((NUM_WORDS, DIMENSIONS), np.float32)
  law = (np.arange(NUM_WORDS) + 3.0) ** -0.9
  law /= law.sum()
  offsets = np.arange(0, (flags.regions + 1) * flags.features, flags.features)
  images = []
  for _ in range(flags.images):
    words = rng.choice(NUM_WORDS, (offsets[-1], 1), p=law).astype(np.int32)
    noise = rng.standard_normal((offsets[-1], DIMENSIONS), np.float32)
    images.append((centroids[words[:, 0]] + noise, words))
  present = np.mean([len(np.unique(words[: flags.features])) for _, words in images])
  one = itertools.cycle([(x[: flags.features], words[: flags.features]) for x, words in images])
  all_regions = itertools.cycle(images)

  rows = []
  for kernel, binary in ((Kernel.ASMK_STAR, True), (Kernel.ASMK, False)):
    asmk = ASMKKernel(types.SimpleNamespace(centroids=centroids), binary=binary)
    check_against_asmk(asmk, next(one), centroids, kernel)
    times = alternate(
      {
        'loop': lambda asmk=asmk: asmk.aggregate_image(*next(one)),
        'here': lambda kernel=kernel: aggregate(*next(one), centroids, kernel=kernel),
      },
      rounds=flags.rounds,
    )
    rows.append((f'{kernel.name}, {flags.features} features, {present:.0f} words', 'asmk 0.1.1', *ms(times)))
  times = alternate(
    {
      'loop': lambda: regions_by_loop(*next(all_regions), offsets, centroids),
      'here': lambda: aggregate_regions(*next(all_regions), offsets, centroids, kernel=Kernel.ASMK_STAR),
    },
    rounds=flags.rounds,
  )
  rows.append((f'R-ASMK*, {flags.regions} regions of {flags.features}', 'loop over words', *ms(times)))
  print(f'path: {"numba" if HAVE_NUMBA else "NumPy"}')
  print_table(('descriptor', 'against', 'loop, ms', 'here, ms', 'ratio'), rows)


def ms(times) -> tuple[float, float, float]:
  return 1e3 * times['loop'], 1e3 * times['here'], times['loop'] / times['here']


def check_against_asmk(asmk, image, centroids, kernel) -> None:
  """Checks equality up to the order of sums: floats agree closely, and a few bits in 10,000 may flip."""
  expected, words = asmk.aggregate_image(*image)
  found = aggregate(*image, centroids, kernel=kernel)
  np.testing.assert_array_equal(found.visual_words, words)
  if kernel is Kernel.ASMK:
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
  else:
    # `asmk` packs 32 dimensions to a word of its machine: unpack both to compare.
    theirs = np.unpackbits(expected.view(np.uint8).reshape(len(words), -1, 4)[:, :, ::-1], axis=None)
    flipped = np.count_nonzero(theirs != np.unpackbits(found.values))
    assert flipped <= 2e-4 * theirs.size, f'{flipped} of {theirs.size} bits differ'


def regions_by_loop(descriptors, words, offsets, centroids):
  """Computes R-ASMK* by its formula, in loops over regions and words."""
  pooled = {}
  for start, end in itertools.pairwise(offsets):
    own, own_words = descriptors[start:end], words[start:end, 0]
    residuals = {k: (own[own_words == k] - centroids[k]).sum(axis=0) for k in np.unique(own_words)}
    norm = np.sqrt(sum(float(v @ v) for v in residuals.values()))
    for k, v in residuals.items():
      pooled[k] = pooled.get(k, 0) + v / norm
  return np.packbits([pooled[k] > 0 for k in sorted(pooled)], axis=1)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--features', type=int, default=1000, help='of each region')
  parser.add_argument('--regions', type=int, default=6, help='the whole image and its boxes')
  parser.add_argument('--images', type=int, default=20)
  parser.add_argument('--rounds', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  main(parser.parse_args())
