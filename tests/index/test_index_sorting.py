"""Segments alone: the counting sort against a plain one, counts of words, packing, postings in blocks."""

import itertools

import numpy as np
import pytest

from delf_d2r.index import segments, sorting
from delf_d2r.index.segments import Layout, Postings
from delf_d2r.kernels.compiled import HAVE_NUMBA

PATHS = [False, True] if HAVE_NUMBA else [False]
NUM_WORDS, ENTRIES = 9, 7
BINARY, FLOAT = Layout(NUM_WORDS, 70, True), Layout(NUM_WORDS, 3, False)


@pytest.fixture(params=PATHS, ids=['NumPy', 'compiled'][: len(PATHS)])
def path(request, monkeypatch):
  monkeypatch.setattr(sorting, 'HAVE_NUMBA', request.param)


def random_postings(layout, seed=0):
  """Returns some words of each entry: as a list of postings, and as blocks of 1 to 9 postings."""
  rng = np.random.default_rng(seed)
  chosen = [np.sort(rng.choice(layout.num_words, rng.integers(0, 7), replace=False)) for _ in range(ENTRIES)]
  words = np.concatenate(chosen).astype(np.uint32)
  ids = np.repeat(np.arange(ENTRIES, dtype=np.uint16), [len(own) for own in chosen])
  rows = rng.integers(0, 2**60, (len(words), layout.columns), np.uint64).astype(layout.dtype)
  cuts = np.cumsum(rng.integers(1, 9, len(words)))
  blocks = [Postings(*parts) for parts in zip(*(np.split(a, cuts) for a in (words, ids, rows)), strict=True)]
  return words, ids, rows, [block for block in blocks if len(block.words)]


def sort(layout, seed=0, **options):
  words, ids, rows, blocks = random_postings(layout, seed)
  counts = np.bincount(ids, minlength=ENTRIES)
  sizes = np.bincount(words, minlength=layout.num_words)
  return sorting.sort_postings(blocks, sizes, counts, layout, **options), words, ids, rows


@pytest.mark.parametrize('layout', [BINARY, FLOAT])
@pytest.mark.parametrize('seed', range(3))
def test_postings_come_by_word_and_then_by_entry(path, layout, seed):
  segment, words, ids, rows = sort(layout, seed)
  order = np.lexsort((ids, words))
  np.testing.assert_array_equal(segment.entry_ids, ids[order])
  values = segment.values.T if layout.is_binary else segment.values
  np.testing.assert_array_equal(values, rows[order])
  for word in range(NUM_WORDS):
    assert segment.offsets[word + 1] - segment.offsets[word] == (words == word).sum()
  assert segment.offsets[0] == 0
  np.testing.assert_array_equal(segment.word_counts, np.bincount(ids, minlength=ENTRIES))
  assert (segment.num_entries, segment.num_postings) == (ENTRIES, len(words))
  for name, (dtype, shape) in layout.arrays(ENTRIES, len(words)).items():
    assert (segment.arrays[name].dtype, segment.arrays[name].shape) == (dtype, shape)
    assert not segment.arrays[name].flags.writeable
  assert segment.nbytes == len(words) * layout.posting_bytes + 4 * (NUM_WORDS + 1) + 4 * ENTRIES


def test_more_words_than_sixteen_bits_can_count(path):
  layout = Layout((1 << 16) + 2, 3, False)
  words = np.array([1 << 16, 0, (1 << 16) + 1, 65535], np.uint32)
  block = Postings(words, np.arange(4, dtype=np.uint16), np.arange(12, dtype=np.float32).reshape(4, 3))
  sizes = np.bincount(words, minlength=layout.num_words)
  segment = sorting.sort_postings([block], sizes, np.ones(4), layout)
  assert segment.entry_ids.tolist() == [1, 3, 0, 2]
  assert segment.values[:, 0].tolist() == [3, 9, 0, 6]


def test_large_arrays_come_from_the_allocator(path):
  asked = []

  def allocate(name, dtype, shape):
    asked.append(name)
    return np.empty(shape, dtype)

  sort(FLOAT, allocate=allocate)
  assert asked == ['entry_ids', 'values']


@pytest.mark.parametrize('postings, fits', [(5, True), (6, False)])
def test_as_many_postings_as_offsets_can_count(monkeypatch, postings, fits):
  monkeypatch.setattr(sorting, 'MAX_POSTINGS', 5)
  block = Postings(
    np.zeros(postings, np.uint32), np.arange(postings).astype('u2'), np.ones((postings, 3), 'f4')
  )
  sizes = np.array([postings, *[0] * (NUM_WORDS - 1)])
  if fits:
    assert sorting.sort_postings([block], sizes, np.ones(postings), FLOAT).num_postings == 5
  else:
    with pytest.raises(ValueError, match='at most 5 postings, found 6'):
      sorting.sort_postings([block], sizes, np.ones(postings), FLOAT)
  monkeypatch.undo()
  assert sorting.MAX_POSTINGS == 4_294_967_295


