"""The photos that an artefact was made from, each as it was when it was decoded.

The ledger of an artefact (shard_ledger.py) names them, shard by shard. Their digests make one fingerprint,
which is an input of the artefact with the role `photo_contents`. It is known only when all photos are read.
Until then, and for a quick look before any work, names, sizes, heads and tails have to do
(`data.photos.image_list`).
"""

import dataclasses
import enum
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from delf_d2r.data.artefacts.artefact import Input
from delf_d2r.data.photos import photo_state
from delf_d2r.data.photos.photo_state import PhotoState, Trust
from delf_d2r.errors import ImageError, PhotoUnavailableError

ROLE = 'photo_contents'


class Use(enum.Enum):
  """What became of a photo."""

  READ = ''
  # It could not be decoded; every run tries it again.
  FAILED = 'failed'
  # It was decoded and nothing can be made of it; tried again when it has changed.
  UNUSABLE = 'unusable'


@dataclasses.dataclass(frozen=True)
class ReadPhoto:
  """A photo that was read, or could not be. Without arguments: no photo was needed for an item.

  Attributes:
    use: what became of it.
    state: of its bytes; None where they could not be read.
    name: of the photo, relative to the folder of photos.
  """

  use: Use = Use.READ
  state: PhotoState | None = None
  name: str = ''

  @classmethod
  def of(cls, name: str, path: pathlib.Path, *, is_used: bool) -> 'ReadPhoto':
    """Reads a photo as it is now; one that has no part in the artefact is not read."""
    if not is_used:
      return cls(Use.FAILED, None, name)
    try:
      return cls(Use.READ, PhotoState(photo_state.digest(path)), name)
    except OSError:
      return cls(Use.FAILED, None, name)

  def has_stamp(self, stamp: tuple[int, int, int]) -> bool:
    """Returns whether the photo had this size and these times when it was read, or could not be read."""
    return self.state is None or stamp == (self.state.size, self.state.modified, self.state.changed)

  def to_json(self) -> list[Any]:
    """Returns the values that the ledger holds."""
    state = self.state or PhotoState('')
    return [self.name, state.digest, state.size, state.modified, state.changed, self.use.value]

  @classmethod
  def from_json(cls, values: Sequence[Any]) -> 'ReadPhoto':
    """Inverts `to_json`; raises ValueError or TypeError for anything else."""
    name, digest, size, modified, changed, use = values
    return cls(Use(use), PhotoState(digest, size, modified, changed) if digest else None, name)


@dataclasses.dataclass(frozen=True)
class PhotoFiles:
  """The photos of an artefact that is to be made: one for each of its items, in the order of the items.

  Attributes:
    planned: the input that they are, as it was planned.
    items: the names of the items.
    names: of their photos, relative to the folder `planned.path`.
    path: returns the path of a photo from its name.
    decode: decodes a photo; raises ImageError.
    stamps: of each photo (size, modification time, time of the last change) at the time of planning.
    plan_again: returns the input as it is now.
    strict: whether a photo that cannot be used is an error.
    one_each: whether there is one photo for each item. If not, the artefact does not note the photos, and is
      made again if one of `items` that could not be read can be read now.
  """

  planned: Input
  items: Sequence[str]
  names: Sequence[str]
  path: Callable[[str], pathlib.Path]
  decode: Callable[[pathlib.Path], object]
  stamps: Sequence[tuple[int, int, int]]
  plan_again: Callable[[], Input]
  strict: bool = False
  one_each: bool = True

  def confirmed(self, photo: ReadPhoto, *, trust: Trust = Trust.MODIFIED) -> ReadPhoto | None:
    """Returns a photo with its present times if the same would come of it now, otherwise None.

    A photo that could not be decoded is tried again.

    Raises:
      PhotoUnavailableError: it cannot be read for the moment.
      ImageError: with `strict`, it still cannot be used.
    """
    if photo.use is Use.READ and photo.state is None:
      return photo
    path = self.path(photo.name)
    if photo.use is Use.FAILED:
      return None if self.can_decode(photo.name) else photo
    state = photo.state.confirmed(path, trust=trust) if photo.state else None
    if state and photo.use is Use.UNUSABLE and self.strict:
      raise ImageError(f'{path}: could not be used, errors.jsonl says why (stopped, because of --strict)')
    return dataclasses.replace(photo, state=state) if state else None

  def can_decode(self, name: str) -> bool:
    """Returns whether a photo can be decoded; errors as of `confirmed`."""
    try:
      self.decode(self.path(name))
    except PhotoUnavailableError:
      raise
    except ImageError as error:
      if self.strict:
        raise ImageError(f'{error} (stopped, because of --strict)') from error
      return False
    return True


class ContentDigest:
  """The contents of all photos in order; those that have no part in the artefact count with their names."""

  def __init__(self) -> None:
    self._digest = hashlib.sha256()

  def add(self, photo: ReadPhoto) -> None:
    """Adds the next photo."""
    content = photo.state.digest if photo.use is Use.READ and photo.state else '-'
    self._digest.update(photo.name.encode('utf-8', 'surrogateescape') + b'\0' + content.encode() + b'\0')

  def as_input(self, photos: Input) -> Input:
    """Returns the contents as an input of an artefact, beside the input `photos`."""
    return Input(ROLE, self._digest.hexdigest()[:16], photos.path)


def contents(read: Iterable[ReadPhoto], photos: Input) -> Input:
  """Returns the contents of all photos as an input of an artefact."""
  digest = ContentDigest()
  for photo in read:
    digest.add(photo)
  return digest.as_input(photos)
