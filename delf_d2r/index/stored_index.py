"""A whole index on the disk: from `index.json` to the state of an `InvertedIndex`, and back."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from delf_d2r.index.directory import (
  CODEBOOK_VERSION,
  DENSE_VERSION,
  FORMAT,
  MANIFEST,
  MASKS_VERSION,
  VERSION,
  Directory,
  IndexFormatError,
  array_path,
  check_checksum,
  check_offsets,
  map_array,
  read_manifest,
  read_sequentially,
  stems,
)
from delf_d2r.index.images import ImageTable
from delf_d2r.index.index_state import AnySegment, IndexState
from delf_d2r.index.segments import SEGMENT_ENTRIES, Layout, ValueType
from delf_d2r.index.stored_segment import StoredSegment
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
    value_type = ValueType[manifest['value_type']] if version == DENSE_VERSION else ValueType.FLOAT32
    has_masks, codebook = version == MASKS_VERSION, ''
    if version == CODEBOOK_VERSION:
      has_masks, codebook = manifest['region_masks'], manifest['codebook']
      if not (isinstance(has_masks, bool) and isinstance(codebook, str) and codebook):
        raise ValueError(f'region_masks {has_masks!r}, codebook {codebook!r}')
    layout = Layout(num_words, dimensions, kernel.is_binary, has_masks, value_type, codebook)
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
    num_entries = sum(segment.num_entries for segment in segments)
    types = ImageTable.array_types(num_images, names_bytes, num_entries, manifest['regional'])
    paths = {name: array_path(directory, name, _count(manifest['arrays'], name)) for name in types}
    if any(segment.num_entries != SEGMENT_ENTRIES for segment in segments[:-1]):
      raise ValueError('a segment before the last is not full')
    if not manifest['regional'] and num_images != num_entries:
      raise ValueError(f'{num_images} images, {num_entries} entries')
    if manifest['regional'] and layout.has_masks:
      raise ValueError('an entry for each region, and region masks')
    if version == DENSE_VERSION and (kernel.is_selective or not layout.is_dense):
      raise ValueError(f'{value_type.name} values of {kernel.name}')
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise IndexFormatError(
      f'{os.path.join(directory, MANIFEST)}: not a manifest of an index ({error!r}); build the index again'
    ) from error
  for segment in segments:
    segment.check_sizes()
  images = ImageTable.from_arrays({name: map_array(paths[name], *types[name]) for name in types})
  return IndexState(kernel, layout, images), segments, checksum


def write(directory: Directory, state: IndexState) -> tuple[IndexState, int]:
  """Writes the files that the directory lacks and makes the state that of the index there.

  Returns:
    The state with stored segments, and the checksum of the manifest.
  """
  layout, images = state.layout, state.images
  stored = [store(directory, number, layout, segment) for number, segment in enumerate(state.segments)]
  checksums = {name: directory.write(name, array) for name, array in images.arrays.items()}
  special: dict[str, Any] = {}
  version = MASKS_VERSION if layout.has_masks else VERSION
  if layout.is_dense:
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
      'segments': [segment.manifest() for segment in stored],
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
