"""The table that stands in an output already: set aside before numbers are lost to rows that fail now."""

import dataclasses
import itertools
import pathlib
from collections.abc import Collection, Mapping

from absl import logging

from delf_d2r.data import files
from delf_d2r.experiments import reproduction_table
from delf_d2r.protos import table_pb2


@dataclasses.dataclass(frozen=True)
class FormerTable:
  """A table as it stood before this command.

  Attributes:
    measured: names of its rows with numbers.
    contents: of its files.
  """

  measured: Collection[str] = ()
  contents: Mapping[pathlib.Path, bytes] = dataclasses.field(default_factory=dict)

  @classmethod
  def read(cls, table: table_pb2.TableConfig, output: pathlib.Path) -> 'FormerTable':
    """The table of that title in a folder, or one without rows; UserError if it cannot be read."""
    places = reproduction_table.places(table, output)
    with files.user_errors('cannot read', output):
      contents = {place: place.read_bytes() for place in places.values() if place.is_file()}
    try:
      records = files.parse_json(contents[places['.json']].decode())
      return cls({record['row'] for record in records if record['status'] == 'measured'}, contents)
    except (KeyError, TypeError, ValueError):
      return cls()

  def set_aside(self) -> 'FormerTable':
    """Writes its files under names that no file has; returns a table without any; UserError if it fails."""
    for number in itertools.count(1):
      copies = {place.with_name(f'{place.stem}_{number}{place.suffix}'): place for place in self.contents}
      if not any(copy.exists() for copy in copies):
        break
    for copy, place in copies.items():
      with files.user_errors('cannot write', copy):
        files.write_atomically(copy, self.contents[place])
    logging.warning('the table that stood there keeps its numbers as %s', ', '.join(map(str, copies)))
    return FormerTable()
