"""Every command of README.md and docs/*.md is run: here, on a few photos, or in the test that is named here.

A new command that fails here needs one of

  TINY        what it reads and writes on a few photos, by flag; the page's other flags are given as they are
  HANDED_ON   what the binary calls, where that takes too long; then the call alone is checked
  ELSEWHERE   the test that runs the binary, or what it calls

Flags of a page that none of these know (`--input=FILE`) are asked for by name.

How each command was run, and its seconds, are properties of the results that pytest writes (--junitxml), from
which tests/benchmarks/measure_tests.py makes a table.
"""

import ast
import functools
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

import pytest
from support import commands, dependencies_page, readme_commands
from support.readme_commands import Command

from delf_d2r import config as configs
from delf_d2r import models
from delf_d2r.command_line import COMMANDS
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.experiments import experiment
from delf_d2r.protos.codebook_pb2 import CodebookConfig

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DETECTOR = pathlib.Path(models.__file__).parent / 'default_detector'

# Flags for each binary. {names} are those of `material`; [flags] are given only where the page gives them.
_CONFIG = {'config_path': '{tiny}'}
_PHOTOS = {'images': '{few}', '[ground_truth]': '{truth}', 'workers': '1'}
_ONE = {**_CONFIG, **_PHOTOS, 'output': '{new}'}
TINY = {
  'run_experiment': {
    **_PHOTOS,
    '[config_path]': '{tiny}',
    'ground_truth': '{truth}',
    'output': '{new}',
    '[distractors]': '{more}',
    '[codebook]': '{run}/codebook',
  },
  'search_index': {
    'index': '{run}',
    'query': '{photo}',
    '[box]': '0.1,0.2,0.8,0.9',
    '[html]': '{new}.html',
    '[matches]': '2',
  },
  'detect_boxes': {**_ONE, '[legacy_output]': '{new}_legacy'},
  'extract_features': _ONE,
  'train_codebook': {**_CONFIG, 'features': '{run}/features', 'output': '{new}'},
  'aggregate_features': {
    **_CONFIG,
    'features': '{run}/features',
    'codebook': '{run}/codebook',
    'output': '{new}',
  },
  'build_index': {
    **_CONFIG,
    'descriptors': '{run}/descriptors',
    'codebook': '{run}/codebook',
    'output': '{new}',
  },
  'train_pca': {'features': '{run}/features', 'output': '{new}'},
  'rerank_results': {
    'rankings': '{run}/rankings',
    'features': '{run}/features',
    'query_features': '{run}/query_features',
    'output': '{new}',
    '[ground_truth]': '{truth}',
  },
  'expand_queries': {
    'rankings': '{reranked}',
    'index': '{run}/index',
    'features': '{run}/features',
    'query_features': '{run}/query_features',
    'output': '{new}',
  },
  'fuse_rankings': {'rankings': '{run}/rankings', 'other': '{run}/rankings', 'output': '{new}'},
  'train_background': {
    'descriptors': '{run}/descriptors',
    'other_descriptors': '{run}/descriptors',
    'output': '{new}',
  },
  'evaluate_retrieval': {'rankings': '{run}/rankings', 'ground_truth': '{run_truth}', 'output': '{new}'},
  'make_report': {
    'experiment': '{run}',
    'images': '{run_images}',
    'query_images': '{run_queries}',
    'ground_truth': '{run_truth}',
    'output': '{new}',
    '[matches]': '2',
  },
  'compare': {'': '{run} {run}', '[output]': '{new}', '[ground_truth]': '{run_truth}'},
  'convert': {'input': '{run}/codebook', 'output': '{new}'},
  'doctor': {'': '{run}'},
  'datasets': {},
  'split_index': {'index': '{run}/index', 'shards': '2', 'output': '{new}'},
  'make_detection_records': {'images': '{few}', 'boxes': '{boxes_file}', 'output': '{new}', 'workers': '1'},
  'make_detection_scenes': {
    'objects': '{few}',
    'backgrounds': '{more}',
    'output': '{new}',
    'workers': '1',
    'override': 'detection_scenes {{ num_scenes: 2 image_size: 64 validation_share: 0 }}',
  },
  'make_mini_benchmark': {'output': '{new}'},
  'demo': {'output': '{new}'},
  'plan': {**_CONFIG, '[sample]': '{more}', 'images': '1000', '[memory]': '16', '[price_per_hour]': '1'},
  'threshold_curve': {**_ONE, 'ground_truth': '{truth}', 'threshold': '0.5'},
  'train_delf': {
    'config_path': 'configs/training/delf_tiny.pbtxt',
    'photos': '{few}',
    '[validation_photos]': '{few}',
    'output': '{new}',
  },
  'train_detector': {
    'config_path': 'configs/detectors/detector_tiny.pbtxt',
    'records': '{new}',
    '[validation_records]': '{new}',
    'output': '{new}',
  },
  'export_codebook': {'codebook': '{run}/codebook', 'output': '{new}'},
  'export_delf': {'config_path': 'configs/training/delf_tiny.pbtxt', 'output': '{new}'},
  'export_detector': {'config_path': 'configs/detectors/detector_tiny.pbtxt', 'output': '{new}'},
  'train_whitening': {'features': '{run}/features', 'output': '{new}', '[labels]': '{run_truth}'},
}

