"""Where the shards are: a list of addresses, or a file of them that may change while searches go on."""

import pathlib
import urllib.parse

from absl import logging

from delf_d2r.errors import UserError


class Addresses:
  """The addresses of the shards, in any order; several of one shard are replicas.

  Called before each search, it gives them as they are now: of a file that has changed, the new ones.
  """

  def __init__(self, given: str):
    """Takes `http://host:port,http://host:port` or the path of a file with one address a line.

    Raises:
      UserError: an address is none, or there is no such file.
    """
    self._path = None if '://' in given else pathlib.Path(given)
    self._read_at: tuple[int, int] | None = None
    self._addresses = _parsed(given.replace(',', '\n'), '--shards') if self._path is None else ()
    if self._path is not None:
      self._read()

  def __call__(self) -> tuple[str, ...]:
    if self._path is not None:
      try:
        self._read()
      except UserError as error:
        # Caught in the middle of a change, most likely; what was there before still counts.
        logging.warning('%s', error)
    return self._addresses

  def _read(self) -> None:
    try:
      status = self._path.stat()
      read_at = status.st_mtime_ns, status.st_size
      if read_at != self._read_at:
        self._addresses = _parsed(self._path.read_text(encoding='utf-8'), self._path)
        self._read_at = read_at
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(f'{self._path}: no file of addresses ({error}). Give http://host:port,...') from None


def _parsed(text: str, where: object) -> tuple[str, ...]:
  addresses = tuple(dict.fromkeys(line.strip().rstrip('/') for line in text.splitlines() if line.strip()))
  for address in addresses:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ('http', 'https') or not parts.hostname or parts.path or parts.query:
      raise UserError(f'{where}: expected addresses like http://127.0.0.1:8801, found {address!r}')
  if not addresses:
    raise UserError(f'{where}: no addresses')
  return addresses
