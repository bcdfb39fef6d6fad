"""The code does not use pickles, eval, shells, or archives that unpack files."""

import ast
import pathlib

import pytest
from support import dependencies_page

import delf_d2r

PACKAGE = pathlib.Path(delf_d2r.__file__).parent
REPOSITORY = PACKAGE.parent
SOURCES = [
  path for path in (*PACKAGE.rglob('*.py'), *(REPOSITORY / 'tools').glob('*.py')) if '_pb2' not in path.name
]
# Unpicklers with a list of admitted globals; their tests try to circumvent it.
RESTRICTED = {'delf_d2r/data/foreign/restricted_pickle.py', 'delf_d2r/data/foreign/torch_checkpoint.py'}
FORBIDDEN_CALLS = {
  '__import__',
  'compile',
  'eval',
  'exec',
  'os.popen',
  'os.system',
  'pickle.load',
  'pickle.loads',
  'shutil.unpack_archive',
  'torch.load',
  'yaml.load',
}
FORBIDDEN_MODULES = {'cloudpickle', 'dill', 'joblib', 'marshal', 'pickle', 'pty', 'shelve', 'tarfile', 'yaml'}
FORBIDDEN_METHODS = {'extractall'}


def name_of(node):
  """Returns the name `a.b.c` of the function of a call; '' if it has no such name."""
  if isinstance(node, ast.Name):
    return node.id
  if isinstance(node, ast.Attribute):
    before = name_of(node.value)
    return f'{before}.{node.attr}' if before else node.attr
  return ''


def objections(source):
  """Yields the forbidden statements of a source with their lines."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import | ast.ImportFrom):
      is_from = isinstance(node, ast.ImportFrom)
      for name in [node.module or ''] if is_from else [alias.name for alias in node.names]:
        if name.split('.')[0] in FORBIDDEN_MODULES:
          yield f'{node.lineno}: imports {name}'
    elif isinstance(node, ast.Call):
      name = name_of(node.func)
      given = {keyword.arg: keyword.value for keyword in node.keywords}
      if name in FORBIDDEN_CALLS or name.rpartition('.')[2] in FORBIDDEN_METHODS:
        yield f'{node.lineno}: calls {name}'
      if any(
        isinstance(given.get(key), ast.Constant) and given[key].value for key in ('shell', 'allow_pickle')
      ):
        yield f'{node.lineno}: calls {name} with shell or allow_pickle'
      if name in ('np.load', 'np.save') and 'allow_pickle' not in given:
        yield f'{node.lineno}: calls {name} without allow_pickle=False'


def test_no_source_runs_what_it_reads():
  wrong = []
  for path in SOURCES:
    name = path.relative_to(REPOSITORY).as_posix()
    for objection in objections(path.read_text(encoding='utf-8')):
      if not (name in RESTRICTED and objection.endswith('imports pickle')):
        wrong.append(f'{name}:{objection}')
  assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize(
  'source',
  [
    'import pickle',
    'from joblib import load',
    'eval(text)',
    'os.system(command)',
    'subprocess.run(command, shell=True)',
    'np.load(path, allow_pickle=True)',
    'np.load(path)',
    'zipfile.ZipFile(path).extractall(folder)',
  ],
)
def test_the_guard_objects(source):
  assert list(objections(source))


def test_restricted_unpicklers_are_the_only_ones():
  with_pickle = {
    path.relative_to(REPOSITORY).as_posix()
    for path in SOURCES
    if any('imports pickle' in objection for objection in objections(path.read_text(encoding='utf-8')))
  }
  assert with_pickle == RESTRICTED
  for name in RESTRICTED:
    source = (REPOSITORY / name).read_text(encoding='utf-8')
    assert 'def find_class' in source
    assert 'super().find_class' not in source


def test_licences_of_all_dependencies_are_listed():
  text = dependencies_page.PAGE.read_text(encoding='utf-8')
  every_installation, extras = text.split('\n## ')[1:3]
  wanted = dependencies_page.requirements()
  for name in wanted['']:
    row = f'| {name} | {dependencies_page.licence(name)} |'
    assert row in every_installation, f'write it again: python tests/support/dependencies_page.py ({row})'
  for extra in wanted.keys() - {''}:
    for name in wanted[extra]:
      assert f'| {extra} | {name} | ' in extras, 'write it again: python tests/support/dependencies_page.py'
