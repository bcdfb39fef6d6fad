"""The addresses of the shards: a list, or a file that may change while searches go on."""

import pathlib
import urllib.parse

from absl import logging

from delf_d2r.errors import UserError


class Addresses:
  """The addresses of the shards in any order. Several servers of the same shard are replicas.

  The sharded index calls it before each search, so that a file that has changed takes effect at once.
  """

  def __init__(self, given: str):
    """Parses the addresses.

    Args:
      given: `http://host:port,http://host:port`, or the path of a file with one address a line.

    Raises:
      UserError: an address is malformed, or there is no such file.
    """
    self._path = None if '://' in given else pathlib.Path(given).absolute()
    self._version: tuple[int, int] | None = None  # modification time and size of the file when it was read
    self._addresses: tuple[str, ...] = ()
    if self._path is None:
      self._addresses = _parse(given.replace(',', '\n'), '--shards')
    else:
      self._read(self._path)

  def __call__(self) -> tuple[str, ...]:
    """Returns the current addresses."""
    if self._path is not None:
      try:
        self._read(self._path)
      except UserError as error:
        # The file is most likely being written; the previous addresses remain valid.
        logging.warning('%s', error)
    return self._addresses

  def _read(self, path: pathlib.Path) -> None:
    """Reads the file if it has changed."""
    try:
      status = path.stat()
      version = status.st_mtime_ns, status.st_size
      if version != self._version:
        self._addresses = _parse(path.read_text(encoding='utf-8'), path)
        self._version = version
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(f'{path}: not a file of addresses ({error}). Give http://host:port,...') from None


def _parse(text: str, where: object) -> tuple[str, ...]:
  addresses = tuple(dict.fromkeys(line.strip().rstrip('/') for line in text.splitlines() if line.strip()))
  for address in addresses:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ('http', 'https') or not parts.hostname or parts.path or parts.query:
      raise UserError(f'{where}: expected addresses like http://127.0.0.1:8801, found {address!r}')
  if not addresses:
    raise UserError(f'{where}: no addresses')
  return addresses
