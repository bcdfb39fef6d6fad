"""The one-way street: a room imports only itself and rooms of lower number."""

import ast
import pathlib
import subprocess
import sys

import delf_d2r

PACKAGE = pathlib.Path(delf_d2r.__file__).parent
REPOSITORY = PACKAGE.parent
LAYERS = {
  'structures': 0,
  'errors': 0,
  'text_table': 0,
  'version': 0,
  'protos': 0,
  'config_text': 0.1,
  'config_values': 0.1,
  'config_rules': 0.1,
  'config': 0.2,
  'kernels': 1,
  'geometry': 1,
  'codebook': 2,
  'data': 3,
  'index': 3,
  'extractors': 3.3,
  'models': 3.2,
  'aggregator': 3.4,
  'verifier': 3.4,
  'sharding': 3.4,
  'engine': 4,
  'evaluation': 4,
  'doctor': 4.2,
  'stages': 5,
  'distributed': 5.5,
  'conversion': 5.1,
  'report': 6,
  'serving': 6.1,
  'planning': 7,
  'experiments': 7,
  'command_line': 8,
  'common_flags': 8,
  'tools': 9,
}


def _sources():
  """Yields (room, file) of every module of the package and of every binary."""
  for file in PACKAGE.rglob('*.py'):
    room = file.relative_to(PACKAGE).parts[0].removesuffix('.py')
    if room not in ('__init__', 'protos'):
      yield room, file
  for file in (REPOSITORY / 'tools').glob('*.py'):
    yield 'tools', file


def _imported_modules(file):
  for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom) and node.module:
      yield from [node.module, *(f'{node.module}.{alias.name}' for alias in node.names)]
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


def _rooms_imported(file):
  for module in _imported_modules(file):
    parts = module.split('.')
    if parts[0] == 'delf_d2r' and len(parts) > 1:
      yield parts[1]


def test_every_room_has_its_number():
  assert {room for room, _ in _sources()} <= LAYERS.keys()


def test_rooms_import_only_lower_rooms():
  wrong = [
    f'{file.relative_to(REPOSITORY)} ({room}, {LAYERS[room]}) imports {other} ({LAYERS[other]})'
    for room, file in _sources()
    for other in _rooms_imported(file)
    if other != room and LAYERS[other] >= LAYERS[room]
  ]
  assert not wrong, '\n'.join(wrong)


def test_only_models_import_tensorflow():
  wrong = [
    str(file.relative_to(REPOSITORY))
    for room, file in _sources()
    if room != 'models' and any(module.split('.')[0] == 'tensorflow' for module in _imported_modules(file))
  ]
  assert not wrong


def test_searching_loads_no_tensorflow():
  code = (
    'import sys, delf_d2r.engine, delf_d2r.stages.search, delf_d2r.report.answers;'
    'sys.exit("tensorflow" in sys.modules)'
  )
  assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_kernels_know_arrays_not_files_and_protos():
  forbidden = {'protos', 'data', 'config'}
  for room, file in _sources():
    if LAYERS[room] in (1, 2):
      assert not forbidden & set(_rooms_imported(file)), file


def test_the_picture_shows_the_house_as_it_is():
  import layers_picture

  shown = layers_picture.PICTURE.read_text(encoding='utf-8')
  assert shown == f'{layers_picture.render()}\n', 'draw it anew: python tests/layers_picture.py'