# Functions that a binary calls with what its flags say. They take minutes; the tests of ELSEWHERE run them.
HANDED_ON = {
  'demo': (
    'delf_d2r.data.scenes.mini_benchmark.generate',
    'delf_d2r.data.photos.dataset.Dataset.load',
    'delf_d2r.experiments.comparison.run',
    'delf_d2r.experiments.comparison.table_text',
  ),
  'export_delf': ('delf_d2r.stages.export_delf.run',),
  'export_detector': ('delf_d2r.stages.export_detector.run',),
  'make_mini_benchmark': ('delf_d2r.data.scenes.mini_benchmark.generate',),
  'plan': (
    'delf_d2r.planning.rates.measure_rates',
    'delf_d2r.planning.plan.make_plan',
    'delf_d2r.planning.plan.to_text',
  ),
  'train_delf': ('delf_d2r.stages.train_delf.run',),
  'train_detector': ('delf_d2r.stages.train_detector.run',),
  'train_background': ('delf_d2r.stages.train_background.run',),
  'train_whitening': ('delf_d2r.stages.train_whitening.run',),
}

# What else runs a binary, or what it hands on: the test, and the words of its file that say so. Here are
# binaries that serve until they are stopped, the tests of HANDED_ON, and those with flags that TINY lacks.
ELSEWHERE = {
  'curl': ('serving/test_serving_search.py::test_the_answer_is_that_of_the_engine', "'/api/search'"),
  'ray': ('distributed/test_cluster_faults.py::test_machine_that_is_lost', 'nodes.add_node('),
  'd2r annotate': ('serving/test_serving_guard.py::test_binaries_serve_until_they_are_stopped', "'annotate'"),
  'd2r convert': ('conversion/test_conversion_run.py::test_the_command', "'convert'"),
  'd2r datasets': ('stages/test_datasets.py::test_the_binary_checks', 'tools/datasets.py'),
  'd2r demo': ('integration/test_detected_boxes.py::test_detected_beside_random_boxes', 'comparison.run('),
  'd2r export_delf': ('integration/test_delf_binaries.py::test_errors_of_the_shell', "'export_delf'"),
  'd2r export_detector': (
    'stages/test_train_detector.py::test_learns_a_few_photos_by_heart_and_finds_them_after_export',
    'export_detector.run_trained(',
  ),
  'd2r make_mini_benchmark': ('data/scenes/test_mini_benchmark.py::test_counts', 'mini_benchmark.generate('),
  'd2r plan': ('planning/test_planning.py::test_rates_of_a_sample_are_those_of_its_photos', 'measure_rates('),
  'd2r reproduce': ('experiments/test_reproduce.py::test_the_binary', 'tools/reproduce.py'),
  'd2r serve': ('serving/test_serving_guard.py::test_binaries_serve_until_they_are_stopped', "'serve'"),
  'd2r serve_shard': (
    'serving/test_serving_shards.py::test_a_front_answers_while_a_shard_is_replaced',
    "'serve_shard'",
  ),
  'd2r train_delf': ('stages/test_train_delf.py::test_two_machines_train_one_network', 'train_delf.py'),
  'd2r train_detector': (
    'stages/test_train_detector.py::test_going_on_after_a_kill_is_exact',
    'train_detector.run(',
  ),
  'd2r train_background': (
    'stages/test_train_background.py::test_it_is_measured_from_two_kinds_of_descriptors',
    'train_background.run(',
  ),
  'd2r train_whitening': (
    'stages/test_train_whitening.py::test_it_is_learned_from_labelled_photos_alone',
    'train_whitening.run(',
  ),
}
# Flags that need more than a few photos, with every binary that has them.
ELSEWHERE_BY_FLAG = {
  'boxes_file': (
    'integration/test_detected_boxes.py::test_binary_writes_and_reads_the_research_codes_files',
    '--boxes_file=',
  ),
  'cluster': ('distributed/test_cluster_faults.py::test_command_that_is_killed', '--cluster='),
  'shards': ('serving/test_serving_shards.py::test_a_front_answers_while_a_shard_is_replaced', '--shards='),
}

