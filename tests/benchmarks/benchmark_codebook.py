"""Compares codebook training by faiss (Lloyd) with Lloyd and approximate assignment, on RootSIFT descriptors.

  python tests/benchmarks/benchmark_codebook.py --words=4096
  python tests/benchmarks/benchmark_codebook.py --words=65536 --training=6553600 --only_approximate

Errors are mean squared distances of held-out descriptors to their nearest words.
"""

import argparse
import pathlib
import resource
import sys

import faiss

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks.measuring import DEFAULT_PHOTOS, print_table, root_sift, seconds  # noqa: E402

from delf_d2r.codebook import Codebook, quality_report  # noqa: E402


def main(flags) -> None:
  faiss.omp_set_num_threads(flags.threads)
  descriptors = root_sift(flags.photos, count=flags.training + flags.held_out, seed=flags.seed)
  held_out, training = descriptors[: flags.held_out], descriptors[flags.held_out :]
  books, times, reports = {}, {}, {}

  def run(assignment):
    books[assignment] = Codebook.train(
      training, num_words=flags.words, iterations=flags.iterations, seed=flags.seed, assignment=assignment
    )

  for assignment in ('approximate',) if flags.only_approximate else ('exact', 'approximate'):
    times[assignment] = seconds(lambda assignment=assignment: run(assignment))
    reports[assignment] = quality_report(books[assignment], held_out)
    print(books[assignment], flush=True)
  baseline = next(iter(reports))
  rows = [
    (
      name, times[name], times[baseline] / times[name], report.mean_squared_error,
      f'{100 * (report.mean_squared_error / reports[baseline].mean_squared_error - 1):+.2f} %',
      report.empty_words, report.imbalance,
    )
    for name, report in reports.items()
  ]  # fmt: skip
  print_table(
    (f'K = {flags.words}, N = {books[baseline].num_descriptors}, {flags.iterations} iterations', 's',
     'times faster', 'held-out error', 'against exact', 'empty words', 'imbalance'),
    rows,
  )  # fmt: skip
  print(f'peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB')


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--photos', type=pathlib.Path, default=DEFAULT_PHOTOS)
  parser.add_argument('--words', type=int, default=4096)
  parser.add_argument('--training', type=int, default=409_600)
  parser.add_argument('--held_out', type=int, default=20_000)
  parser.add_argument('--iterations', type=int, default=20)
  parser.add_argument('--threads', type=int, default=faiss.omp_get_max_threads())
  parser.add_argument('--only_approximate', action='store_true')
  parser.add_argument('--seed', type=int, default=0)
  main(parser.parse_args())
