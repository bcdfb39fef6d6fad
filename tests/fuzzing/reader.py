"""A reader under test, and one input given to it."""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Callable

from fuzzing import mutations
from fuzzing.watching import MEBIBYTE, Misdeed, watched
from hypothesis import strategies as st

from delf_d2r.errors import UserError
from delf_d2r.index import IndexFormatError


@dataclasses.dataclass(frozen=True)
class Reader:
  """Something that reads files from elsewhere.

  Attributes:
    name: for tables and for `--reader`.
    seeds: valid inputs: files by their names.
    read: reads what lies in a folder under those names; asserts that what it gets is sound.
    grammar: inputs made from nothing, files by names, beside damaged seeds.
    memory: bytes that it may take.
    errors: what it may raise.
  """

  name: str
  seeds: tuple[dict[str, bytes], ...]
  read: Callable[[pathlib.Path], object]
  grammar: st.SearchStrategy | None = None
  memory: int = 256 * MEBIBYTE
  errors: tuple[type[Exception], ...] = (UserError, IndexFormatError)

  @property
  def inputs(self) -> st.SearchStrategy:
    """Damaged seeds and, one time in four or so, what the grammar makes."""
    damaged = mutations.damaged_files(self.seeds)
    return damaged if self.grammar is None else st.one_of(damaged, damaged, damaged, self.grammar)

  def attempt(self, files: dict[str, bytes], folder: pathlib.Path, *, unwatched: bool = False) -> bool:
    """Reads one input; true if it was read, false if it was refused.

    Args:
      files: by name.
      folder: to write them to; emptied first.
      unwatched: let it do what it likes.

    Raises:
      Exception: anything but the errors allowed; AssertionError where the reader does what it may not.
    """
    write_files(files, folder)
    try:
      with contextlib.nullcontext() if unwatched else watched(folder, memory=self.memory):
        self.read(folder)
    except Misdeed as misdeed:
      raise AssertionError(str(misdeed)) from misdeed
    except self.errors as error:
      message = str(error)
    else:
      return True
    assert message, 'an error without a message'
    return False


def write_files(files: dict[str, bytes], folder: pathlib.Path) -> None:
  """Makes `folder` hold these files and nothing else."""
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  for name, data in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def single(
  name: str, file: str, seeds, read: Callable[[pathlib.Path], object], grammar=None, **options
) -> Reader:
  """A reader of one file: `read` takes its path, `grammar` makes its bytes."""
  return Reader(
    name,
    tuple({file: data} for data in seeds),
    lambda folder: read(folder / file),
    None if grammar is None else grammar.map(lambda data: {file: data}),
    **options,
  )