# Experiments of configs/ whose models have to be fetched.
MADE_MODELS = 'integration/test_rows_with_made_weights.py'

# Overrides for experiments of configs/.
SMALL = (
  'extraction { max_features: 100 min_image_size: 128 max_image_size: 256 min_crop_size: 128'
  ' max_crop_size: 256 }'
)
SMALL_CODEBOOK = 'codebook { num_words: 64 iterations: 3 }'
DEFAULT = 'configs/experiments/default.pbtxt'
PAGES_COMMANDS = readme_commands.commands()
# The README is for three readers in a few minutes; everything else is in docs/.
MOST_BYTES_OF_README = 10_000


def name_of(command: Command) -> str:
  return f'{command.page}:{command.line} {command}'


def is_run(command: Command) -> bool:
  """Whether it is a whole command, or changes a run of run_experiment as a table says."""
  if (
    command.program != 'd2r'
    or ('help', None) in command.flags
    or readme_commands.is_placeholder(command.name)
  ):
    return False
  changes_a_run = {'config_path', 'override'} & dict(command.flags).keys()
  return bool(command.name) or (command.is_shown and bool(changes_a_run))


@pytest.fixture(scope='module')
def shell():
  with commands.Commands() as shell:
    yield shell


@pytest.fixture(scope='module')
def flags_of(shell, tmp_path_factory):
  """The flags that a binary's --help names."""

  @functools.cache
  def flags_of(name: str) -> set[str]:
    done = shell.run([name, '--help'], folder=tmp_path_factory.getbasetemp())
    assert done.returncode == 0, done.stderr
    found = set(re.findall(r'^  --(\w+)', done.stdout, re.MULTILINE))
    return found | set(re.findall(r'; --(no\w+) for off', done.stdout)) | {'help'}

  return flags_of


@pytest.fixture(scope='module')
def material(finished_dir, benchmark, config_path, shell, tmp_path_factory):
  """What the names in TINY stand for, but {new}."""
  folder = tmp_path_factory.mktemp('readme')
  photos = sorted(benchmark.images_dir.iterdir())
  for name, chosen in (('few', photos[:4]), ('more', photos[-8:])):
    (folder / name).mkdir()
    for photo in chosen:
      shutil.copy(photo, folder / name / f'{name}_{photo.name}')
  names = sorted(file.name for file in (folder / 'few').iterdir())
  queries = [{'image': names[0], 'easy': [names[1]], 'hard': [names[2]], 'junk': [names[0]]}]
  (folder / 'truth.json').write_text(json.dumps({'version': 1, 'queries': queries}))
  lines = ['image,ymin,xmin,ymax,xmax', *(f'{name},0.1,0.2,0.9,0.8' for name in names)]
  (folder / 'boxes.csv').write_text('\n'.join(lines))
  found = {
    'tiny': config_path,
    'few': folder / 'few',
    'more': folder / 'more',
    'truth': folder / 'truth.json',
    'boxes_file': folder / 'boxes.csv',
    'photo': photos[0],
    'run': finished_dir,
    'run_images': benchmark.images_dir,
    'run_queries': benchmark.queries_dir,
    'run_truth': benchmark.ground_truth_path,
    'reranked': folder / 'reranked',
  }
  arguments, _ = arranged(readme_commands.parse('d2r rerank_results'), {**found, 'new': found['reranked']})
  done = shell.run(['rerank_results', *arguments], folder=folder)
  assert done.returncode == 0, done.stderr
  return found


