"""Compares an index with region masks to the same index without: bytes a posting, build and search times.

  python tests/benchmarks/benchmark_region_masks.py --images=20000

Both have the same postings; searches alternate; times are medians of the CPU time of one thread.
"""

import argparse
import dataclasses
import functools
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402
from benchmarks.measuring import print_table  # noqa: E402

from delf_d2r.index import InvertedIndex  # noqa: E402
from delf_d2r.kernels.aggregation import Kernel  # noqa: E402
from delf_d2r.kernels.compiled import HAVE_NUMBA  # noqa: E402
from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator  # noqa: E402


def medians(functions, queries, rounds: int) -> list[float]:
  """Returns the median CPU time of a query in ms for each function; the functions alternate."""
  times = [[] for _ in functions]
  for function in functions:
    function(queries[0])
  for _ in range(rounds):
    for function, own in zip(functions, times, strict=True):
      for query in queries:
        start = time.thread_time()
        function(query)
        own.append(1e3 * (time.thread_time() - start))
  return [statistics.median(own) for own in times]


def main(flags) -> None:
  sizes = {'num_words': flags.num_words, 'dimensions': 128, 'kernel': Kernel.ASMK_STAR}
  generator = DescriptorGenerator(
    **sizes, words_per_image=flags.words_per_image, masked_regions=flags.regions
  )
  masked = generator.draw_many(flags.images)
  plain = [dataclasses.replace(own, region_masks=None) for own in masked]
  names = [f'image {m}' for m in range(flags.images)]
  indexes, builds = [], []
  for descriptors, has_masks in ((plain, False), (masked, True)):
    InvertedIndex.build(descriptors[:2], names[:2], **sizes, region_masks=has_masks)  # compiles
    start = time.thread_time()
    indexes.append(InvertedIndex.build(descriptors, names, **sizes, region_masks=has_masks))
    builds.append(1e9 * (time.thread_time() - start) / indexes[-1].num_postings)
  rows = [
    ('bytes a posting, all arrays', *(index.nbytes / index.num_postings for index in indexes)),
    ('build, ns a posting', *builds),
  ]
  for words in (flags.words_per_image, 3000):
    queries = [dataclasses.replace(generator.draw(words), region_masks=None) for _ in range(flags.queries)]
    for path in (True, False) if HAVE_NUMBA else (False,):
      searches = [functools.partial(index.search, compiled=path) for index in indexes]
      title = f'query of {words} words, top 100, {"numba" if path else "NumPy"}, ms'
      rows.append((title, *medians(searches, queries, flags.rounds if path else 1)))
  print(f'{flags.images} images, {indexes[0].num_postings} postings, {flags.regions} regions an image')
  print_table(
    ('', 'without masks', 'with masks', 'ratio'),
    [
      (title, *(f'{value:.4g}' for value in values), f'{values[1] / values[0]:.2f}')
      for title, *values in rows
    ],
  )
  assert np.all([index.num_postings == indexes[0].num_postings for index in indexes])


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--images', type=int, default=20_000)
  parser.add_argument('--num_words', type=int, default=65_536)
  parser.add_argument('--words_per_image', type=int, default=600)
  parser.add_argument('--regions', type=int, default=6, help='regions of an image, the whole image included')
  parser.add_argument('--queries', type=int, default=20)
  parser.add_argument('--rounds', type=int, default=3)
  main(parser.parse_args())
