"""Mutation testing: does a test fail when an operator, a number or a decorator of the code is changed?

  .venv/bin/pip install cosmic-ray
  .venv/bin/python tests/mutation/mutants.py [--seed=N] [--module=kernels/aggregation.py ...]

cosmic-ray says where a module can be changed and how. Each of those places is changed once, by an operator
that is drawn at random, and the tests of the module run in a fork that imports the changed source; no file is
touched. Compiled loops run as plain Python, beside their NumPy twins. Prints what no test noticed.
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
ASSIGNMENT = ('tests/kernels/test_kernels_assignment.py', '-k=not recall and not two_kinds')
APPROXIMATION = (
  'tests/kernels/test_kernels_assignment.py',
  '-k=not definition and not best_words and not equally_far',
)
# Without what runs in processes of its own, where no change is seen, and what takes long.
BUILDING = (
  'tests/index/test_index_updates.py',
  'tests/index/test_inverted_index.py',
  '-k=memory_budget or any_order or odd_number or refused or two_real_segments',
)
UPDATING = (
  'tests/index/test_index_updates.py',
  'tests/index/test_inverted_index.py::test_an_index_without_images',
  'tests/index/test_inverted_index.py::test_entries_that_disagree_are_refused',
  'tests/index/test_inverted_index.py::test_inspection',
  'tests/index/test_inverted_index.py::test_regions_are_named_as_given_and_the_first_of_equal_ones_wins',
  'tests/index/test_index_files.py::test_arrays_that_contradict_each_other',
  '-k=not memory_budget and not larger_than_memory and not a_kill',
)
SEARCHING = (
  'tests/index/test_inverted_index.py',
  'tests/index/test_word_scores.py',
  'tests/index/test_index_files.py',
  'tests/index/test_index_updates.py::test_what_a_search_remembers_does_not_outlive_an_update',
  'tests/index/test_index_updates.py::test_the_checksum_is_that_of_what_lies_on_the_disk',
  '-k=not allocates_little and not two_real_segments and not mutated_files',
)
STORING = (
  'tests/index/test_index_files.py',
  'tests/index/test_index_updates.py',
  '-k=not mutated_files and not larger_than_memory and not a_kill',
)
# Without the expressions that choose among the tests of the two.
CHANGING_AND_SEARCHING = (
  'tests/index/test_index_updates.py',
  'tests/index/test_inverted_index.py',
  'tests/index/test_index_files.py',
  'tests/index/test_word_scores.py',
  '-k=not memory_budget and not larger_than_memory and not a_kill and not allocates_little'
  ' and not two_real_segments and not mutated_files',
)
# Modules and the tests that answer for them, as arguments of pytest.
MODULES = {
  'kernels/aggregation.py': (*AGGREGATION, 'tests/kernels/test_kernel_properties.py'),
  'kernels/similarity.py': AGGREGATION[::-1],
  'kernels/activation_regions.py': ('tests/kernels/test_kernels_activation_regions.py',),
  'kernels/approximate_assignment.py': APPROXIMATION,
  'kernels/assignment.py': ASSIGNMENT,
  'kernels/kmeans.py': ('tests/test_codebook.py',),
  'kernels/pca.py': ('tests/kernels/test_kernels_pca.py',),
  'kernels/regional_maxima.py': ('tests/kernels/test_kernels_regional_maxima.py',),
  'kernels/whitening.py': ('tests/kernels/test_kernels_whitening.py',),
  'evaluation/average_precision.py': ('tests/evaluation/test_average_precision.py',),
  'evaluation/protocol.py': ('tests/evaluation/test_protocol.py',),
  'evaluation/significance.py': ('tests/evaluation/test_significance.py',),
  'geometry/matching.py': ('tests/geometry/test_matching.py',),
  'geometry/transforms.py': ('tests/geometry/test_transforms.py', 'tests/geometry/test_verification.py'),
  'geometry/verification.py': ('tests/geometry/test_verification.py',),
  'geometry/merging.py': ('tests/geometry/test_merging.py',),
  'geometry/legacy_rule.py': ('tests/geometry/test_legacy_rule.py',),
  'geometry/boxes.py': ('tests/geometry/test_boxes.py',),
  'geometry/channels.py': ('tests/geometry/test_channels.py',),
  'index/directory.py': STORING,
  'index/images.py': UPDATING,
  'index/index_state.py': SEARCHING,
  'index/inverted_index.py': CHANGING_AND_SEARCHING,
  'index/joining.py': (
    'tests/index/test_index_joining.py',
    'tests/stages/test_build_index.py',
    '-k=test_index_joining or follow or few_images',
  ),
  'index/ranking.py': ('tests/index/test_index_ranking.py',),
  'index/scan.py': (
    'tests/index/test_index_scan.py',
    'tests/index/test_inverted_index.py::test_lists_of_any_length_take_the_same_scores',
  ),
  'index/search.py': SEARCHING,
  'index/segments.py': ('tests/index/test_index_sorting.py',),
  'index/sorting.py': ('tests/index/test_index_sorting.py',),
  'index/stored_index.py': STORING,
  'index/stored_segment.py': STORING,
  'index/updates.py': UPDATING,
  'index/builder.py': BUILDING,
}
# Imported once, before the forks: everything that is not ours.
IMPORTED = ('cv2', 'faiss', 'hypothesis', 'numpy', 'pytest', 'scipy.ndimage', 'google.protobuf.text_format')
# A change that takes so many times longer than the unchanged module loops for ever, and counts as noticed.
PATIENCE = 2
LEAST_SECONDS = 10


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


def is_noticed(file: pathlib.Path, source: str, tests: tuple[str, ...], *, seconds: float) -> bool:
  """Whether a test fails, or they take longer than `seconds`, with `source` in the place of the content."""
  child = os.fork()
  if child:
    return os.waitpid(child, 0)[1] != 0
  # Of its own time, since others may use the machine, too; and what waits for ever ends as well.
  signal.setitimer(signal.ITIMER_PROF, seconds)
  signal.alarm(int(60 * seconds))
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
  if file.parent.name in ('kernels', 'index'):
    _interpret_loops()
  import pytest

  return pytest.main(['-x', '-q', '--assert=plain', *tests])


def _interpret_loops() -> None:
  """Selects the compiled loops, as with numba, and runs them as plain Python."""
  import numpy as np

  from delf_d2r.kernels import compiled

  compiled.HAVE_NUMBA = True
  compiled.njit = lambda function=None, **_: function or (lambda inner: inner)
  instructions = {'popcount': np.bitwise_count, 'prefetch': lambda array, index: None}
  compiled.intrinsic = lambda generator: instructions[generator.__name__]


def _seconds_of_children() -> float:
  times = os.times()
  return times.children_user + times.children_system


def main() -> int:
  """Prints a table of modules, then each unnoticed change; returns 0 if the unchanged code passes."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--seed', type=int, default=0, help='of the random draws')
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
    before = _seconds_of_children()
    if is_noticed(file, source, tests, seconds=600):
      print(f'{module}: the tests fail without any change')
      return 1
    seconds = max(LEAST_SECONDS, PATIENCE * (_seconds_of_children() - before))
    every = mutants(source, random.Random(f'{options.seed} {module}'))
    alive = []
    for number, mutant in enumerate(every):
      print(f'\r{module} {number}/{len(every)}', end='', file=sys.stderr, flush=True)
      if not is_noticed(file, mutant[2], tests, seconds=seconds):
        alive.append(mutant)
    print('\r', end='', file=sys.stderr)
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