def arranged(command: Command, material) -> tuple[list[str], list[str]]:
  """The arguments that run a command on a few photos, and the flags that cannot be given."""
  name = command.name or 'run_experiment'
  flags = {flag: value.format_map(material) for flag, value in TINY[name].items()}
  arguments = flags.pop('', '').split() if command.arguments or '' in TINY[name] else []
  given, unknown = [], []
  for flag, value in command.flags:
    if flag == 'override':
      given.append('--override=' + re.sub(r'"[A-Z]+"', f'"{DETECTOR}"', value))
    elif flag == 'config_path' and value.startswith('configs/'):
      flags[flag] = value
    elif f'[{flag}]' in flags:
      flags[flag] = flags[f'[{flag}]'] if is_of_readers(value) else value
    elif flag not in flags:
      if is_of_readers(value) or f'd2r {name}' in ELSEWHERE:
        unknown.append(flag)
      given.append(f'--{flag}' if value is None else f'--{flag}={value}')
  if name == 'run_experiment':
    # Where the page leaves the config to the reader, the tiny one is as good as any.
    is_open = command.is_shortened or not command.flags
    if is_open or not (command.name or 'regions.' in str(command)):
      flags.setdefault('config_path', flags['[config_path]'])
    if flags.get('config_path') != flags['[config_path]']:
      given += smaller(loaded(flags.get('config_path', DEFAULT)))
  given += [f'--{flag}={value}' for flag, value in flags.items() if flag[0] != '[']
  return [*given, *arguments], unknown


def loaded(config_path: str):
  return configs.load(config_path, experiment.STAGES)


def smaller(config) -> list[str]:
  """Overrides that make an experiment of configs/ small."""
  is_trained = config.codebook.source == CodebookConfig.K_MEANS
  return [f'--override={change}' for change in ((SMALL, SMALL_CODEBOOK) if is_trained else (SMALL,))]


def absent_files(command: Command) -> list[str]:
  """Models and the like that an experiment of configs/ wants, and that have to be fetched."""
  path = dict(command.flags).get('config_path') or ''
  if not path.startswith('configs/experiments/'):
    return []
  return [name for name in re.findall(r'"(.+/.+)"', str(loaded(path))) if not os.path.exists(name)]


def is_of_readers(value: str | None) -> bool:
  """Whether it names what only a reader's machine has: FILE, out/features, boxes.csv."""
  return readme_commands.is_placeholder(value) or bool(value and re.search(r'/|\.[a-z]\w+$', value))


def elsewhere(command: Command) -> tuple[str, str] | None:
  for flag, _ in command.flags:
    if flag in ELSEWHERE_BY_FLAG:
      return ELSEWHERE_BY_FLAG[flag]
  return ELSEWHERE.get(f'{command.program} {command.name}')


@pytest.mark.parametrize('command', [c for c in PAGES_COMMANDS if is_run(c)], ids=str)
def test_command_works(command, shell, flags_of, material, tmp_path, request):
  # As record_property does, but for its warning that not every form of results has a place for them.
  account = request.node.user_properties
  account.append(('command', str(command)))
  if command.name:
    assert command.name in COMMANDS, f'{name_of(command)}: d2r has no such command'
  name = command.name or 'run_experiment'
  unknown = dict(command.flags).keys() - flags_of(name)
  assert not unknown, f'{name_of(command)}: d2r {name} has no flags {sorted(unknown)}'
  test = elsewhere(command)
  if name not in TINY or any(flag in ELSEWHERE_BY_FLAG for flag, _ in command.flags):
    assert test, f'{name_of(command)}: say how to run it on a few photos: TINY[{name!r}] in {__file__}'
    account.append(('test', test[0]))
    return
  arguments, missing = arranged(command, {**material, 'new': tmp_path / 'out'})
  if missing:
    assert test, f'{name_of(command)}: {missing} have no value: add it to TINY[{name!r}] in {__file__}'
    account.append(('test', test[0]))
    return
  if absent_files(command):
    # That it loads is what can be tested here; there, made models are run.
    account.append(('test', MADE_MODELS))
    return
  if name in HANDED_ON:
    account.append(('test', test[0]))
  started = time.monotonic()
  done = shell.run([name, *arguments], folder=tmp_path, replaced=HANDED_ON.get(name, ()))
  account.append(('seconds', round(time.monotonic() - started, 1)))
  assert done.returncode == 0, f'{name_of(command)}, run as {arguments}: {done.stderr or done.stdout}'


@pytest.mark.parametrize(
  'command', [c for c in PAGES_COMMANDS if not is_run(c) and c.program == 'd2r'], ids=str
)
def test_flags_named_in_passing_exist(command, flags_of):
  names = [command.name] if command.name in COMMANDS else COMMANDS
  missing = dict(command.flags).keys() - set().union(*map(flags_of, names))
  assert not missing, f'{name_of(command)}: no command of d2r has {sorted(missing)}'
  changes = [value for flag, value in command.flags if flag == 'override' and value]
  configs.load_or_default(None, experiment.STAGES, overrides=changes)


