"""Compares the inverted index with the PyPI package `asmk` 0.1.1, in one table with ratios.

  python tests/benchmarks/benchmark_index.py --images=50000

Both search the same postings in the same process, in alternating rounds; times are medians. The inverted file
of `asmk` is filled directly, because its `add` would take minutes; `add` is timed on fewer images.
"""

import argparse
import functools
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import time
from concurrent import futures

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from asmk.inverted_file import IVF  # noqa: E402
from asmk.kernel import ASMKKernel  # noqa: E402

from delf_d2r.index import InvertedIndex  # noqa: E402
from delf_d2r.kernels.aggregation import Kernel  # noqa: E402
from delf_d2r.kernels.compiled import HAVE_NUMBA, njit  # noqa: E402
from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator  # noqa: E402

NUM_WORDS = 65536
DIMENSIONS = 128


def parse_flags(arguments=None):
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--images', type=int, default=50_000)
  parser.add_argument('--queries', type=int, default=70)
  parser.add_argument('--large_queries', type=int, default=15, help='queries of 3,000 words')
  parser.add_argument('--batch', type=int, default=400, help='queries of the batch')
  parser.add_argument('--words_per_image', type=int, default=600)
  parser.add_argument('--asmk_build_images', type=int, default=3000, help='images to time its add with')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--cpu_time', action='store_true', help='count CPU time of one thread, for a machine that others use'
  )
  return parser.parse_args(arguments)


clock = time.perf_counter


def milliseconds(function, *arguments, **options) -> float:
  start = clock()
  function(*arguments, **options)
  return 1e3 * (clock() - start)


def medians(functions, queries, rounds=3) -> list[float]:
  """Returns the median time of a query in ms for each function; the functions alternate."""
  times = [[] for _ in functions]
  for function in functions:
    function(queries[0])
  for _ in range(rounds):
    for function, own in zip(functions, times, strict=True):
      own += [milliseconds(function, query) for query in queries]
  return [statistics.median(own) for own in times]


class Asmk:
  """The package's binary inverted file over the postings of an index."""

  def __init__(self, index: InvertedIndex):
    segments = [segment.load() for segment in index._state.segments]
    bounds = [segment.offsets.tolist() for segment in segments]
    self.ivf = IVF.initialize_empty(codebook_size=NUM_WORDS, use_idf=False)
    self.ivf.n_images = len(index)
    self.ivf.norm_factor = np.concatenate([segment.word_counts for segment in segments]).astype(np.float64)
    self.ivf.counts = index.list_sizes().astype(np.int32)
    for word in np.flatnonzero(self.ivf.counts).tolist():
      parts = [
        (s, segment, slice(offsets[word], offsets[word + 1]))
        for s, (segment, offsets) in enumerate(zip(segments, bounds, strict=True))
      ]
      codes = np.concatenate([segment.values[:, own].T for _, segment, own in parts])
      self.ivf.ivf_vecs[word] = np.ascontiguousarray(codes).view(np.uint32)
      ids = [segment.entry_ids[own].astype(np.int64) + (s << 16) for s, segment, own in parts]
      self.ivf.ivf_image_ids[word] = np.concatenate(ids)
    self.similarity = functools.partial(
      ASMKKernel(None, binary=True).similarity, alpha=3.0, similarity_threshold=0.0
    )

  def search(self, query, top_k=100):
    codes = np.ascontiguousarray(query.values).view(np.uint32)
    return self.ivf.search(codes, query.visual_words, similarity_func=self.similarity, topk=top_k)


def asmk_build(descriptors) -> tuple[float, float]:
  """Nanoseconds and bytes a posting of `IVF.add`."""
  codes = np.concatenate([np.ascontiguousarray(d.values).view(np.uint32) for d in descriptors])
  words = np.concatenate([d.visual_words for d in descriptors])
  images = np.repeat(np.arange(len(descriptors)), [len(d) for d in descriptors])
  ivf = IVF.initialize_empty(codebook_size=NUM_WORDS, use_idf=False)
  elapsed = milliseconds(ivf.add, codes, words, images)
  arrays = [array for array in itertools.chain(ivf.ivf_vecs, ivf.ivf_image_ids) if array is not None]
  return 1e6 * elapsed / len(words), sum(array.nbytes for array in arrays) / len(words)


def read_bandwidth() -> float:
  """Returns the GB/s of one thread that reads 512 MB by a simple loop of NumPy."""
  array = np.ones(1 << 26, np.uint64)
  return array.nbytes / 1e6 / min(milliseconds(array.max) for _ in range(5))


@njit
def _arithmetic(steps):
  total = 0.0
  for step in range(steps):
    total += (step % 7) * 0.5
  return total


def thread_ceiling() -> float:
  """Returns the speedup of plain arithmetic by two threads on this machine, the limit of any batch."""
  _arithmetic(1)
  steps = [50_000_000] * 2
  ratios = []
  with futures.ThreadPoolExecutor(2) as pool:
    for _ in range(5):
      start = time.perf_counter()
      list(map(_arithmetic, steps))
      alone = time.perf_counter() - start
      start = time.perf_counter()
      list(pool.map(_arithmetic, steps))
      ratios.append(alone / (time.perf_counter() - start))
  return statistics.median(ratios)


