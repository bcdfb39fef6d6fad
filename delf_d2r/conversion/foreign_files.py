"""Folders with a file for each image, named like the photo without its extension, as in the DELF code."""

import contextlib
import contextvars
import filecmp
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from absl import logging

from delf_d2r.data import files, temporary_files
from delf_d2r.data.photos import name_matching
from delf_d2r.data.photos.photo_formats import EXTENSIONS
from delf_d2r.errors import UserError

T = TypeVar('T')

# The files that the running conversion has written.
_WRITTEN: contextvars.ContextVar[list[pathlib.Path] | None] = contextvars.ContextVar('written', default=None)


@contextlib.contextmanager
def telling_if_up_to_date(output: pathlib.Path) -> Iterator[None]:
  """Logs that `output` is up to date if the body, a conversion, finds all files as it would write them."""
  written: list[pathlib.Path] = []
  token = _WRITTEN.set(written)
  try:
    yield
  finally:
    _WRITTEN.reset(token)
  if not written:
    logging.info('convert: %s is up to date, skipped', output)


def note(path: pathlib.Path) -> None:
  """Notes that the running conversion has written a file."""
  written = _WRITTEN.get()
  if written is not None:
    written.append(path)


def find(folder: pathlib.Path, extension: str) -> dict[str, pathlib.Path]:
  """Returns the files with an extension, also in subfolders, by their relative path without the extension.

  Raises:
    UserError: there are none.
  """
  found = {
    path.relative_to(folder).as_posix().removesuffix(extension): path
    for path in sorted(folder.rglob(f'*{extension}'))
  }
  if not found:
    raise UserError(f'{folder}: no {extension} files in it')
  return found


def of_images(found: Mapping[str, T], image_names: Sequence[str], *, source: str) -> dict[str, T]:
  """Returns the value of each image; images without a value, and values of other images, are omitted.

  Args:
    found: values by the name that the DELF code gives to an image.
    image_names: M names relative to the folder of photos.
    source: begins the error messages.

  Raises:
    UserError: no value belongs to one of these images, a name fits several images, or two names fit one.
  """
  by_image = name_matching.names_by_image(found, image_names, source=source)
  for image, names in by_image.items():
    if len(names) > 1:
      raise UserError(f'{source}: {names[0]!r} and {names[1]!r} are both of {image!r}; remove one')
  return {image: found[names[0]] for image, names in by_image.items()}


class Writer:
  """Writes files into a folder; a stopped run can continue, and no file of other contents is overwritten.

  Attributes:
    folder: the folder.
  """

  def __init__(self, folder: pathlib.Path, images: Iterable[tuple[str, Sequence[str]]], *, redo: bool):
    """Checks the names of all files; the folder is made with the first file.

    Args:
      folder: where to write.
      images: every image and those of its parts that have a file each, '' for the image itself.
      redo: whether to replace files of other contents.

    Raises:
      UserError: two images or parts would have the same file, or a name leads out of the folder.
    """
    self.folder = folder
    self._redo = redo
    image_of: dict[str, str] = {}
    for image, parts in images:
      for part in parts:
        name = _stem(image) + part
        files.safe_join(folder, name)
        if name in image_of:
          raise UserError(
            f'{folder / name}: would be the file of {image_of[name]!r} and of {image!r}, because the'
            ' tensorflow/models DELF code omits the extension of a photo. Nothing was written; rename one of'
            ' the two'
          )
        image_of[name] = image

  def add(self, image: str, extension: str, data: bytes, *, part: str = '') -> str:
    """Writes the file of an image, or of a part of it; returns its name without the extension.

    Raises:
      UserError: there is a file of other contents.
    """
    name = _stem(image) + part
    put(files.safe_join(self.folder, name + extension), data, redo=self._redo)
    return name


def _stem(image: str) -> str:
  path = pathlib.PurePosixPath(image)
  return str(path.with_suffix('') if path.suffix.lower() in EXTENSIONS else path)


def put(path: pathlib.Path, data: bytes | str, *, redo: bool) -> None:
  """Writes one file, and makes its folder if it is missing; a file of the same contents is left as it is.

  Raises:
    UserError: there is a file of other contents and `redo` is false, or the file cannot be written.
  """
  data = data.encode() if isinstance(data, str) else data
  with files.user_errors('cannot write', path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not files.is_stream(path):
      before = path.read_bytes()
      if before == data:
        temporary_files.remove_leftovers(path)
        return
      require_absent(
        path, redo=redo, why=f'with other contents ({len(before)} bytes there, {len(data)} here)'
      )
    files.write_output(path, data)
  note(path)


@contextlib.contextmanager
def new_file(output: pathlib.Path, *, redo: bool) -> Iterator[pathlib.Path]:
  """Yields a path to write a file to, which is then moved to `output`; one of the same contents stays there.

  Raises:
    UserError: there is a file of other contents and `redo` is false, or the file cannot be written.
  """
  with files.user_errors('cannot write', output):
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.is_file() or files.is_stream(output):
      require_absent(output, redo=redo)
      with files.output_file(output) as path:
        yield path
      note(output)
      return
    with temporary_files.temporary_file(output) as path:
      yield path
      if filecmp.cmp(path, output, shallow=False):
        return
      require_absent(output, redo=redo, why='already, with other contents')
      with files.output_file(output) as replacement:
        shutil.copyfile(path, replacement)
    note(output)


def require_absent(path: pathlib.Path, *, redo: bool, why: str = '') -> None:
  """Raises UserError if `path` exists, unless `redo`, or what is written to it replaces nothing."""
  if path.exists() and not files.is_stream(path) and not redo:
    raise UserError(f'{path}: exists {why or "already"}. Choose another --output, or give --redo')