@pytest.mark.parametrize('command', [c for c in PAGES_COMMANDS if c.program != 'd2r'], ids=str)
def test_other_programs_are_asked_for_what_there_is(command, flags_of):
  if command.program == 'make':
    if not shutil.which('make'):
      pytest.skip('no make on this machine')
    done = subprocess.run(
      ['make', '-n', command.name, *command.arguments],
      cwd=REPOSITORY,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, f'{name_of(command)}: {done.stderr}'
    for line in re.findall(r'^\S+/(d2r .*)$', done.stdout.replace('\\\n', ''), re.MULTILINE):
      found = readme_commands.parse(line)
      assert dict(found.flags).keys() <= flags_of(found.name), line
  elif command.program == 'pip':
    extras = re.findall(r'\[([\w,-]*)\]', str(command))
    assert command.name == 'install', name_of(command)
    assert set(','.join(extras).split(',')) <= dependencies_page.requirements().keys(), name_of(command)
  elif ('m', None) in command.flags:
    assert importlib.util.find_spec(command.arguments[0]), f'{name_of(command)}: no such module'
  elif command.program == 'python':
    is_there = (REPOSITORY / command.name).is_file() or readme_commands.is_placeholder(command.name)
    assert is_there, f'{name_of(command)}: no such file in the checkout'
  else:
    assert command.program in ELSEWHERE, f'{name_of(command)}: name the test that does it: ELSEWHERE'


@pytest.mark.parametrize('test, words', sorted({*ELSEWHERE.values(), *ELSEWHERE_BY_FLAG.values()}))
def test_the_tests_named_here_exist(test, words):
  file, name = test.split('::')
  text = (REPOSITORY / 'tests' / file).read_text(encoding='utf-8')
  assert name in {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
  assert words in text


def test_what_is_not_run_to_its_end_here_is_elsewhere():
  assert {f'd2r {name}' for name in HANDED_ON} <= ELSEWHERE.keys()
  assert {f'd2r {name}' for name in COMMANDS if name not in TINY} <= ELSEWHERE.keys()


def test_the_readme_is_short():
  assert readme_commands.README.stat().st_size < MOST_BYTES_OF_README


@pytest.mark.parametrize('page', readme_commands.PAGES[1:], ids=lambda page: page.name)
def test_the_readme_leads_to_every_page(page):
  assert f'](docs/{page.name}' in readme_commands.README.read_text(encoding='utf-8')


@pytest.mark.parametrize('page, target', readme_commands.links())
def test_headings_that_are_linked_to_exist(page, target):
  file, heading = target.split('#')
  assert heading in readme_commands.anchors(file), f'{page} links to {target}'


@pytest.mark.parametrize('path', sorted(readme_commands.paths()))
def test_files_exist(path):
  assert (REPOSITORY / path).exists(), (
    f'README.md or a page of docs/ names {path}, which is not in the checkout'
  )


@pytest.mark.parametrize('code', readme_commands.blocks('python'))
def test_python_runs(code, finished_dir, benchmark, tmp_path, monkeypatch):
  shutil.copytree(finished_dir, tmp_path / 'OUT')
  photos = sorted(benchmark.queries_dir.iterdir())
  shutil.copy(photos[0], tmp_path / 'PHOTO.jpg')
  shutil.copy(photos[1], tmp_path / 'NEW.jpg')
  monkeypatch.chdir(tmp_path)
  exec(compile(code, 'README.md and docs', 'exec'), {})


@pytest.mark.parametrize('text', readme_commands.blocks('json'))
def test_ground_truth_is_read(text, tmp_path):
  (tmp_path / 'truth.json').write_text(text, encoding='utf-8')
  assert ground_truth.load(tmp_path / 'truth.json').queries


def test_commands_are_found():
  text = """
```
.venv/bin/d2r search_index --index=OUT \\
  --query=PHOTO.jpg   # with a comment
```
| what | `d2r serve --index=OUT [--port=N]`, `--warm` |
As `make demo` and `--redo` say. See `... --output=X`.
```
photos -> d2r
```
"""
  found = readme_commands.commands_of(text)
  assert [(str(command), command.line, command.is_shown) for command in found] == [
    ('d2r search_index --index=OUT --query=PHOTO.jpg', 3, True),
    ('d2r serve --index=OUT --port=N', 6, True),
    ('d2r serve --warm', 6, True),
    ('make demo', 7, False),
    ('d2r --redo', 7, False),
    ('d2r --output=X', 7, False),
  ]