def main(flags) -> None:
  global clock
  if flags.cpu_time:
    clock = time.thread_time
  generator = DescriptorGenerator(
    num_words=NUM_WORDS, dimensions=DIMENSIONS, words_per_image=flags.words_per_image, seed=flags.seed
  )
  names = [f'image {m}' for m in range(flags.images)]
  options = {'num_words': NUM_WORDS, 'kernel': Kernel.ASMK_STAR, 'dimensions': DIMENSIONS}
  InvertedIndex.build(generator.draw_many(2), names[:2], **options)  # compiles
  built = min(flags.images, 50_000)
  descriptors = generator.draw_many(built)
  build_times, add_times = [], []
  index = None
  for _ in range(4):
    ns, asmk_bytes = asmk_build(descriptors[: flags.asmk_build_images])
    add_times.append(ns)
    index = None  # its memory is the next one's
    start = clock()
    index = InvertedIndex.build(descriptors, names[:built], **options)
    build_times.append(1e9 * (clock() - start) / index.num_postings)
  if built < flags.images:
    index.add((generator.draw() for _ in range(flags.images - built)), names[built:])
  del descriptors
  print(index, f'imbalance {index.imbalance:.2f}', flush=True)

  queries = [generator.draw(flags.words_per_image) for _ in range(flags.queries)]
  large = [generator.draw(3000) for _ in range(flags.large_queries)]
  sizes = index.list_sizes()
  postings = statistics.median(int(sizes[query.visual_words].sum()) for query in queries)
  asmk = Asmk(index)
  for query in queries[:5]:
    ids, scores = asmk.search(query)
    ours = index.search(query)
    np.testing.assert_allclose(ours.scores, scores, rtol=1e-5)
    assert len(np.intersect1d(ids, ours.image_ids)) >= 99  # two may differ by rounding at the cut

  searches = [asmk.search, index.search, functools.partial(index.search, compiled=False)]
  theirs, compiled, plain = medians(searches, queries)
  theirs_large, compiled_large, plain_large = medians(searches, large)
  full = [functools.partial(asmk.search, top_k=None), functools.partial(index.search, top_k=None)]
  theirs_full, compiled_full = medians(full, queries)

  batches = {1: [], 2: []}
  many = list(itertools.islice(itertools.cycle(queries), flags.batch))
  for _, threads in itertools.product(range(5), (1, 2)):
    start = time.perf_counter()
    index.search_batch(many, threads=threads)
    batches[threads].append(1e3 * (time.perf_counter() - start))
  one, two = (statistics.median(batches[threads]) for threads in (1, 2))
  ratio = statistics.median(a / b for a, b in zip(batches[1], batches[2], strict=True))

  with tempfile.TemporaryDirectory() as directory:
    save = milliseconds(index.save, directory)
    disk = sum(path.stat().st_size for path in pathlib.Path(directory).iterdir())
    opening = statistics.median(milliseconds(InvertedIndex.load, directory) for _ in range(9))
    mapped = InvertedIndex.load(directory)
    first = milliseconds(mapped.search, queries[0])
    verify = milliseconds(mapped.verify)
    del mapped
  bandwidth = read_bandwidth()
  rate = 18e-6 * postings / compiled

  # The first build pays for the memory that the system hands out for the first time.
  first_build, *build_times = build_times
  build, add = statistics.median(build_times), statistics.median(add_times)
  per_posting = index.nbytes / index.num_postings
  load = (
    f'load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {"CPU" if flags.cpu_time else "wall"} time'
  )
  rows = [
    (f'{len(index)} images, {index.num_postings} postings, {load}', 'asmk 0.1.1', 'here', 'ratio'),
    ('---', '---', '---', '---'),
    compared(f'query of {flags.words_per_image} words, top 100, one thread, ms', theirs, compiled),
    compared('query of 3,000 words, ms', theirs_large, compiled_large),
    compared(f'query of {flags.words_per_image} words, all images ranked, ms', theirs_full, compiled_full),
    compared(f'query of {flags.words_per_image} words without numba, ms', theirs, plain),
    compared('query of 3,000 words without numba, ms', theirs_large, plain_large),
    (f'{len(many)} queries in 1 thread and in 2, ms', '-', f'{one:.0f} and {two:.0f}', f'{ratio:.2f}'),
    ('two threads of plain arithmetic against one', '-', '-', f'{thread_ceiling():.2f}'),
    compared(f'build, ns a posting (asmk: of {flags.asmk_build_images} images)', add, build),
    compared('the first build, ns a posting', add, first_build),
    compared('bytes a posting in memory', asmk_bytes, per_posting),
    ('bytes a posting on the disk', '-', f'{disk / index.num_postings:.2f}', ''),
    ('opening, and the first query after it, ms', '-', f'{opening:.2f} and {first:.1f}', ''),
    ('saving and verifying, MB/s', '-', f'{1e-3 * disk / save:.0f} and {1e-3 * disk / verify:.0f}', ''),
  ]
  print()
  for row in rows:
    print('|', ' | '.join(row), '|')
  print(
    f'\nA query of {flags.words_per_image} words touches {postings:.0f} postings, {18e-6 * postings:.1f} MB:'
    f' {1e6 * compiled / postings:.2f} ns a posting, selection included; {rate:.1f} GB/s,'
    f' {100 * rate / bandwidth:.0f} % of the {bandwidth:.1f} GB/s that one thread reads.'
  )


def compared(what: str, asmk: float, here: float) -> tuple[str, str, str, str]:
  """Returns a row of the table; smaller is better."""
  return what, f'{asmk:.4g}', f'{here:.4g}', f'{asmk / here:.1f}'


if __name__ == '__main__':
  if not HAVE_NUMBA:
    sys.exit('numba is missing or switched off; the table compares its path, too')
  main(parse_flags())
