"""The inverted index against the PyPI package `asmk` 0.1.1: one table, with ratios.

  python tests/benchmarks/benchmark_index.py --images=50000

Both search the same postings in the same process, query by query in turn; times are medians. `asmk` gets
its inverted file ready-made, since its own `add` would take minutes; `add` is timed on fewer images.
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

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from asmk.inverted_file import IVF  # noqa: E402
from asmk.kernel import ASMKKernel  # noqa: E402
from benchmarks.synthetic import DescriptorGenerator  # noqa: E402

from delf_d2r.index import InvertedIndex  # noqa: E402
from delf_d2r.kernels.aggregation import Kernel  # noqa: E402
from delf_d2r.kernels.compiled import HAVE_NUMBA  # noqa: E402

NUM_WORDS = 65536
DIMENSIONS = 128


def parse_flags(arguments=None):
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--images', type=int, default=50_000)
  parser.add_argument('--queries', type=int, default=70)
  parser.add_argument('--large_queries', type=int, default=15, help='queries of 3,000 words')
  parser.add_argument('--words_per_image', type=int, default=600)
  parser.add_argument('--asmk_build_images', type=int, default=1000, help='images to time its add with')
  parser.add_argument('--seed', type=int, default=0)
  return parser.parse_args(arguments)


def milliseconds(function, *arguments, **options) -> float:
  start = time.perf_counter()
  function(*arguments, **options)
  return 1e3 * (time.perf_counter() - start)


def medians(functions, queries) -> list[float]:
  """Median time of each function in ms; every query goes to all of them in turn."""
  for function in functions:
    function(queries[0])
  times = [[milliseconds(function, query) for function in functions] for query in queries]
  return [statistics.median(column) for column in zip(*times, strict=True)]


class Asmk:
  """The package's binary inverted file over the postings of an index."""

  def __init__(self, index: InvertedIndex):
    segments = [segment.load() for segment in index._segments]
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

  def search(self, query):
    codes = np.ascontiguousarray(query.values).view(np.uint32)
    return self.ivf.search(codes, query.visual_words, similarity_func=self.similarity, topk=100)


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
  """GB/s of one thread reading 512 MB with a loop as simple as NumPy has."""
  array = np.ones(1 << 26, np.uint64)
  return array.nbytes / 1e6 / min(milliseconds(array.max) for _ in range(5))


def main(flags) -> None:
  generator = DescriptorGenerator(
    num_words=NUM_WORDS, dimensions=DIMENSIONS, words_per_image=flags.words_per_image, seed=flags.seed
  )
  names = [f'image {m}' for m in range(flags.images)]
  options = {'num_words': NUM_WORDS, 'kernel': Kernel.ASMK_STAR, 'dimensions': DIMENSIONS}
  InvertedIndex.build(generator.draw_many(2), names[:2], **options)  # compiles
  built = min(flags.images, 50_000)
  descriptors = generator.draw_many(built)
  build_times, add_times = [], []
  for _ in range(3):
    ns, asmk_bytes = asmk_build(descriptors[: flags.asmk_build_images])
    add_times.append(ns)
    start = time.perf_counter()
    index = InvertedIndex.build(descriptors, names[:built], **options)
    build_times.append(1e9 * (time.perf_counter() - start) / index.num_postings)
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

  batches = {1: [], 2: []}
  many = queries * max(1, 100_000 // flags.images)
  for _, threads in itertools.product(range(5), (1, 2)):
    batches[threads].append(milliseconds(index.search_batch, many, threads=threads))
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

  build, add = statistics.median(build_times), statistics.median(add_times)
  megabytes = 1e-6 * index.nbytes
  print(f"""
| {flags.images} images, {index.num_postings} postings, load {os.getloadavg()[0]:.1f} | asmk 0.1.1 | here | ratio |
|---|---|---|---|
| query, {flags.words_per_image} words, top 100, one thread, ms | {theirs:.2f} | {compiled:.3f} | {theirs / compiled:.1f} |
| query, 3,000 words, ms | {theirs_large:.2f} | {compiled_large:.3f} | {theirs_large / compiled_large:.1f} |
| query without numba, ms | {theirs:.2f} | {plain:.2f} | {theirs / plain:.1f} |
| query of 3,000 words without numba, ms | {theirs_large:.2f} | {plain_large:.2f} | {theirs_large / plain_large:.1f} |
| batch of {len(many)}, 2 threads against 1, ms | - | {one:.0f} -> {two:.0f} | {ratio:.2f} |
| build, ns a posting (asmk: {flags.asmk_build_images} images) | {add:.0f} | {build:.0f} | {add / build:.0f} |
| bytes a posting, memory / disk | {asmk_bytes:.1f} | {index.nbytes / index.num_postings:.2f} / \
{disk / index.num_postings:.2f} | {asmk_bytes * index.num_postings / index.nbytes:.2f} |
| opening, ms (first query after it {first:.1f}) | - | {opening:.2f} | |
| saving, verifying, ms for {megabytes:.0f} MB | - | {save:.0f}, {verify:.0f} | |

A query of {flags.words_per_image} words touches {postings:.0f} postings, {18e-6 * postings:.1f} MB:
{1e6 * compiled / postings:.2f} ns a posting, selection included; {rate:.1f} GB/s, {100 * rate / bandwidth:.0f} % of the\
 {bandwidth:.1f} GB/s that one thread reads.""")


if __name__ == '__main__':
  if not HAVE_NUMBA:
    sys.exit('numba is missing or switched off; the table compares its path, too')
  main(parse_flags())
