"""The indexed photos by stable ids or names, never by path, also while the index changes."""

import pathlib
import threading

from delf_d2r.engine import SearchEngine
from delf_d2r.serving.problems import Problem


class IndexedPhotos:
  """The photos of an index by ids that never change. Threads may share it.

  At first the ids are those of the index. A photo that is added to the engine gets the next id. The id of a
  removed photo is not used again, unless a photo of the same name is added. So a page that was opened before
  a change never shows another photo in the place of a removed one. Callers that need the changes of other
  processes call `SearchEngine.refresh` first.

  Requests name a photo by its id or by its name in the index, so no request can read another file.
  """

  def __init__(self, engine: SearchEngine):
    """Takes the engine, whose folders of photos are used."""
    self._engine = engine
    self._lock = threading.Lock()
    self._index: object = None  # that of `_positions`
    self._positions: dict[str, int] = {}
    self._names: list[str] = []  # by id, including removed photos
    self._ids: dict[str, int] = {}

  def __len__(self) -> int:
    """Returns the number of photos that are in the index now."""
    return len(self._engine)

  @property
  def can_be_shown(self) -> bool:
    """Whether one of the folders of photos exists."""
    return any(folder.is_dir() for folder in self._engine.photos.folders)

  def id_of(self, name: str) -> int:
    """Returns the id of the photo of a name.

    Raises:
      Problem: 404, the index has no such photo (any more).
    """
    if name not in self._current():
      raise Problem(404, f'the index has no photo {name[:200]!r}', 'GET /api/images lists all names.')
    return self._ids[name]

  def id_of_result(self, name: str) -> int:
    """Returns the id of the photo of a result, which may have been removed from the index since."""
    self._current()
    with self._lock:
      return self._id(name)

  def position(self, photo: int) -> int:
    """Returns the current position in the index of the photo of an id.

    Raises:
      Problem: 404, the index has no such photo (any more).
    """
    return self._find(photo)[1]

  def path(self, photo: int) -> pathlib.Path:
    """Returns the file of an indexed photo.

    Raises:
      Problem: 404, the index has no such photo (any more), or the file cannot be found.
    """
    name, _ = self._find(photo)
    path = self._engine.photos.find(name)
    if path is None:
      raise Problem(
        404,
        f'the photo {name} cannot be found',
        'Start the server with --images=FOLDER, where the photos are now; repeat it for several folders.',
      )
    return path

  def find(self, text: str, start: int, count: int) -> tuple[int, list[tuple[int, str]]]:
    """Returns the number of names that contain a text, and some of them with their ids.

    Args:
      text: the text to look for, ignoring case; an empty text matches all names.
      start: the position of the first match to return.
      count: the maximum number of matches to return.
    """
    names = self._current().keys()
    wanted = text.casefold()
    found = [name for name in names if wanted in name.casefold()] if text else list(names)
    return len(found), [(self._ids[name], name) for name in found[start : start + count]]

  def _find(self, photo: int) -> tuple[str, int]:
    """Returns the name of the photo of an id, and its current position in the index."""
    positions = self._current()
    if not 0 <= photo < len(self._names):
      raise Problem(404, f'the index has {len(positions)} photos, none with id {photo}')
    name = self._names[photo]
    if name not in positions:
      raise Problem(404, f'the photo {name} was removed from the index', 'Search again.')
    return name, positions[name]

  def _current(self) -> dict[str, int]:
    """Returns the positions in the index by name; a change of the index leads to a new dictionary."""
    with self._lock:
      index = self._engine.index
      if index is not self._index:
        self._positions = {name: image_id for image_id, name in enumerate(index.image_names)}
        for name in self._positions:
          self._id(name)
        self._index = index
      return self._positions

  def _id(self, name: str) -> int:
    if name not in self._ids:
      self._ids[name] = len(self._names)
      self._names.append(name)
    return self._ids[name]
