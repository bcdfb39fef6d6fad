"""A reader under test, and its inputs."""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Callable

from fuzzing import mutations
from fuzzing.sandbox import MEBIBYTE, Violation, sandboxed
from hypothesis import strategies as st

from delf_d2r.errors import UserError
from delf_d2r.index import IndexFormatError


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader of untrusted files.

  Attributes:
    name: name in tables and for `--reader`.
    seeds: valid inputs: files by name.
    read: reads the files with these names in a folder; asserts that the result is valid.
    grammar: generates inputs (files by name) in addition to damaged seeds.
    memory: greatest number of bytes that it may allocate.
    errors: the exceptions that it may raise.
  """

  name: str
  seeds: tuple[dict[str, bytes], ...]
  read: Callable[[pathlib.Path], object]
  grammar: st.SearchStrategy | None = None
  memory: int = 256 * MEBIBYTE
  errors: tuple[type[Exception], ...] = (UserError, IndexFormatError)

  @property
  def inputs(self) -> st.SearchStrategy:
    """Damaged seeds and, in about one case of four, inputs of the grammar."""
    damaged = mutations.damaged_files(self.seeds)
    return damaged if self.grammar is None else st.one_of(damaged, damaged, damaged, self.grammar)

  def attempt(self, files: dict[str, bytes], folder: pathlib.Path, *, is_trusted: bool = False) -> bool:
    """Reads one input; returns True if it was read, False if it was refused.

    Args:
      files: files by name.
      folder: the folder to write them to; emptied first.
      is_trusted: the reader runs without a sandbox.

    Raises:
      Exception: the reader raised an exception that is not allowed; AssertionError: it violated the sandbox.
    """
    write_files(files, folder)
    try:
      with contextlib.nullcontext() if is_trusted else sandboxed(folder, memory=self.memory):
        self.read(folder)
    except Violation as violation:
      raise AssertionError(str(violation)) from violation
    except self.errors as error:
      message = str(error)
    else:
      return True
    assert message, 'an error without a message'
    return False


def write_files(files: dict[str, bytes], folder: pathlib.Path) -> None:
  """Writes these files to `folder` and removes all others."""
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  for name, data in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def single(
  name: str, file: str, seeds, read: Callable[[pathlib.Path], object], grammar=None, **options
) -> Reader:
  """Returns a reader of a single file: `read` takes its path, `grammar` generates its bytes."""
  return Reader(
    name,
    tuple({file: data} for data in seeds),
    lambda folder: read(folder / file),
    None if grammar is None else grammar.map(lambda data: {file: data}),
    **options,
  )