@pytest.mark.parametrize(
  'words, stops, ascends',
  [
    ([], [], True),
    ([], [0, 0], True),
    ([0, 3, 8], [3], True),
    ([0, 3, 0, 3], [2, 4], True),
    ([5, 5], [1, 2], True),
    ([5, 2], [0, 1, 1, 2], True),
    ([3, 3], [2], False),
    ([3, 2], [2], False),
    ([0, 1, 5, 4], [2, 4], False),
    ([-1, 2], [2], False),
    ([2, -1], [1, 2], False),
    ([2, 9], [2], False),
    ([9, 2], [1, 2], False),
  ],
)
def test_words_of_each_descriptor_ascend_below_their_number(path, words, stops, ascends):
  sizes = np.full(NUM_WORDS, 10)
  assert sorting.count_ascending(np.array(words, np.int32), np.array(stops, np.int64), sizes) == ascends
  if ascends:
    expected = 10 + np.bincount(np.array(words, np.int64), minlength=NUM_WORDS)
    assert sizes.tolist() == expected.tolist()


def test_one_word_alone(path):
  sizes = np.zeros(1, np.int64)
  assert sorting.count_ascending(np.array([0, 0], np.int32), np.array([1, 2]), sizes)
  assert sizes.tolist() == [2]


@pytest.mark.parametrize('layout', [BINARY, FLOAT])
@pytest.mark.parametrize('most', [1, 4, 1000])
def test_a_segment_yields_its_postings_in_blocks(layout, most, monkeypatch):
  monkeypatch.setattr(segments, 'BLOCK_BYTES', most * layout.posting_bytes)
  assert layout.block_postings == most
  segment, words, ids, rows = sort(layout)
  order = np.lexsort((ids, words))
  blocks = list(segment.postings(layout))
  assert [len(block.words) for block in blocks[:-1]] == [most] * (len(blocks) - 1)
  for name, expected in (('words', words), ('entry_ids', ids), ('rows', rows)):
    np.testing.assert_array_equal(np.concatenate([getattr(b, name) for b in blocks]), expected[order])
  # Entries 2 and 5 alone, as 0 and 1.
  new_ids = np.full(segments.SEGMENT_ENTRIES, -1, np.int32)
  new_ids[[2, 5]] = [0, 1]
  kept = list(segment.postings(layout, new_ids))
  is_kept = np.isin(ids[order], [2, 5])
  np.testing.assert_array_equal(np.concatenate([b.words for b in kept]), words[order][is_kept])
  np.testing.assert_array_equal(np.concatenate([b.entry_ids for b in kept]), ids[order][is_kept] == 5)
  np.testing.assert_array_equal(np.concatenate([b.rows for b in kept]), rows[order][is_kept])
  assert {b.entry_ids.dtype for b in kept} == {np.dtype(np.uint16)}


def test_a_segment_has_as_many_entries_as_ids_of_sixteen_bits_tell_apart():
  assert segments.SEGMENT_ENTRIES == 65_536


def test_a_block_has_a_posting_however_large(monkeypatch):
  monkeypatch.setattr(segments, 'BLOCK_BYTES', 1)
  assert FLOAT.block_postings == 1


@pytest.mark.parametrize(
  'dimensions, columns, bits',
  [
    (1, 1, 32),
    (32, 1, 32),
    (33, 1, 64),
    (64, 1, 64),
    (65, 3, 32),
    (96, 3, 32),
    (97, 2, 64),
    (128, 2, 64),
    (129, 3, 64),
    (160, 3, 64),
  ],
)
def test_codes_take_columns_of_32_or_64_bits(dimensions, columns, bits):
  layout = Layout(NUM_WORDS, dimensions, True)
  assert (layout.columns, layout.column_bits, layout.dtype.itemsize * 8) == (columns, bits, bits)
  if bits == 32:
    wide = Layout(NUM_WORDS, dimensions, True, is_wide=True)
    assert (wide.columns, wide.dtype) == (-(-dimensions // 64), np.dtype('<u8'))
  else:
    with pytest.raises(ValueError, match=f'codes of {dimensions} bits take columns of 64 bits anyway'):
      Layout(NUM_WORDS, dimensions, True, is_wide=True)
  assert Layout(NUM_WORDS, dimensions, False).columns == dimensions


@pytest.mark.parametrize('dimensions', [5, 32, 70, 96])
def test_codes_move_to_columns_of_another_width(dimensions):
  narrow, wide = (Layout(NUM_WORDS, dimensions, True, is_wide=is_wide) for is_wide in (False, True))
  codes = np.random.default_rng(0).integers(0, 256, (7, -(-dimensions // 8)), np.uint8)
  for source, target in itertools.product((narrow, wide), repeat=2):
    np.testing.assert_array_equal(target.repack(source.pack([codes])), target.pack([codes]))


def test_one_descriptor_is_packed_alone():
  np.testing.assert_array_equal(FLOAT.pack([np.ones((2, 3), np.float32)]), np.ones((2, 3)))


def test_codes_are_padded_with_zeros():
  codes = [np.full((2, 9), 255, np.uint8), np.full((1, 9), 1, np.uint8)]
  packed = BINARY.pack(codes)
  assert (packed.shape, packed.dtype) == ((3, 3), np.dtype('<u4'))
  assert packed.view(np.uint8).reshape(3, 12).tolist() == [
    *[[255] * 9 + [0] * 3] * 2,
    [1] * 9 + [0] * 3,
  ]
  floats = [np.arange(3, dtype=np.float32)[None], np.zeros((0, 3), np.float32)]
  np.testing.assert_array_equal(FLOAT.pack(floats), [[0, 1, 2]])
