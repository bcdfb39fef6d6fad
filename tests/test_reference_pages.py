"""The API reference is built from the docstrings, whole and without a warning."""

import os
import pathlib
import subprocess
import sys

import pytest

import delf_d2r

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

pytest.importorskip('pdoc', reason="pdoc is not installed: pip install 'delf_d2r[docs]'")


def build(folder, *package, **environment):
  return subprocess.run(
    [sys.executable, str(REPOSITORY / 'tests' / 'support' / 'reference_pages.py'), str(folder), *package],
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_every_module_has_its_page(tmp_path):
  done = build(tmp_path)
  assert done.returncode == 0, done.stderr
  modules = {
    '/'.join(file.relative_to(REPOSITORY).with_suffix('').parts).removesuffix('/__init__')
    for file in (REPOSITORY / 'delf_d2r').rglob('*.py')
    if 'protos' not in file.parts
  }
  pages = {
    str(file.relative_to(tmp_path).with_suffix('')) for file in (tmp_path / 'delf_d2r').rglob('*.html')
  }
  assert modules - pages == {'delf_d2r'}  # It is the page beside the folder of that name.
  assert (tmp_path / 'delf_d2r.html').is_file()
  # The page of the package documents the public names, although they are imported lazily.
  surface = (tmp_path / 'delf_d2r.html').read_text(encoding='utf-8')
  for name in delf_d2r.__all__:
    assert name == '__version__' or f'id="{name}"' in surface, name
  # Arguments are a list, not a continuous paragraph.
  assert '<h6 id="arguments">' in (tmp_path / 'delf_d2r' / 'engine' / 'attribution.html').read_text(
    encoding='utf-8'
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'code, warning',
  [
    ('import no_such_module', 'Error importing broken.inner'),
    ("__all__ = ['absent']", "Found 'absent' in broken.inner.__all__, but it does not resolve"),
    ("def f(x: 'NoSuchType'):\n  pass", 'Error parsing type annotation'),
  ],
)
def test_a_warning_stops_it(tmp_path, code, warning):
  (tmp_path / 'broken').mkdir()
  (tmp_path / 'broken' / '__init__.py').write_text('"""Broken."""\n')
  (tmp_path / 'broken' / 'inner.py').write_text(f'{code}\n')
  done = build(tmp_path / 'pages', 'broken', PYTHONPATH=str(tmp_path))
  assert done.returncode == 1
  assert warning in done.stderr, done.stderr
