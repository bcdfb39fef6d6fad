"""TFRecord files of given records."""

import pathlib
from collections.abc import Iterable

from delf_d2r.data.artefacts import tfrecord


def write(path: pathlib.Path, records: Iterable[bytes]) -> int:
  """Writes a file of records and returns how many it holds."""
  count = 0
  with open(path, 'wb') as file:
    for data in records:
      tfrecord.write_record(file, data)
      count += 1
  return count
