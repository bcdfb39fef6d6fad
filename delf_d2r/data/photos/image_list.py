"""An ordered list of the photos of a folder."""

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

# Bytes at the beginning and the end of a photo that enter its fingerprint. An edit of a compressed file
# changes one of these or the size, and a million photos need not be read completely. Uncompressed files are.
_SAMPLE_BYTES = 4096
_UNCOMPRESSED = frozenset(('.bmp', '.tif', '.tiff', '.ppm', '.pgm'))


@dataclasses.dataclass(frozen=True)
class ImageList:
  """Photos below one folder.

  Attributes:
    root: the folder.
    names: paths relative to `root` with `/` between folders, the names of the images everywhere. Those of
      `from_folder` are sorted. The position of a photo in `names` is its image id.
  """

  root: pathlib.Path
  names: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.names)

  @classmethod
  def from_folder(cls, root: str | pathlib.Path) -> 'ImageList':
    """Lists the photos in a folder and its subfolders, by extension; hidden files and folders are skipped.

    Raises:
      UserError: there is no such folder, or no photo in it.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
      raise UserError(f'{root}: no such folder of photos. Check the path')
    names: list[str] = []
    others: Counter[str] = Counter()
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
    """Returns the photos with the given names, in the given order.

    Args:
      wanted: names of photos, matched as in name_matching.py.
      source: where the names come from; begins error messages.

    Raises:
      UserError: photos are missing, or a name matches several photos.
    """
    positions = name_matching.match_names(wanted, self.names, source=source)
    return ImageList(self.root, tuple(self.names[positions[name]] for name in wanted))

  def path(self, name: str) -> pathlib.Path:
    """Returns the path of a photo."""
    return self.root / name

  @functools.cached_property
  def fingerprint(self) -> str:
    """A digest of the names, sizes and first and last 4 KiB of the photos; the folder may be moved."""
    digest = hashlib.sha256()
    for name in self.names:
      digest.update(name.encode('utf-8', 'surrogateescape') + b'\0')
      digest.update(_sample(self.path(name)) + b'\0')
    return digest.hexdigest()[:16]

  def as_input(self, role: str = 'images') -> Input:
    """Returns the photos as an input of an artefact."""
    return Input(role, self.fingerprint, self.root.resolve())


def _is_unicode(name: str) -> bool:
  # Python represents undecodable bytes of a file name by lone surrogates.
  return not any('\ud800' <= letter <= '\udfff' for letter in name)


def _leads_back(folder: str) -> bool:
  """Tells whether a folder is a link to one of its parents, so that following it would never end."""
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
    # Extraction reports unreadable photos.
    return f'unreadable: {error.errno}'.encode()
