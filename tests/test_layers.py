"""The layers of the architecture: a package imports only packages that come before it in the list."""

import ast
import pathlib
import subprocess
import sys

import delf_d2r

PACKAGE = pathlib.Path(delf_d2r.__file__).parent
REPOSITORY = PACKAGE.parent
# Lowest first. `tools` are the commands, `__init__` is the public surface, which imports lazily. A module may
# have a layer of its own: extractors/registry.py is the interface of the extractors and finds them on demand.
LAYERS = (
  'structures',
  'errors',
  'text_table',
  'version',
  'protos',
  'extractors.registry',
  'config',
  'kernels',
  'geometry',
  'runtime',
  'index',
  'codebook',
  'data',
  'aggregator',
  'verifier',
  'fuser',
  'evaluation',
  'sharding',
  'models',
  'extractors',
  'engine',
  'doctor',
  'stages',
  'distributed',
  'conversion',
  'report',
  'planning',
  'serving',
  'experiments',
  'common_flags',
  'command_line',
  'tools',
)


def layer_of(module):
  """Returns the layer of a dotted name below delf_d2r: the longest beginning of it that is a layer."""
  parts = module.split('.')
  beginnings = ('.'.join(parts[:length]) for length in range(len(parts), 0, -1))
  return next((name for name in beginnings if name in LAYERS), parts[0])


def sources():
  """Yields (layer, file) of every module of the library and of every command."""
  for file in PACKAGE.rglob('*.py'):
    layer = layer_of('.'.join(file.relative_to(PACKAGE).with_suffix('').parts))
    if layer not in ('__init__', 'protos'):
      yield layer, file
  for file in (REPOSITORY / 'tools').glob('*.py'):
    yield 'tools', file


def _module_level(tree):
  """Yields the statements that run when the module is imported."""
  for node in ast.iter_child_nodes(tree):
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
      yield node
      yield from _module_level(node)


def _imported_modules(nodes):
  for node in nodes:
    if isinstance(node, ast.ImportFrom) and node.module:
      yield from (f'{node.module}.{alias.name}' for alias in node.names)
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


def packages_imported(file):
  """Yields the layers of delf_d2r that a module imports anywhere, inside functions too."""
  for module in _imported_modules(ast.walk(ast.parse(file.read_text(encoding='utf-8')))):
    package, _, inner = module.partition('.')
    if package == 'delf_d2r' and inner:
      yield layer_of(inner)


def test_every_package_has_its_layer():
  assert {package for package, _ in sources()} <= set(LAYERS)


def test_packages_import_only_lower_packages():
  wrong = [
    f'{file.relative_to(REPOSITORY)} imports {other}, which is not below {package}'
    for package, file in sources()
    for other in packages_imported(file)
    if other != package and LAYERS.index(other) >= LAYERS.index(package)
  ]
  assert not wrong, '\n'.join(wrong)


def test_only_models_import_tensorflow():
  heavy = {'tensorflow', 'keras', 'tf_keras', 'tensorflow_hub', 'official'}
  wrong = [
    str(file.relative_to(REPOSITORY))
    for package, file in sources()
    if package != 'models'
    for module in _imported_modules(_module_level(ast.parse(file.read_text(encoding='utf-8'))))
    if module.split('.')[0] in heavy
  ]
  assert not wrong


def test_searching_loads_no_tensorflow():
  code = (
    'import sys, delf_d2r.engine, delf_d2r.stages.search_index, delf_d2r.report.answers;'
    'sys.exit("tensorflow" in sys.modules)'
  )
  assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_kernels_know_arrays_not_files_and_protos():
  forbidden = {'protos', 'data', 'config'}
  for package, file in sources():
    if package in ('kernels', 'geometry', 'codebook'):
      assert not forbidden & set(packages_imported(file)), file
