"""Files of aggregated descriptors: published bytes (docs/reference.md 1.1, 2.8, 2.9), and invalid files."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support import legacy_files

from delf_d2r.data.legacy import descriptor_files
from delf_d2r.errors import UserError
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.structures import AggregatedDescriptor

WORDS = np.array([3, 4], np.uint32)
ASMK = AggregatedDescriptor(WORDS, np.array([[-0.7, 0.7], [0.6, 0.8]], np.float32), 2)
STAR = AggregatedDescriptor(WORDS, np.array([[64], [192]], np.uint8), 2)
FILES = {
  '.asmk': (ASMK, legacy_files.pair(np.array([-0.7, 0.7, 0.6, 0.8], np.float32), WORDS)),
  '.asmk_star': (STAR, bytes.fromhex('0a0c0a030a01021a050a0340c001120b0a030a01021a040a020304')),
  '.vlad': (ASMK, legacy_files.datum(np.array([*[0] * 6, -0.7, 0.7, 0.6, 0.8], np.float32))),
}


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('regional', [False, True])
def test_bytes_there_and_back(tmp_path, name, regional):
  descriptor, data = FILES[name]
  kernel = Kernel(name[1:])
  assert descriptor_files.extension(kernel, regional=regional) == ('.r' if regional else '.') + name[1:]
  assert descriptor_files.encode(descriptor, kernel=kernel, num_words=5) == data
  path = tmp_path / f'x{descriptor_files.extension(kernel, regional=regional)}'
  path.write_bytes(data)
  found = descriptor_files.read(path, num_words=5, dimensions=2)
  assert_array_equal(found.visual_words, WORDS)
  assert_array_equal(found.values, descriptor.values)
  assert (found.visual_words.dtype, found.values.dtype) == (np.uint32, descriptor.values.dtype)


@pytest.mark.parametrize('kernel', list(Kernel))
def test_image_without_words(kernel):
  dtype, columns = (np.uint8, 2) if kernel is Kernel.ASMK_STAR else (np.float32, 12)
  empty = AggregatedDescriptor(np.zeros(0, np.uint32), np.zeros((0, columns), dtype), 12)
  data = descriptor_files.encode(empty, kernel=kernel, num_words=3)
  found = descriptor_files.decode(data, kernel=kernel, num_words=3, dimensions=12)
  assert found.values.shape == (0, columns)


def star(values, words):
  return legacy_files.pair(np.array(values, np.uint32), np.array(words, np.uint32))


@pytest.mark.parametrize(
  ('name', 'data', 'message'),
  [
    ('x.asmk_star', FILES['.asmk_star'][1][:-2], 'Error parsing|bad wire|without values|has'),
    ('x.asmk_star', FILES['.asmk'][1], 'expected vectors of uint32 and uint32, found float32'),
    ('x.asmk', FILES['.asmk_star'][1], 'expected vectors of float32 and uint32, found uint32'),
    ('x.asmk', FILES['.vlad'][1], 'not readable'),
    ('x.vlad', FILES['.asmk'][1], 'not readable'),
    (
      'x.vlad',
      legacy_files.datum(np.zeros(8, np.float32)),
      r'expected float32 \[5 \* 2\].* found float32 \(8,\)',
    ),
    ('x.vlad', legacy_files.datum(np.full(10, np.nan, np.float32)), 'not finite'),
    ('x.rasmk', legacy_files.pair(np.full(2, np.inf, np.float32), WORDS[:1]), 'not finite'),
    ('x.rasmk_star', star([1, 2, 3], [0, 1]), r'expected 1 values for each of 2 visual words .* found 3'),
    ('x.rasmk_star', star([1, 2], [4, 5]), 'must ascend below 5, the last is 5'),
    ('x.rasmk_star', star([1, 2], [3, 3]), 'must ascend below 5'),
    ('x.rasmk_star', star([1, 256], [3, 4]), 'expected bytes, found 256'),
    ('x.rasmk_star', legacy_files.boxes([(0, 0, 1, 1, 0.5)]), 'not readable'),
  ],
)
def test_what_is_no_such_file(tmp_path, name, data, message):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(UserError, match=r'x\.\w+: not readable as a \.\w+ file of this codebook') as error:
    descriptor_files.read(tmp_path / name, num_words=5, dimensions=2)
  error.match(message)
