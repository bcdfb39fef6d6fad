"""Limits the unpacked size of zip archives, before they are unpacked into memory."""

import zipfile
from typing import BinaryIO


def check_unpacked_size(file: BinaryIO, limit: int) -> None:
  """Raises ValueError if the members of a zip archive (such as `.npz`) have over `limit` bytes unpacked.

  Args:
    file: the archive; its position is reset to the beginning.
    limit: bytes.
  """
  with zipfile.ZipFile(file) as archive:
    # zipfile reads no more of a member than the size stated in the directory of the archive.
    found = sum(member.file_size for member in archive.infolist())
  if found > limit:
    raise ValueError(f'it unpacks to {found:,} bytes, at most {limit:,} are allowed')
  file.seek(0)
