"""Times the assignment of 1,000 RootSIFT descriptors to 65,536 words: exact, approximate, faiss (flat, HNSW).

  python tests/benchmarks/benchmark_assignment.py --photos=DIR

Descriptors and codebook (a few iterations) are computed from the photos; queries are held out.
"""

import argparse
import pathlib
import sys

import faiss
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks.measuring import DEFAULT_PHOTOS, alternate, print_table, root_sift, seconds  # noqa: E402

from delf_d2r.codebook import Codebook  # noqa: E402
from delf_d2r.kernels.approximate_assignment import ApproximateAssigner  # noqa: E402
from delf_d2r.kernels.assignment import ExactAssigner  # noqa: E402


def main(flags) -> None:
  descriptors = root_sift(flags.photos, count=flags.training + 4000, seed=flags.seed)
  held_out, queries = descriptors[:4000], np.ascontiguousarray(descriptors[: flags.features])
  book = Codebook.train(
    descriptors[4000:], num_words=flags.words, iterations=flags.iterations, seed=flags.seed,
    assignment='approximate',
  )  # fmt: skip
  print(book, flush=True)
  faiss.omp_set_num_threads(flags.threads)
  flat = faiss.IndexFlatL2(book.dimensions)
  flat.add(book.centroids)
  exact = ExactAssigner(book.centroids)
  builds = {'faiss flat': 0.0, 'exact': 0.0}
  holder = {}

  def build_hnsw():
    holder['hnsw'] = faiss.IndexHNSWFlat(book.dimensions, 32)
    holder['hnsw'].add(book.centroids)

  def build_approximate():
    holder['approximate'] = ApproximateAssigner(book.centroids, seed=flags.seed)

  builds['HNSW32, efSearch 32'] = seconds(build_hnsw)
  builds['approximate'] = seconds(build_approximate)
  hnsw, approximate = holder['hnsw'], holder['approximate']
  hnsw.hnsw.efSearch = 32
  functions = {
    'faiss flat': lambda x=queries: flat.search(x, 1)[1],
    'exact': lambda x=queries: exact(x),
    'HNSW32, efSearch 32': lambda x=queries: hnsw.search(x, 1)[1],
    'approximate': lambda x=queries: approximate(x),
  }
  truth = exact(held_out)
  times = alternate(functions, rounds=flags.rounds)
  rows = [
    (
      name, 1e3 * times[name], times['faiss flat'] / times[name], times['exact'] / times[name],
      float(np.mean(function(held_out) == truth)), builds[name],
    )
    for name, function in functions.items()
  ]  # fmt: skip
  print_table(
    (f'{flags.features} x {flags.words}, {flags.threads} thread(s)', 'ms', 'times faiss flat', 'times exact',
     'recall@1', 'build, s'),
    rows,
  )  # fmt: skip
  print(approximate)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--photos', type=pathlib.Path, default=DEFAULT_PHOTOS)
  parser.add_argument('--features', type=int, default=1000)
  parser.add_argument('--words', type=int, default=65536)
  parser.add_argument('--training', type=int, default=262_144)
  parser.add_argument('--iterations', type=int, default=3)
  parser.add_argument('--threads', type=int, default=faiss.omp_get_max_threads())
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--seed', type=int, default=0)
  main(parser.parse_args())
