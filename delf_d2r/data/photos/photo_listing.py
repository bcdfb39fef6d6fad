"""Walks a folder of photos: what belongs to it, and what is left out and why.

Every real folder is entered once, however many links lead to it: first the folders in the folder itself,
then, in the order of their names, those that links lead to. Only regular files are photos; a pipe or a device
would never end.
"""

import dataclasses
import errno
import fnmatch
import os
import pathlib
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from absl import logging

from delf_d2r.data.photos import photo_formats, photo_state
from delf_d2r.errors import UserError
from delf_d2r.structures import require_several

# Hidden files, and folders that file servers, archives and file systems make beside the photos of a user.
DEFAULT_EXCLUDES = ('.*', '@eaDir', '__MACOSX', '#recycle', 'lost+found')

_NOT_PERMITTED = (errno.EACCES, errno.EPERM)
_SPECIAL = {
  stat.S_IFIFO: 'FIFO',
  stat.S_IFSOCK: 'socket',
  stat.S_IFCHR: 'device',
  stat.S_IFBLK: 'device',
}


@dataclasses.dataclass(frozen=True)
class Exclusion:
  """The files and folders of a listing that are left out on purpose.

  Attributes:
    patterns: globs as of fnmatch: one without `/` is compared with the name of every file and folder, one
      with `/` with its path relative to the folder of photos. A folder that is left out is not entered.
  """

  patterns: tuple[str, ...] = DEFAULT_EXCLUDES

  @classmethod
  def of(cls, patterns: Iterable[str] = ()) -> 'Exclusion':
    """Returns the defaults with further patterns; with an empty one among them, without the defaults."""
    require_several(patterns, 'exclude')
    own = tuple(pattern.removeprefix('./').rstrip('/') for pattern in patterns)
    return cls(tuple(filter(None, own if '' in own else (*DEFAULT_EXCLUDES, *own))))

  def match(self, name: str, path: str) -> str:
    """Returns the first pattern that a name or the path relative to the folder matches; '' if none does."""
    return next((p for p in self.patterns if fnmatch.fnmatchcase(path if '/' in p else name, p)), '')


@dataclasses.dataclass(frozen=True)
class Listing:
  """The photos of a folder.

  Attributes:
    names: paths of the photos relative to the folder, sorted, with `/` between folders.
    left_out: how many files of each kind are no photos or are left out: '.txt', '(no extension)', 'FIFO',
      'excluded by .*'; a folder that is left out counts once.
    unreadable: folders that may not be read, relative to the folder.
  """

  names: tuple[str, ...]
  left_out: Mapping[str, int]
  unreadable: tuple[str, ...] = ()


def describe(left_out: Mapping[str, int], *, most: int = 8) -> str:
  """Returns the kinds of files that were left out in a line, most frequent first; '' if there are none."""
  ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
  shown = [f'{count:,} {kind}' for kind, count in ordered[:most]]
  rest = sum(count for _, count in ordered[most:])
  return ', '.join([*shown, f'{rest:,} of other kinds'] if rest else shown)


def walk(root: pathlib.Path, *, exclude: Sequence[str] = (), strict: bool = False) -> Listing:
  """Lists the photos of a folder.

  Args:
    root: the folder.
    exclude: globs of what to leave out beside the defaults; see `Exclusion`.
    strict: whether a folder that may not be read stops the listing instead of being left out with a warning.

  Raises:
    UserError: the folder itself or, with `strict`, one below it may not be read, or one cannot be read for
      another reason than its permissions.
  """
  return _Walk(root, Exclusion.of(exclude), strict=strict).run()


