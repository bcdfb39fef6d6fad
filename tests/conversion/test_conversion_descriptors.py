"""Conversion of aggregated files of all six kinds to an artefact that build_index takes, and back."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support import legacy_files

from delf_d2r import config as configs
from delf_d2r.conversion import descriptors, run
from delf_d2r.conversion.run import Options
from delf_d2r.data.artefacts import artefact_writer, codebook_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.errors import UserError
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.protos import aggregation_pb2
from delf_d2r.stages import build_index

SIZES = {'a.jpg': (20, 30), 'b.jpg': (20, 30), 'c.jpg': (20, 30)}
K, D = 6, 10
# Visual words by image.
WORDS = {'a': [0, 3, 5], 'b': [2], 'c': []}


def make(folder, extension):
  """Writes files of an extension by hand."""
  folder.mkdir()
  for seed, (name, words) in enumerate(WORDS.items()):
    values = legacy_files.unit(len(words), D, seed=seed)
    if extension.endswith('vlad'):
      dense = np.zeros((K, D), np.float32)
      dense[words] = values
      data = legacy_files.datum(dense.ravel())
    elif extension.endswith('asmk'):
      data = legacy_files.pair(values.ravel(), np.array(words, np.uint32))
    else:
      bits = np.packbits(values > 0, axis=1).ravel()
      data = legacy_files.pair(bits, np.array(words, np.uint32))
    (folder / f'{name}{extension}').write_bytes(data)


@pytest.fixture
def there(tmp_path):
  """Photos and a codebook of K words."""
  legacy_files.photos(tmp_path / 'photos', SIZES)
  config = configs.default('extraction', 'codebook')
  config.codebook.num_words = K
  with artefact_writer.writing(tmp_path / 'codebook', Plan('codebook', config, ())) as writer:
    codebook_files.save_centroids(legacy_files.unit(K, D, seed=7), tmp_path / 'codebook')
    writer.finish({'words': K})
  return tmp_path


def options(there, **more):
  return Options(images=str(there / 'photos'), codebook=str(there / 'codebook'), **more)


@pytest.mark.parametrize('extension', ['.vlad', '.rvlad', '.asmk', '.rasmk', '.asmk_star', '.rasmk_star'])
def test_bytes_there_and_back_and_an_index_of_them(there, extension):
  make(there / 'files', extension)
  run.run(there / 'files', there / 'out', options(there))
  made = Artefact.open(there / 'out', 'descriptors')
  config = made.config.aggregation
  assert aggregation_pb2.AggregationConfig.Kernel.Name(config.kernel) == Kernel(extension.lstrip('.r')).name
  regional = config.regions == aggregation_pb2.AggregationConfig.REGIONAL_AGGREGATION
  assert regional == extension.startswith('.r')
  found = [records.decode_descriptors(data) for data in made.records()]
  assert [image.name for image in found] == list(SIZES)
  for image, words in zip(found, WORDS.values(), strict=True):
    assert image.descriptors[0].visual_words.tolist() == words
    assert image.boxes.tolist() == [[0, 0, 1, 1]]
  run.run(there / 'out', there / 'back')
  for name in WORDS:
    file = f'{name}{extension}'
    assert (there / 'back' / file).read_bytes() == (there / 'files' / file).read_bytes()
  index = build_index.run(
    configs.default('aggregation'), made, Artefact.open(there / 'codebook', 'codebook'), there / 'index'
  )
  assert index.counts['postings'] == 4


def test_files_are_refused_with_their_name(there):
  make(there / 'files', '.asmk')
  make(there / 'more', '.vlad')
  (there / 'more' / 'a.vlad').rename(there / 'files' / 'a.vlad')
  with pytest.raises(UserError, match=r'has \.vlad files and \.asmk files; keep those of one'):
    run.run(there / 'files', there / 'out', options(there))
  (there / 'files' / 'a.vlad').unlink()
  (there / 'files' / 'b.asmk').write_bytes(legacy_files.pair(np.ones(D, np.float32), np.array([K])))
  with pytest.raises(UserError, match=r'b\.asmk: .*must ascend below 6, the last is 6'):
    run.run(there / 'files', there / 'out', options(there))
  with pytest.raises(UserError, match='this conversion needs --codebook'):
    run.run(there / 'files', there / 'out', Options(images=str(there / 'photos')))


def test_photos_without_a_file_are_left_out(there):
  make(there / 'files', '.asmk')
  (there / 'files' / 'b.asmk').unlink()
  run.run(there / 'files', there / 'out', options(there))
  assert Artefact.open(there / 'out', 'descriptors').counts['images'] == 2
  (error,) = artefact_writer.read_errors(Artefact.open(there / 'out', 'descriptors'))
  assert error['name'] == 'b.jpg'


def test_regional_search_has_no_such_files(there):
  make(there / 'files', '.asmk')
  run.run(there / 'files', there / 'out', options(there))
  made = Artefact.open(there / 'out', 'descriptors')
  made.config.aggregation.regions = aggregation_pb2.AggregationConfig.REGIONAL_SEARCH
  with pytest.raises(UserError, match='regions is REGIONAL_SEARCH'):
    descriptors.write(made, there / 'back')
  made.config.aggregation.MergeFrom(
    aggregation_pb2.AggregationConfig(regions='REGIONAL_AGGREGATION', region_masks=True)
  )
  with pytest.raises(UserError, match='region_masks is true'):
    descriptors.write(made, there / 'back')


def test_same_words_as_aggregated_here(there):
  """The vector of the DELF code in docs/reference.md 2.9: R-ASMK* of two regions."""
  data = legacy_files.pair(np.array([64, 192], np.uint32), np.array([3, 4], np.uint32))
  (there / 'files').mkdir()
  (there / 'files' / 'a.rasmk_star').write_bytes(data)
  config = configs.default('extraction', 'codebook')
  config.codebook.num_words = 5
  with artefact_writer.writing(there / 'small', Plan('codebook', config, ())) as writer:
    codebook_files.save_centroids(np.ones((5, 2)), there / 'small')
    writer.finish({'words': 5})
  run.run(
    there / 'files', there / 'out', Options(images=str(there / 'photos'), codebook=str(there / 'small'))
  )
  (only,) = (
    records.decode_descriptors(data) for data in Artefact.open(there / 'out', 'descriptors').records()
  )
  assert_array_equal(only.descriptors[0].values, [[64], [192]])
  assert_array_equal(only.descriptors[0].visual_words, [3, 4])
