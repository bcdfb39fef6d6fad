"""The indexed photos for the web: found by id or name and never by path, also while the index changes."""

import pathlib
import threading

from delf_d2r.engine import SearchEngine
from delf_d2r.serving.problems import Problem


class IndexedPhotos:
  """The photos of an index by ids that stay.

  At first the ids are those of the index. A photo that is added to the engine gets the next one; that of a
  removed photo leads to nothing, unless the name comes back. So a page that was open before shows no other
  photo in its place.

  A request names a photo by its id or its name in the index; what is not there is not found, so no request
  can lead to another file. The folders are those of the engine.
  """

  def __init__(self, engine: SearchEngine):
    self._engine = engine
    self._lock = threading.Lock()
    self._index = None
    self._positions: dict[str, int] = {}
    self._names: list[str] = []  # By id, with those that were removed.
    self._ids: dict[str, int] = {}

  def __len__(self) -> int:
    return len(self._engine)

  @property
  def are_at_hand(self) -> bool:
    """Whether there is a folder where photos may be."""
    return any(folder.is_dir() for folder in self._engine.photos.folders)

  def id_of(self, name: str) -> int:
    """The id of a name; Problem 404 if the index does not have it (any more)."""
    if name not in self._current():
      raise Problem(404, f'the index has no photo {name[:200]!r}', 'GET /api/images lists all names.')
    return self._ids[name]

  def id_of_result(self, name: str) -> int:
    """The same for a result, whose photo may have been removed since."""
    self._current()
    with self._lock:
      return self._id(name)

  def position(self, photo: int) -> int:
    """The image id that the engine has now for an id; Problem 404 if it has none (any more)."""
    return self._find(photo)[1]

  def path(self, photo: int) -> pathlib.Path:
    """The file of an indexed photo; Problem 404 as of `position`, or if the photo is not at hand."""
    name, _ = self._find(photo)
    path = self._engine.photos.find(name)
    if path is None:
      raise Problem(
        404,
        f'the photo {name} is not at hand',
        'Start the server with --images=FOLDER, where the photos are now; repeat it for several folders.',
      )
    return path

  def find(self, text: str, start: int, count: int) -> tuple[int, list[tuple[int, str]]]:
    """How many names contain `text`, in any case, and id and name of `count` of them from `start`."""
    names = self._current().keys()
    wanted = text.casefold()
    found = [name for name in names if wanted in name.casefold()] if text else list(names)
    return len(found), [(self._ids[name], name) for name in found[start : start + count]]

  def _find(self, photo: int) -> tuple[str, int]:
    """The name of an id and the image id that the engine has for it now."""
    positions = self._current()
    if not 0 <= photo < len(self._names):
      raise Problem(404, f'the index has {len(positions)} photos, none with id {photo}')
    name = self._names[photo]
    if name not in positions:
      raise Problem(404, f'the photo {name} was removed from the index', 'Search again.')
    return name, positions[name]

  def _current(self) -> dict[str, int]:
    """The engine's image ids by name; never changed, for it is made anew when the index has changed."""
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
