"""`index.json`, the manifest of an index on the disk: sizes, kernel and the checksums that name its files."""

import json
import os
from collections.abc import Iterator

import google_crc32c

from delf_d2r.index.array_files import REMEDY, IndexFormatError

MANIFEST = 'index.json'
FORMAT = 'delf_d2r inverted index'
VERSION = 1


def stems(manifest: dict) -> Iterator[tuple[str, int]]:
  """File stem and checksum of every array that a manifest names."""
  yield from manifest['arrays'].items()
  for number, segment in enumerate(manifest['segments']):
    for name, crc in segment['arrays'].items():
      yield segment_stem(number, name), crc


def segment_stem(number: int, name: str) -> str:
  """What the file of an array of a segment is called, before its checksum."""
  return f'segment-{number:05d}-{name}'


def encode_manifest(manifest: dict) -> tuple[bytes, int]:
  """The manifest as JSON with its own checksum, and that checksum."""
  checksum = google_crc32c.value(json.dumps(manifest, sort_keys=True).encode())
  return json.dumps({**manifest, 'checksum': checksum}, indent=1, sort_keys=True).encode(), checksum


def read_manifest(directory) -> tuple[dict, int]:
  """The manifest of an index, checked against its checksum, and that checksum."""
  path = os.path.join(directory, MANIFEST)
  try:
    with open(path, 'rb') as file:
      manifest = json.load(file)
    checksum = manifest.pop('checksum')
    intact = google_crc32c.value(json.dumps(manifest, sort_keys=True).encode()) == checksum
  except OSError as error:
    raise IndexFormatError(f'{path}: {error.strerror}; no index was saved here, build one') from error
  except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
    raise IndexFormatError(f'{path}: not a manifest of an index ({error!r}); {REMEDY}') from error
  for field, expected in (('format', FORMAT), ('version', VERSION)):
    if manifest.get(field) != expected:
      raise IndexFormatError(
        f'{path}: {field}: expected {expected!r}, found {manifest.get(field)!r};'
        ' use the release of delf_d2r that wrote it, or build the index again'
      )
  if not intact:
    raise IndexFormatError(f'{path}: the content does not have its checksum {checksum!r}; {REMEDY}')
  return manifest, checksum
