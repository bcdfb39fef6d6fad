"""CONTRIBUTING.md tells where things are; this holds it to the tree."""

import pathlib
import re

import pytest

from delf_d2r.extractors import registry

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / 'CONTRIBUTING.md').read_text(encoding='utf-8')
PATHS = sorted(
  path
  for path in set(re.findall(r'`((?:[\w.-]+/)+[\w.]*)`', TEXT))
  if not path.endswith('NAME.py') and path != 'assets/'
)
# Besides the kernels themselves: the map from the config, and defaults of made descriptors.
KERNEL_PLACES = {
  'aggregator.py',
  'planning/synthetic_descriptors.py',
  'stages/shared/training_validation.py',
}


@pytest.mark.parametrize('path', PATHS)
def test_every_place_exists(path):
  assert (REPOSITORY / path).exists()


def test_the_table_has_all_questions():
  assert len(PATHS) > 30
  for question in ('an extractor', 'a kernel', 'a config field', 'a command', 'a page', 'average precision'):
    assert question in TEXT


def test_each_extractor_is_named_in_its_own_file_only():
  names = [record.name for record in registry.records()]
  files = {
    file: file.read_text(encoding='utf-8') for file in (REPOSITORY / 'delf_d2r/extractors').glob('*.py')
  }
  for name in names:
    holders = [file.name for file, text in files.items() if re.search(rf'extractor=\w+\.{name}\b', text)]
    assert len(holders) == 1, f'{name} is registered in {holders}'
  compared = [
    str(file.relative_to(REPOSITORY))
    for file in (REPOSITORY / 'delf_d2r').rglob('*.py')
    if re.search(
      rf'\.extractor (?:==|!=|in|not in|is) .*({"|".join(names)})', file.read_text(encoding='utf-8')
    )
  ]
  assert not compared


def test_kernels_are_compared_by_name_in_their_own_package_only():
  package = REPOSITORY / 'delf_d2r'
  named = {
    file.relative_to(package).as_posix()
    for file in package.rglob('*.py')
    if 'protos' not in file.parts
    and re.search(r'(?<!Aggregation\.)\bKernel\.(VLAD|ASMK)', file.read_text('utf-8'))
  }
  assert {place for place in named if not place.startswith('kernels/')} <= KERNEL_PLACES
