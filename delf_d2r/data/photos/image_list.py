"""An ordered list of the photos of a folder."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence

from absl import logging

from delf_d2r.data.artefacts.artefact import Input
from delf_d2r.data.photos import name_matching, photo_listing, photo_state
from delf_d2r.data.photos.photo_formats import EXTENSIONS
from delf_d2r.errors import UserError
from delf_d2r.structures import require_several

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
    left_out: how many files of the folder, by kind, are no photos or are left out (`photo_listing.Listing`).
  """

  root: pathlib.Path
  names: tuple[str, ...]
  left_out: Mapping[str, int] = dataclasses.field(default_factory=dict, compare=False)

  def __post_init__(self) -> None:
    require_several(self.names)

  def __len__(self) -> int:
    return len(self.names)

  @classmethod
  def from_folder(
    cls, root: str | pathlib.Path, *, exclude: Sequence[str] = (), strict: bool = False
  ) -> 'ImageList':
    """Lists the photos in a folder and its subfolders; see photo_listing.py for what belongs to them.

    Args:
      root: the folder.
      exclude: globs of files and folders to leave out, beside hidden ones and the like
        (`photo_listing.Exclusion`).
      strict: whether a subfolder that may not be read is an error instead of being left out with a warning.

    Raises:
      UserError: there is no such folder, no photo in it, or a folder cannot be read.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
      raise UserError(f'{root}: no such folder of photos. Check the path')
    listing = photo_listing.walk(root, exclude=exclude, strict=strict)
    left_out = photo_listing.describe(listing.left_out)
    if not listing.names and not left_out:
      raise UserError(f'{root}: the folder is empty. Give one with photos')
    if not listing.names:
      raise UserError(
        f'{root}: no photos in it (found files of type {left_out}; photos are what Pillow reads, such as'
        f' {" ".join(sorted(EXTENSIONS))}). Give a folder with photos'
      )
    if left_out:
      logging.info('%s: %d photos; left out: %s', root, len(listing.names), left_out)
    return cls(root, listing.names, listing.left_out)

  def select(self, wanted: Sequence[str], *, source: str) -> 'ImageList':
    """Returns the photos with the given names, in the given order.

    Args:
      wanted: names of photos, matched as in name_matching.py.
      source: where the names come from; begins error messages.

    Raises:
      UserError: photos are missing, or a name matches several photos.
    """
    positions = name_matching.match_names(wanted, self.names, source=source)
    return dataclasses.replace(self, names=tuple(self.names[positions[name]] for name in wanted))

  def path(self, name: str) -> pathlib.Path:
    """Returns the path of a photo."""
    return self.root / name

  @functools.cached_property
  def fingerprint(self) -> str:
    """A digest of the names, sizes and first and last 4 KiB of the photos; the folder may be moved.

    It is known before any photo is decoded. The digest of all bytes of each photo, its identity, is noted
    when the photo is read (`data.artefacts.read_photos`).

    Raises:
      PhotoUnavailableError: a photo cannot be read for the moment.
    """
    return self._sampled[0]

  @property
  def stamps(self) -> Sequence[tuple[int, int, int]]:
    """(size, modification time, time of the last change) of each photo when the fingerprint was taken."""
    return self._sampled[1]

  @functools.cached_property
  def _sampled(self) -> tuple[str, Sequence[tuple[int, int, int]]]:
    digest = hashlib.sha256()
    stamps = []
    for name in self.names:
      sample, stamp = _sample(self.path(name))
      digest.update(name.encode('utf-8', 'surrogateescape') + b'\0')
      digest.update(sample + b'\0')
      stamps.append(stamp)
    return digest.hexdigest()[:16], stamps

  def as_input(self, role: str = 'images') -> Input:
    """Returns the photos as an input of an artefact."""
    return Input(role, self.fingerprint, self.root.resolve())


def _sample(path: pathlib.Path) -> tuple[bytes, tuple[int, int, int]]:
  """Returns what represents a photo in the fingerprint of the list, and its size and times."""
  try:
    with open(path, 'rb') as file:
      found = os.fstat(file.fileno())
      size = found.st_size
      stamp = (size, found.st_mtime_ns, found.st_ctime_ns)
      if path.suffix.lower() in _UNCOMPRESSED:
        return hashlib.file_digest(file, 'sha256').digest(), stamp
      head = file.read(_SAMPLE_BYTES)
      file.seek(max(size - _SAMPLE_BYTES, 0))
      return b'%d\0' % size + head + file.read(_SAMPLE_BYTES), stamp
  except OSError as error:
    if not photo_state.is_permanent(error, path):
      raise photo_state.unavailable(path, error) from error
    # Extraction reports unreadable photos.
    return f'unreadable: {error.errno}'.encode(), (-1, -1, -1)
