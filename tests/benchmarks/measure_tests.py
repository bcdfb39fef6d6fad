"""Measures the tests: seconds of files, tests and documented commands, and coverage of each module.

  .venv/bin/pip install pytest-cov
  .venv/bin/python tests/benchmarks/measure_tests.py [--output=FOLDER] [PYTEST_ARGUMENTS ...]

Runs all tests once with branch coverage and prints four tables in Markdown; results.xml and coverage.json
stay in FOLDER. Processes started by tests, such as commands, are counted unless they are killed. Compiled
functions are counted only if a test runs them as plain Python, so coverage is a lower bound. On a busy
machine, seconds are an upper bound.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def run(folder: pathlib.Path, arguments: list[str]) -> int:
  """Runs pytest, which writes results.xml and coverage.json; returns its exit code."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'coveragerc').write_text(
    f'[run]\nbranch = true\nsource = {REPOSITORY}/delf_d2r, {REPOSITORY}/tools\nomit = */protos/*\n'
    # Processes that the tests start, in files of their own that are combined at the end.
    f'patch = subprocess, fork, _exit\nparallel = true\ndata_file = {folder / "coverage"}\n'
    # Nobody who reads the standard error of a binary expects them.
    'disable_warnings = no-data-collected, module-not-imported, module-not-measured, couldnt-parse\n'
  )
  command = [sys.executable, '-m', 'pytest', '-q', f'--junitxml={folder / "results.xml"}']
  coverage = [
    '--cov',
    f'--cov-config={folder / "coveragerc"}',
    f'--cov-report=json:{folder / "coverage.json"}',
  ]
  return subprocess.run([*command, *coverage, *arguments], cwd=REPOSITORY, check=False).returncode


def seconds_by_test(results: pathlib.Path) -> dict[tuple[str, str], float]:
  """Returns the seconds of each (file, test), including fixtures."""
  found = {}
  for case in ElementTree.parse(results).iter('testcase'):
    file = pathlib.Path(*case.get('classname').split('.')).with_suffix('.py')
    found[str(file), case.get('name')] = float(case.get('time'))
  return found


def print_table(title: str, header: tuple[str, ...], rows) -> None:
  """Prints rows in Markdown."""
  print(f'\n{title}\n\n| {" | ".join(header)} |\n|{"---|" * len(header)}')
  for row in rows:
    print(f'| {" | ".join(map(str, row))} |')


def print_times(seconds: dict[tuple[str, str], float]) -> None:
  """Prints the seconds of files and of the ten slowest tests."""
  files = collections.defaultdict(list)
  for (file, _), time in seconds.items():
    files[file].append(time)
  total = sum(seconds.values())
  rows = sorted(
    ((file, len(times), f'{sum(times):.1f}') for file, times in files.items()), key=lambda r: -float(r[2])
  )
  print_table(f'{len(seconds):,} tests, {total:.0f} s', ('file', 'tests', 's'), rows)
  slowest = sorted(seconds.items(), key=lambda item: -item[1])[:10]
  print_table(
    'The slowest ten', ('test', 's'), [(f'{f}::{name}', f'{time:.1f}') for (f, name), time in slowest]
  )


def print_commands(results: pathlib.Path, seconds: dict[tuple[str, str], float]) -> None:
  """Commands of README.md and docs/: run as they are on a few photos, or by the test that does the same."""
  rows = []
  for case in ElementTree.parse(results).iter('testcase'):
    found = {item.get('name'): item.get('value') for item in case.iter('property')}
    if 'command' not in found:
      continue
    how, time = 'on a few photos', found.get('seconds', '')
    if 'test' in found:
      file, _, name = found['test'].partition('::')
      times = [
        time
        for (other, test), time in seconds.items()
        if other == f'tests/{file}' and name in ('', test.partition('[')[0])
      ]
      how, time = f'`{found["test"]}`', f'{sum(times):.1f}' if times else 'not run'
    rows.append((f'`{found["command"]}`'.replace('|', '\\|'), time, how))
  print_table(f'{len(rows)} commands of README.md and docs/', ('command', 's', 'run'), rows)


def print_coverage(coverage: pathlib.Path) -> None:
  """Lines and branches that ran, least first."""

  def percent(done: int, every: int) -> str:
    return f'{100 * done / every:.1f}' if every else ''

  report = json.loads(coverage.read_text(encoding='utf-8'))
  rows = []
  for name, file in sorted(report['files'].items(), key=lambda item: item[1]['summary']['percent_covered']):
    found = file['summary']
    lines = percent(found['covered_lines'], found['num_statements'])
    branches = percent(found['covered_branches'], found['num_branches'])
    absent = ', '.join(map(str, file['missing_lines'][:12])) + (
      ' ...' if len(file['missing_lines']) > 12 else ''
    )
    rows.append((name, lines, branches, absent))
  totals = report['totals']
  title = (
    f'Lines {percent(totals["covered_lines"], totals["num_statements"])} %,'
    f' branches {percent(totals["covered_branches"], totals["num_branches"])} %'
  )
  print_table(title, ('module', 'lines %', 'branches %', 'lines not run'), rows)


def main() -> None:
  """Runs the tests and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output', type=pathlib.Path, default=None)
  options, arguments = parser.parse_known_args()
  folder = options.output or pathlib.Path(tempfile.mkdtemp(prefix='tests_'))
  code = run(folder.resolve(), arguments)
  seconds = seconds_by_test(folder / 'results.xml')
  print_times(seconds)
  print_commands(folder / 'results.xml', seconds)
  print_coverage(folder / 'coverage.json')
  print(f'\nin {folder}')
  sys.exit(code)


if __name__ == '__main__':
  main()
