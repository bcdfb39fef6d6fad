"""Mutation testing: does a test fail when an operator, a number or a decorator of the code is changed?

  .venv/bin/pip install cosmic-ray
  .venv/bin/python tests/mutation/mutants.py [--seed=N] [--module=kernels/vlad.py ...]

cosmic-ray says where a module can be changed and how. Each of those places is changed once, by an operator
that is drawn by lot, and the tests of the module run in a fork that imports the changed source; no file is
touched. Compiled kernels run as plain Python, beside their NumPy twins. Prints what no test noticed.
"""

import argparse
import difflib
import importlib.machinery
import os
import pathlib
import random
import signal
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / 'delf_d2r'
AGGREGATION = ('tests/kernels/test_kernels_aggregation.py', 'tests/kernels/test_kernels_similarity.py')
# Modules and the tests that answer for them.
MODULES = {
  'kernels/vlad.py': AGGREGATION,
  'kernels/asmk.py': AGGREGATION,
  'kernels/regional.py': AGGREGATION,
  'kernels/binarization.py': AGGREGATION,
  'kernels/aggregation.py': AGGREGATION,
  'kernels/similarity.py': AGGREGATION[::-1],
  'evaluation/average_precision.py': ('tests/evaluation/test_average_precision.py',),
  'evaluation/protocol.py': ('tests/evaluation/test_protocol.py',),
  'evaluation/significance.py': ('tests/evaluation/test_significance.py',),
  'index/attribution.py': ('tests/index/test_word_scores.py',),
  'index/ranking.py': ('tests/index/test_index_ranking.py',),
}
# Imported once, before the forks: everything that is not ours.
IMPORTED = ('hypothesis', 'numpy', 'pytest', 'scipy', 'google.protobuf.text_format')
# A change that loops for ever counts as noticed.
SECONDS = 120


def mutants(source: str, generator: random.Random) -> list[tuple[int, str, str]]:
  """(line, operator, changed source), one for each place that can be changed, in the order of places."""
  from cosmic_ray import ast, mutating, plugins

  tree = ast.get_ast(source)
  places = {}
  for name in sorted(plugins.operator_names()):
    operator_class = plugins.get_operator(name)
    if operator_class.arguments():
      continue
    operator = operator_class()
    found = (place for node in ast.ast_nodes(tree) for place in operator.mutation_positions(node))
    for occurrence, place in enumerate(found):
      places.setdefault(place, []).append((name, operator, occurrence))
  chosen = []
  for (start, _), choices in sorted(places.items()):
    name, operator, occurrence = generator.choice(choices)
    chosen.append((start[0], name.removeprefix('core/'), mutating.mutate_code(source, operator, occurrence)))
  return chosen


def is_noticed(file: pathlib.Path, source: str, tests: tuple[str, ...]) -> bool:
  """Whether a test fails, or none ends in time, with `source` in the place of what `file` holds."""
  child = os.fork()
  if child:
    return os.waitpid(child, 0)[1] != 0
  signal.alarm(SECONDS)
  code = 1
  try:
    code = _run_tests(file, source, tests)
  finally:
    os._exit(code)


def _run_tests(file: pathlib.Path, source: str, tests: tuple[str, ...]) -> int:
  quiet = os.open(os.devnull, os.O_WRONLY)
  os.dup2(quiet, 1)
  os.dup2(quiet, 2)
  get_code = importlib.machinery.SourceFileLoader.get_code

  def changed(loader, name):
    return compile(source, str(file), 'exec') if loader.path == str(file) else get_code(loader, name)

  importlib.machinery.SourceFileLoader.get_code = changed
  if file.parent.name == 'kernels':
    from delf_d2r.kernels import compiled

    # The loops are taken, and run as they are written. Those of the index are too slow for that.
    compiled.HAVE_NUMBA = True
    compiled.njit = lambda function=None, **_: function or (lambda inner: inner)
  import pytest

  return pytest.main(['-x', '-q', '--assert=plain', *tests])


def main() -> int:
  """Prints a table of modules, then each unnoticed change; returns 0 if the unchanged code passes."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--seed', type=int, default=0, help='of the lots')
  parser.add_argument('--module', action='append', choices=MODULES, help='only this one; repeatable')
  options = parser.parse_args()
  os.chdir(REPOSITORY)
  os.environ |= {'DELF_D2R_NO_NUMBA': '1', 'PYTHONDONTWRITEBYTECODE': '1', 'OMP_NUM_THREADS': '1'}
  sys.path[:0] = [str(REPOSITORY)]
  for module in IMPORTED:
    importlib.import_module(module)
  survivors = []
  print('| module | changes | noticed | s |\n|---|---|---|---|')
  for module in options.module or MODULES:
    file, tests, started = PACKAGE / module, MODULES[module], time.monotonic()
    source = file.read_text(encoding='utf-8')
    if is_noticed(file, source, tests):
      print(f'{module}: the tests fail without any change')
      return 1
    every = mutants(source, random.Random(f'{options.seed} {module}'))
    alive = [mutant for mutant in every if not is_noticed(file, mutant[2], tests)]
    seconds = time.monotonic() - started
    print(f'| {module} | {len(every)} | {len(every) - len(alive)} | {seconds:.0f} |', flush=True)
    survivors += [(module, source, *mutant) for mutant in alive]
  for module, source, line, operator, changed in survivors:
    print(f'\n{module}:{line} {operator}')
    lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), n=0, lineterm='')
    print('\n'.join(list(lines)[3:]))
  return 0


if __name__ == '__main__':
  sys.exit(main())
