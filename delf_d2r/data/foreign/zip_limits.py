"""Archives of others: how much they unpack to, found out before they are unpacked into memory."""

import zipfile
from typing import BinaryIO


def check_unpacked_size(file: BinaryIO, most: int) -> None:
  """Raises ValueError if the members of a zip archive, as `.npz` files are, unpack to over `most` bytes."""
  with zipfile.ZipFile(file) as archive:
    # A member ends where the archive says, even if there is more.
    found = sum(member.file_size for member in archive.infolist())
  if found > most:
    raise ValueError(f'it unpacks to {found:,} bytes, at most {most:,} are taken')
  file.seek(0)
