"""The photos of a folder, as an ordered list of names."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections import Counter
from collections.abc import Sequence

from absl import logging

from delf_d2r.data.artefacts.artefact import Input
from delf_d2r.data.photos import name_matching
from delf_d2r.errors import UserError

EXTENSIONS = frozenset(('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif', '.ppm', '.pgm'))

# Enough of a photo to notice that it changed: an edit of a compressed file changes its head, its tail or its
# size, and a million photos are not read twice. Files without compression are read whole.
_SAMPLE_BYTES = 4096
_UNCOMPRESSED = frozenset(('.bmp', '.tif', '.tiff', '.ppm', '.pgm'))


@dataclasses.dataclass(frozen=True)
class ImageList:
  """Photos below one folder.

  Attributes:
    root: the folder.
    names: paths relative to `root` with `/` between folders, sorted: the image's names everywhere. A
      photo's position in `names` is its image id.
  """

  root: pathlib.Path
  names: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.names)

  @classmethod
  def from_folder(cls, root: str | pathlib.Path) -> 'ImageList':
    """All photos in a folder and its subfolders, by extension; hidden files and folders are left out.

    Raises:
      UserError: no such folder, it is empty, or there is no photo in it.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
      raise UserError(f'{root}: no such folder of photos. Check the path')
    names, others = [], Counter()
    for folder, subfolders, files in os.walk(root, onerror=_raise_unreadable, followlinks=True):
      subfolders[:] = sorted(
        name
        for name in subfolders
        if not name.startswith('.') and not _leads_back(os.path.join(folder, name))
      )
      for file in files:
        extension = os.path.splitext(file)[1].lower()
        if file.startswith('.'):
          continue
        if extension in EXTENSIONS:
          name = (pathlib.Path(folder) / file).relative_to(root).as_posix()
          if _is_unicode(name):
            names.append(name)
          else:
            logging.warning('%s: left out: %r is not valid UTF-8; rename the photo', root, name)
            others[f'{extension} with a name that is not UTF-8'] += 1
        else:
          others[extension or '(none)'] += 1
    if not names and not others:
      raise UserError(f'{root}: the folder is empty. Give one with photos')
    if not names:
      found = ', '.join(f'{count} {extension}' for extension, count in others.most_common(5))
      raise UserError(
        f'{root}: no photos in it (found files of type {found}; photos are {" ".join(sorted(EXTENSIONS))}).'
        ' Give a folder with photos'
      )
    return cls(root, tuple(sorted(names)))

  def select(self, wanted: Sequence[str], *, source: str) -> 'ImageList':
    """The photos with the given names, in the given order; names as in name_matching.py.

    Args:
      wanted: names of photos.
      source: opens the error message: where the names come from.

    Raises:
      UserError: some are not there, or a name fits several photos.
    """
    positions = name_matching.match_names(wanted, self.names, source=source)
    return ImageList(self.root, tuple(self.names[positions[name]] for name in wanted))

  def path(self, name: str) -> pathlib.Path:
    """Where the photo `name` is."""
    return self.root / name

  @functools.cached_property
  def fingerprint(self) -> str:
    """A digest of names, sizes and the first and last 4 KiB of each photo; the folder may move."""
    digest = hashlib.sha256()
    for name in self.names:
      digest.update(name.encode('utf-8', 'surrogateescape') + b'\0')
      digest.update(_sample(self.path(name)) + b'\0')
    return digest.hexdigest()[:16]

  def as_input(self, role: str = 'images') -> Input:
    """The photos as an input of an artefact."""
    return Input(role, self.fingerprint, self.root.resolve())


def _is_unicode(name: str) -> bool:
  # Undecodable bytes of a file name arrive as lone surrogates.
  return not any('\ud800' <= letter <= '\udfff' for letter in name)


def _leads_back(folder: str) -> bool:
  """Whether a folder is a link to one that it lies in: following it would never end."""
  if not os.path.islink(folder):
    return False
  target = os.path.realpath(folder)
  return os.path.commonpath([target, os.path.realpath(os.path.dirname(folder))]) == target


def _raise_unreadable(error: OSError) -> None:
  raise UserError(f'{error.filename}: cannot be read ({error.strerror}). Check the permissions') from error


def _sample(path: pathlib.Path) -> bytes:
  try:
    with open(path, 'rb') as file:
      if path.suffix.lower() in _UNCOMPRESSED:
        return hashlib.file_digest(file, 'sha256').digest()
      head = file.read(_SAMPLE_BYTES)
      size = os.fstat(file.fileno()).st_size
      file.seek(max(size - _SAMPLE_BYTES, 0))
      return b'%d\0' % size + head + file.read(_SAMPLE_BYTES)
  except OSError as error:
    # An unreadable photo is the extraction's business, which counts and names it.
    return f'unreadable: {error.errno}'.encode()
