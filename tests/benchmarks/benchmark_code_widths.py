"""Compares indexes of codes of different lengths: bytes a posting, build and search times.

  python tests/benchmarks/benchmark_code_widths.py --images=20000

All have the same images and words; searches alternate; times are medians of the CPU time of one thread. The
ratio is that of the search time of 128 bits to its own.
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

from benchmarks.measuring import print_table  # noqa: E402

from delf_d2r.index import InvertedIndex  # noqa: E402
from delf_d2r.kernels.aggregation import Kernel  # noqa: E402
from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator  # noqa: E402


def shortened(descriptor, dimensions: int, has_masks: bool):
  """The descriptor with codes of the first `dimensions` bits, a multiple of 8."""
  return dataclasses.replace(
    descriptor,
    values=descriptor.values[:, : dimensions // 8],
    dimensions=dimensions,
    region_masks=descriptor.region_masks if has_masks else None,
  )


def main(flags) -> None:
  widths = [int(width) for width in flags.widths.split(',')]
  generator = DescriptorGenerator(
    words_per_image=flags.words_per_image, dimensions=max(widths), masked_regions=6
  )
  descriptors = generator.draw_many(flags.images)
  queries = [generator.draw() for _ in range(flags.queries)]
  names = [f'image {m}' for m in range(flags.images)]
  rows = []
  for has_masks in (False, True):
    indexes = {}
    for width in widths:
      options = {'num_words': 65_536, 'dimensions': width, 'kernel': Kernel.ASMK_STAR}
      indexes[width] = InvertedIndex.build(
        (shortened(own, width, has_masks) for own in descriptors), names, region_masks=has_masks, **options
      )
    searches = {
      width: (
        functools.partial(index.search, top_k=100),
        [shortened(query, width, has_masks=False) for query in queries],
      )
      for width, index in indexes.items()
    }
    times = {width: [] for width in widths}
    for _ in range(flags.rounds + 1):
      for number in range(flags.queries):
        for width, (search, own) in searches.items():
          start = time.thread_time()
          search(own[number])
          times[width].append(1e3 * (time.thread_time() - start))
    medians = {width: statistics.median(own[flags.queries :]) for width, own in times.items()}
    rows += [
      (
        f'{width} bits{" with masks" if has_masks else ""}',
        f'{index.nbytes / index.num_postings:.2f}',
        f'{medians[width]:.3f}',
        f'{medians.get(128, medians[widths[0]]) / medians[width]:.2f}',
      )
      for width, index in indexes.items()
    ]
  print(f'{flags.images} images, {indexes[widths[0]].num_postings} postings')
  print_table(('', 'bytes a posting, all arrays', 'query, top 100, ms', 'ratio'), rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--images', type=int, default=20_000)
  parser.add_argument('--words_per_image', type=int, default=600)
  parser.add_argument('--widths', default='128,64,96,32', help='bits of a code, multiples of 8')
  parser.add_argument('--queries', type=int, default=40)
  parser.add_argument('--rounds', type=int, default=3)
  main(parser.parse_args())