class _Walk:
  """One walk over a folder."""

  def __init__(self, root: pathlib.Path, exclusion: Exclusion, *, strict: bool):
    self._root = root
    self._real_root = os.path.realpath(root)
    self._exclusion = exclusion
    self._strict = strict
    self._names: list[str] = []
    self._left_out: Counter[str] = Counter()
    self._unreadable: list[str] = []
    self._entered: set[tuple[int, int]] = set()
    self._linked: list[str] = []  # Folders that links lead to, not yet entered.

  def run(self) -> Listing:
    self._enter('')
    while self._linked:
      linked, self._linked = sorted(self._linked), []
      for path in linked:
        self._enter(path)
    return Listing(tuple(sorted(self._names)), dict(self._left_out), tuple(self._unreadable))

  def _enter(self, start: str) -> None:
    """Lists a folder, by its path relative to the root, and the real folders below it."""
    waiting = [start]
    while waiting:
      folder = waiting.pop()
      try:
        if not self._is_new(folder):
          continue
        with os.scandir(self._root / folder) as entries:
          found = sorted(entries, key=lambda entry: entry.name)
      except OSError as error:
        self._note_unreadable(folder, error)
        continue
      subfolders = [path for entry in found if (path := self._file(entry, folder))]
      waiting += reversed(subfolders)

  def _is_new(self, folder: str) -> bool:
    """Returns whether a folder is entered for the first time, and notes that it is."""
    found = os.stat(self._root / folder)
    identity = found.st_dev, found.st_ino
    # Some network file systems have no numbers of files.
    is_new = not found.st_ino or identity not in self._entered
    self._entered.add(identity)
    return is_new

  def _file(self, entry: os.DirEntry[str], folder: str) -> str:
    """Notes a file or a link; returns the path of a real folder, which is to be entered, and otherwise ''."""
    path = f'{folder}/{entry.name}' if folder else entry.name
    pattern = self._exclusion.match(entry.name, path)
    if pattern:
      self._left_out[f'excluded by {pattern}'] += 1
    elif entry.is_dir(follow_symlinks=False):
      return path
    elif _is_folder(entry):
      if not self._leads_back(entry.path):
        self._linked.append(path)
    else:
      kind = self._kind(entry)
      if kind:
        self._left_out[kind] += 1
      else:
        self._names.append(path)
    return ''

  def _kind(self, entry: os.DirEntry[str]) -> str:
    """Returns the kind of a file that is no photo; '' if it is one."""
    extension = photo_formats.extension(entry.name)
    is_file = _is_file(entry)
    if not is_file:
      special = _special(entry)
      # Whoever reads the photo reports a link that leads nowhere.
      if special or extension not in photo_formats.EXTENSIONS:
        return special or 'broken link'
    shown = extension or '(no extension)'
    try:
      if is_file and not photo_formats.is_photo(entry.path):
        return shown
    except OSError as error:
      if not photo_state.is_permanent(error, entry.path):
        raise photo_state.unavailable(entry.path, error) from error
      logging.warning('%s: left out: cannot be read (%s), and its name does not tell', entry.path, error)
      return f'{shown}, unreadable'
    if not _is_unicode(entry.path):
      logging.warning('%s: left out: %r is not valid UTF-8; rename the photo', self._root, entry.name)
      return f'{shown} with a name that is not UTF-8'
    return ''

  def _leads_back(self, link: str) -> bool:
    """Returns whether a link to a folder leads to a parent of it or of the root, which hold other files."""
    target = os.path.realpath(link)
    places = (self._real_root, os.path.realpath(os.path.dirname(link)))
    return any(os.path.commonpath([target, place]) == target for place in places)

  def _note_unreadable(self, folder: str, error: OSError) -> None:
    place = self._root / folder
    if not folder or self._strict or error.errno not in _NOT_PERMITTED:
      stopped = ' (stopped, because of --strict)' if folder and error.errno in _NOT_PERMITTED else ''
      raise UserError(
        f'{place}: cannot be read ({error.strerror}). Check the permissions{stopped}'
      ) from error
    logging.warning(
      '%s: left out with all photos in it: cannot be read (%s). Check the permissions', place, error.strerror
    )
    self._unreadable.append(folder)
    self._left_out['unreadable folder'] += 1


def _special(entry: os.DirEntry[str]) -> str:
  """Returns what a file that is no regular one is; '' if there is none."""
  try:
    return _SPECIAL.get(stat.S_IFMT(entry.stat().st_mode), 'special file')
  except OSError:
    return ''


def _is_folder(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # A link that leads to itself.
    return False


def _is_file(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_file()
  except OSError:
    return False


def _is_unicode(name: str) -> bool:
  # Python represents undecodable bytes of a file name by lone surrogates.
  return not any('\ud800' <= letter <= '\udfff' for letter in name)
