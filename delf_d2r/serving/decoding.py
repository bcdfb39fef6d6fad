"""A bound on the pixels of all photos that are decoded at the same time.

A photo takes memory by its pixels, not by the size of its file: a PNG file of 300 kB may hold 100 megapixels.
"""

import collections
import contextlib
import ctypes
import pathlib
import threading
from collections.abc import Iterator

from delf_d2r.data.photos import images
from delf_d2r.serving.problems import Problem

_ANY_MEGAPIXELS = 1_000_000_000
_MANY_PIXELS = 20_000_000


class DecodingBudget:
  """Bounds the pixels decoded at the same time. Threads share it, and are served in order of arrival."""

  def __init__(self, megapixels: float, *, seconds: float):
    """Takes the limits.

    Args:
      megapixels: maximum size of all photos in total that are decoded at the same time. A larger photo is
        decoded when no other one is.
      seconds: how long a photo waits for others before it is refused.
    """
    self._most = round(1e6 * megapixels)
    self._seconds = seconds
    self._used = 0
    self._waiting: collections.deque[object] = collections.deque()
    self._changed = threading.Condition()

  @contextlib.contextmanager
  def of_photo(self, photo: bytes | pathlib.Path, *, name: str = '') -> Iterator[None]:
    """Waits until a photo may be decoded; its pixels count until the end of the body.

    Args:
      photo: the path of a file, or its content.
      name: the name of the photo in messages; by default its path.

    Raises:
      ImageError: the photo cannot be opened.
      Problem: 503, photos that arrived earlier take too long.
    """
    # Whoever decodes it checks its size.
    with images.open_image(photo, name=name, max_megapixels=_ANY_MEGAPIXELS) as image:
      pixels = image.width * image.height
    with self.of_pixels(pixels):
      yield

  @contextlib.contextmanager
  def of_pixels(self, pixels: int) -> Iterator[None]:
    """Waits until so many pixels may be decoded; they count until the end of the body.

    Raises:
      Problem: 503, photos that arrived earlier take too long.
    """
    ticket = object()
    with self._changed:
      self._waiting.append(ticket)
      try:
        is_free = self._changed.wait_for(lambda: self._is_next(ticket, pixels), self._seconds)
      finally:
        self._waiting.remove(ticket)
        self._changed.notify_all()
      if not is_free:
        raise Problem(503, f'the server is busy: the photo waited for more than {self._seconds:g} s')
      self._used += pixels
    try:
      yield
    finally:
      if pixels > _MANY_PIXELS:
        _return_memory()
      with self._changed:
        self._used -= pixels
        self._changed.notify_all()

  def _is_next(self, ticket: object, pixels: int) -> bool:
    return self._waiting[0] is ticket and (not self._used or self._used + pixels <= self._most)


def _return_memory() -> None:
  """Returns to the operating system what a large photo took; the C library would keep it for the next one."""
  trim = getattr(_C_LIBRARY, 'malloc_trim', None)  # of the GNU C library
  if trim is not None:
    trim(0)


_C_LIBRARY = ctypes.CDLL(None)
