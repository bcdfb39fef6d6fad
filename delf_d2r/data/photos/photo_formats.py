"""Which files are photos: by their extension, or by their content where the extension does not tell."""

import functools
import os
import pathlib
import warnings

import pillow_heif
from PIL import Image

# Files with these are photos, whatever they hold: what cannot be decoded is reported when it is read.
EXTENSIONS = frozenset(
  (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo'),
    *('.png', '.apng', '.webp', '.gif', '.bmp', '.dib', '.tga'),
    *('.tif', '.tiff'),
    *('.ppm', '.pgm', '.pbm', '.pnm', '.pfm'),
    *('.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx'),
    *('.avif', '.avifs', '.heic', '.heics', '.heif', '.heifs', '.hif'),
  )
)

# The content of files with these is not asked. Those of cameras begin like TIFF, but Pillow finds only their
# thumbnail; the others belong to a video or an editor.
_NEVER = frozenset(
  (
    *('.3fr', '.arw', '.cr2', '.cr3', '.crw', '.dcr', '.dng', '.erf', '.fff', '.iiq', '.k25', '.kdc', '.mef'),
    *('.mos', '.mrw', '.nef', '.nrw', '.orf', '.pef', '.raf', '.raw', '.rw2', '.rwl', '.sr2', '.srf', '.srw'),
    *('.x3f', '.thm', '.lrv', '.xcf', '.part', '.crdownload', '.tmp'),
  )
)

# Formats whose first bytes tell them apart from any other file.
_BY_CONTENT = ('JPEG', 'PNG', 'GIF', 'WEBP', 'TIFF', 'BMP', 'JPEG2000', 'AVIF', 'HEIF', 'PPM', 'PSD', 'QOI')

# Formats that Pillow only recognises, or gives to another program.
_NOT_DECODED = frozenset(('BUFR', 'EPS', 'GRIB', 'HDF5', 'IPTC', 'MPEG', 'PDF', 'WMF'))

_PREFIX_BYTES = 16  # Pillow shows its plug-ins as many.


def register() -> None:
  """Lets Pillow read HEIC; AVIF is part of it."""
  pillow_heif.register_heif_opener()


def extension(name: str) -> str:
  """Returns the extension of a file in lower case; '' if it has none."""
  return os.path.splitext(name)[1].lower()


def is_photo(path: str | pathlib.Path) -> bool:
  """Returns whether a regular file is a photo; opens it only if the extension does not tell.

  Raises:
    OSError: it has to be opened and cannot be read.
  """
  kind = extension(os.fspath(path))
  if kind in EXTENSIONS or kind in _NEVER:
    return kind in EXTENSIONS
  with open(path, 'rb') as file:
    prefix = file.read(_PREFIX_BYTES)
  formats = [name for name in _BY_CONTENT if _accepts(name, prefix)]
  formats += [_formats_by_extension()[kind]] if kind in _formats_by_extension() else []
  return bool(prefix and formats) and _opens(path, formats)


def _accepts(name: str, prefix: bytes) -> bool:
  _initialise()
  accept = Image.OPEN[name][1] if name in Image.OPEN else None
  # A text says why a format that is recognised cannot be read.
  return accept is not None and accept(prefix) is True


def _opens(path: str | pathlib.Path, formats: list[str]) -> bool:
  """Returns whether Pillow reads the header of a file as one of the formats."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      with Image.open(path, formats=formats):
        return True
  except Image.DecompressionBombError:
    return True  # It is refused by name when it is read.
  except OSError as error:
    if error.errno is not None:
      raise
    return False
  except Exception:  # Damaged headers raise nearly any exception.
    return False


@functools.cache
def _formats_by_extension() -> dict[str, str]:
  """Returns the other formats that Pillow decodes, by extension."""
  _initialise()
  return {
    kind: name
    for kind, name in Image.registered_extensions().items()
    if name in Image.OPEN and name not in _NOT_DECODED
  }


@functools.cache
def _initialise() -> None:
  Image.init()
  register()
