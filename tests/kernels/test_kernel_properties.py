"""A kernel has properties for all that other packages need to know, so that none asks for its name."""

import ast
import pathlib

import numpy as np
import pytest

import delf_d2r
from delf_d2r.kernels.aggregation import Kernel, aggregate

PACKAGE = pathlib.Path(delf_d2r.__file__).parent


@pytest.mark.parametrize(
  'kernel, is_binary, is_selective, dtype, columns',
  [
    (Kernel.VLAD, False, False, np.float32, 20),
    (Kernel.ASMK, False, True, np.float32, 20),
    (Kernel.ASMK_STAR, True, True, np.uint8, 3),
  ],
)
def test_a_kernel_says_what_its_descriptors_are(kernel, is_binary, is_selective, dtype, columns):
  assert (kernel.is_binary, kernel.is_selective) == (is_binary, is_selective)
  assert (kernel.dtype, kernel.columns(20)) == (dtype, columns)
  features = np.ones((1, 20), np.float32)
  descriptor = aggregate(features, [[0]], 0 * features, kernel=kernel)
  assert (descriptor.is_binary, descriptor.values.dtype) == (is_binary, dtype)
  assert descriptor.values.shape == (1, columns)


def names_a_kernel(node):
  return (
    isinstance(node, ast.Attribute)
    and node.attr in Kernel.__members__
    and ast.unparse(node.value).endswith('Kernel')
  )


def compared_kernels(source):
  """Yields the lines that compare a kernel by its name: by `is`, `==`, `in`, a case or the key of a dict."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Compare):
      compared = [node.left, *node.comparators]
    elif isinstance(node, ast.MatchValue):
      compared = [node.value]
    elif isinstance(node, ast.Dict):
      compared = [key for key in node.keys if key is not None]
    else:
      continue
    if any(names_a_kernel(part) for whole in compared for part in ast.walk(whole)):
      yield node.lineno


def test_no_kernel_is_compared_by_name_outside_kernels():
  found = [
    f'{file.relative_to(PACKAGE)}:{line}'
    for file in PACKAGE.rglob('*.py')
    if file.relative_to(PACKAGE).parts[0] != 'kernels'
    for line in compared_kernels(file.read_text(encoding='utf-8'))
  ]
  assert not found


@pytest.mark.parametrize(
  'source',
  [
    'kernel is Kernel.VLAD',
    'x = 1 if kernel is not Kernel.ASMK_STAR else 2',
    'aggregation.Kernel.ASMK == kernel',
    'kernel in (Kernel.ASMK, Kernel.ASMK_STAR)',
    'match kernel:\n  case Kernel.ASMK: pass',
    '{Kernel.ASMK: 1}[kernel]',
  ],
)
def test_a_comparison_by_name_is_found(source):
  assert list(compared_kernels(source))


def test_a_choice_of_a_kernel_is_no_comparison():
  assert not list(compared_kernels('build(kernel=Kernel.ASMK_STAR)\nTABLE = {CONFIG: Kernel.VLAD}'))
