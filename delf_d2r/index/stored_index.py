"""A whole index on the disk: from `index.json` to the state of an `InvertedIndex`, and back."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from delf_d2r.index.directory import (
  CODEBOOK_VERSION,
  DENSE_VERSION,
  FORMAT,
  FULL_VERSION,
  MANIFEST,
  MASKS_VERSION,
  VERSION,
  Directory,
  IndexFormatError,
  Manifest,
  array_path,
  check_checksum,
  check_offsets,
  map_array,
  read_manifest,
  read_sequentially,
  segment_stem,
  stems,
)
from delf_d2r.index.images import ImageTable
from delf_d2r.index.index_state import NONE_REMOVED, AnySegment, Ids, IndexState
from delf_d2r.index.segments import SEGMENT_ENTRIES, Layout, ValueType, fits_narrow_columns
from delf_d2r.index.stored_segment import StoredSegment
from delf_d2r.index.updates import first_not_compact
from delf_d2r.kernels.aggregation import Kernel


def read(directory: str) -> tuple[IndexState, int]:
  """Opens an index: reads the manifest, checks the sizes of all files and maps the table of images.

  Returns:
    The state of the index, and the checksum of its manifest.

  Raises:
    IndexFormatError: a file is missing, not of its size, or of another version.
  """
  state, segments, checksum = _read(directory)
  return dataclasses.replace(state, segments=segments), checksum


def _read(directory: str) -> tuple[IndexState, tuple[StoredSegment, ...], int]:
  """Returns the state of an index without its segments, the segments, and the checksum of the manifest."""
  manifest, checksum = read_manifest(directory)
  try:
    kernel = Kernel[manifest['kernel']]
    num_words, dimensions, num_images, names_bytes = (
      _count(manifest, field) for field in ('num_words', 'dimensions', 'num_images', 'names_bytes')
    )
    version = manifest['version']
    has_type = version in (DENSE_VERSION, FULL_VERSION)
    value_type = ValueType[manifest['value_type']] if has_type else ValueType.FLOAT32
    has_masks, codebook = version == MASKS_VERSION, ''
    if version in (CODEBOOK_VERSION, FULL_VERSION):
      has_masks, codebook = manifest['region_masks'], manifest['codebook']
      if not (isinstance(has_masks, bool) and isinstance(codebook, str)):
        raise ValueError(f'region_masks {has_masks!r}, codebook {codebook!r}')
      if version == CODEBOOK_VERSION and not codebook:
        raise ValueError("codebook ''")
    is_wide = kernel.is_binary and fits_narrow_columns(dimensions)
    if version == FULL_VERSION:
      is_wide = is_wide and manifest['column_bits'] == 64
    layout = Layout(num_words, dimensions, kernel.is_binary, has_masks, value_type, codebook, is_wide)
    if version == FULL_VERSION and layout.is_binary and manifest['column_bits'] != layout.column_bits:
      raise ValueError(f'column_bits {manifest["column_bits"]!r}')
    segments = tuple(
      StoredSegment(
        directory,
        number,
        layout,
        _count(segment, 'entries', SEGMENT_ENTRIES),
        _count(segment, 'postings'),
        {name: _count(segment['arrays'], name) for name in layout.arrays(0, 0)},
      )
      for number, segment in enumerate(manifest['segments'])
    )
    removed_files = _removed_files(directory, manifest) if version == FULL_VERSION else {}
    num_entries = sum(segment.num_entries for segment in segments)
    num_entries -= sum(count for _, count in removed_files.values())
    types = ImageTable.array_types(num_images, names_bytes, num_entries, manifest['regional'])
    paths = {name: array_path(directory, name, _count(manifest['arrays'], name)) for name in types}
    is_full = all(segment.num_entries == SEGMENT_ENTRIES for segment in segments[:-1])
    if version != FULL_VERSION and not is_full:
      raise ValueError('a segment before the last is not full')
    if not manifest['regional'] and num_images != num_entries:
      raise ValueError(f'{num_images} images, {num_entries} entries')
    if manifest['regional'] and layout.has_masks:
      raise ValueError('an entry for each region, and region masks')
    if layout.is_dense != (version == DENSE_VERSION) and version != FULL_VERSION:
      raise ValueError(f'{value_type.name} values')
    if layout.is_dense and kernel.is_selective:
      raise ValueError(f'{value_type.name} values of {kernel.name}')
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise IndexFormatError(
      f'{os.path.join(directory, MANIFEST)}: not a manifest of an index ({error!r}); build the index again'
    ) from error
  for segment in segments:
    segment.check_sizes()
  images = ImageTable.from_arrays({name: map_array(paths[name], *types[name]) for name in types})
  removed = [
    _read_removed(*removed_files[segment.number], segment.num_entries)
    if segment.number in removed_files
    else NONE_REMOVED
    for segment in segments
  ]
  state = IndexState(kernel, layout, images, removed=tuple(removed) if removed_files else ())
  return state, segments, checksum


def _removed_files(directory: str, manifest: Manifest) -> dict[int, tuple[str, int]]:
  """Returns the paths of the ids of removed rows, and their counts, by the number of the segment."""
  return {
    number: (
      array_path(directory, segment_stem(number, 'removed'), _count(segment['arrays'], 'removed')),
      _count(segment, 'removed', segment['entries']),
    )
    for number, segment in enumerate(manifest['segments'])
    if 'removed' in segment
  }


def _read_removed(path: str, count: int, rows: int) -> Ids:
  """Returns the ids of removed rows; raises IndexFormatError unless they ascend below `rows`."""
  removed = map_array(path, np.dtype('<u2'), (count,))
  if not (removed[1:] > removed[:-1]).all() or removed.max(initial=0) >= max(rows, 1):
    raise IndexFormatError(
      f'{path}: expected ascending ids below {rows}, found up to {removed.max(initial=0)} with'
      f' {int((removed[1:] <= removed[:-1]).sum())} descents; build the index again'
    )
  return removed


def write(directory: Directory, state: IndexState) -> tuple[IndexState, int]:
  """Writes the files that the directory lacks and makes the state that of the index there.

  Returns:
    The state with stored segments, and the checksum of the manifest.
  """
  layout, images = state.layout, state.images
  stored = [store(directory, number, layout, segment) for number, segment in enumerate(state.segments)]
  segments = [segment.manifest() for segment in stored]
  for number, (own, (_, removed)) in enumerate(zip(segments, state.parts, strict=True)):
    if len(removed):
      written = directory.write(segment_stem(number, 'removed'), removed)
      own |= {'removed': len(removed), 'arrays': own['arrays'] | {'removed': written}}
  checksums = {name: directory.write(name, array) for name, array in images.arrays.items()}
  special: dict[str, Any] = {}
  version = MASKS_VERSION if layout.has_masks else VERSION
  is_narrow = layout.is_binary and layout.column_bits == 32
  if is_narrow or first_not_compact(state) < len(stored):
    version = FULL_VERSION
    special = {
      'codebook': layout.codebook,
      'region_masks': layout.has_masks,
      'value_type': layout.value_type.name,
    }
    if layout.is_binary:
      special['column_bits'] = layout.column_bits
  elif layout.is_dense:
    version, special = DENSE_VERSION, {'value_type': layout.value_type.name}
  elif layout.codebook:
    version, special = CODEBOOK_VERSION, {'codebook': layout.codebook, 'region_masks': layout.has_masks}
  checksum = directory.commit(
    special
    | {
      'format': FORMAT,
      'version': version,
      'kernel': state.kernel.name,
      'num_words': layout.num_words,
      'dimensions': layout.dimensions,
      'num_images': len(images.names),
      'names_bytes': len(images.names.utf8),
      'regional': images.is_regional,
      'arrays': checksums,
      'segments': segments,
    }
  )
  return dataclasses.replace(state, segments=tuple(stored)), checksum


def store(directory: Directory, number: int, layout: Layout, segment: AnySegment) -> StoredSegment:
  """Returns the segment as number `number` of the directory, written unless it is stored there already."""
  if isinstance(segment, StoredSegment) and (segment.directory, segment.number) == (directory.path, number):
    segment.check_sizes()
    return segment
  return StoredSegment.write(directory, number, layout, segment.load())


def verify(directory: str) -> None:
  """Reads every byte of an index: checksums, and arrays against one another.

  Raises:
    IndexFormatError: naming the damaged file.
  """
  state, segments, _ = _read(directory)
  manifest, _ = read_manifest(directory)
  for name, checksum in manifest['arrays'].items():
    check_checksum(array_path(directory, name, checksum), checksum)
  for number, segment in enumerate(manifest['segments']):
    if 'removed' in segment['arrays']:
      checksum = segment['arrays']['removed']
      check_checksum(array_path(directory, segment_stem(number, 'removed'), checksum), checksum)
  for segment in segments:
    segment.verify()
  names = state.images.names
  check_offsets(names.offsets, len(names.utf8), f'{directory}: names_offsets')
  check_entry_offsets(state.images, directory)


def preload(directory: str, report: Callable[[int, int], None]) -> int:
  """Reads every file once, so that it is in memory; returns the bytes.

  Args:
    directory: of the index.
    report: called with the bytes read so far and in total.

  Raises:
    IndexFormatError: a file is missing or cannot be read.
  """
  read(directory)  # raises if a file is missing
  manifest, _ = read_manifest(directory)
  paths = [array_path(directory, stem, checksum) for stem, checksum in stems(manifest)]
  total, done = sum(map(os.path.getsize, paths)), 0
  for count in read_sequentially(paths):
    done += count
    report(done, total)
  return done


def check_entry_offsets(images: ImageTable, directory: str) -> None:
  """Raises IndexFormatError unless the offsets of a regional index assign every entry to an image."""
  if images.entry_offsets is not None:
    check_offsets(images.entry_offsets, images.num_entries, f'{directory}: entry_offsets')


def _count(fields: dict[str, Any], name: str, most: int = 1 << 48) -> int:
  """Returns the integer of a field; raises ValueError unless it is from 0 to `most`."""
  value = fields[name]
  if type(value) is not int or not 0 <= value <= most:
    raise ValueError(f'{name}: expected an integer from 0 to {most}, found {value!r}')
  return value
