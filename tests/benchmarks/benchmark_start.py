"""Measures what commands cost before they do anything: CPU and peak memory of help and of one cold search.

  python tests/benchmarks/benchmark_start.py --index=out --query=photo.jpg
  python tests/benchmarks/benchmark_start.py --index=out --query=photo.jpg --other=CHECKOUT

Each command runs in a process of its own, --repeats times; with --other alternately from this checkout and
from another one, of an earlier state. Medians are printed. CPU is that of the process, whatever else the
machine does.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks.measuring import print_table  # noqa: E402


def parse_flags():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--index', nargs='*', default=[], help='directories that run_experiment made')
  parser.add_argument('--query', help='photo to search for')
  parser.add_argument('--other', type=pathlib.Path, help='another checkout to compare with')
  parser.add_argument('--repeats', type=int, default=5)
  return parser.parse_args()


def commands(flags) -> dict[str, list[str]]:
  found = {
    'd2r --help': ['-c', 'from delf_d2r.command_line import main; main()', '--help'],
    'd2r run_experiment --help': ['tools/run_experiment.py', '--help'],
    'd2r search_index --help': ['tools/search_index.py', '--help'],
  }
  for index in flags.index:
    arguments = [f'--index={pathlib.Path(index).resolve()}', f'--query={pathlib.Path(flags.query).resolve()}']
    found[f'd2r search_index --index={index}'] = ['tools/search_index.py', *arguments]
  return found


def measure(checkout: pathlib.Path, arguments: list[str]) -> tuple[float, float]:
  """Returns the seconds of CPU and the MB of peak memory of a command."""
  process = subprocess.Popen(
    [sys.executable, *arguments],
    cwd=checkout,
    env={**os.environ, 'PYTHONPATH': str(checkout)},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  _, status, usage = os.wait4(process.pid, 0)
  if status:
    raise SystemExit(f'{arguments} in {checkout} failed')
  return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
  flags = parse_flags()
  checkouts = [ROOT, *([flags.other.resolve()] if flags.other else [])]
  rows = []
  for name, arguments in commands(flags).items():
    found = [[measure(checkout, arguments) for checkout in checkouts] for _ in range(flags.repeats + 1)][1:]
    medians = [
      tuple(statistics.median(values) for values in zip(*of_checkout, strict=True))
      for of_checkout in zip(*found, strict=True)
    ]
    rows.append((name, *(f'{seconds:.2f} s, {megabytes:.0f} MB' for seconds, megabytes in medians)))
  print_table(('command', 'this checkout', 'the other one')[: 1 + len(checkouts)], rows)


if __name__ == '__main__':
  main()
