"""Work for the workers of a cluster, and faults that happen to them. Workers receive this module by value."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from delf_d2r.errors import ImageError
from delf_d2r.runtime import worker_pool
from delf_d2r.stages.detect_boxes import DetectedBoxes
from delf_d2r.structures import Boxes
from support.processes import wait_until

NODE = {'num_cpus': 1, 'object_store_memory': 80 << 20, 'node_ip_address': '127.0.0.1'}


def squares(group):
  """Squares items; the first group takes longest."""
  time.sleep(0.3 if 0 in group else 0)
  return [item * item for item in group]


def failing_at_3(group):
  if 3 in group:
    raise ImageError('x.jpg: broken')
  return list(group)


def dying_at_4(group):
  if 4 in group:
    os.kill(os.getpid(), signal.SIGKILL)
  return squares(group)


def detecting(photos):
  """Returns as many boxes as the number of the photo says, modulo 5, with the size of the group."""
  found = []
  for photo in photos:
    number = int(photo.path.stem) % 5
    low, high = np.full((number, 2), 0.25), np.linspace(0.5, 1, 2 * number).reshape(number, 2)
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    found.append(
      DetectedBoxes(photo.name, Boxes(boxes, np.linspace(1, 0.5, number, dtype=np.float32)), number)
    )
  return found


@dataclasses.dataclass(frozen=True)
class Disturbed:
  """A pool whose workers log what they do, are slow enough for a fault, and are killed by one of the photos.

  Attributes:
    pool: the workers.
    log: a folder that receives a file for each item that is begun.
    seconds: that each item takes longer.
    deadly: name of a photo, or number of a segment, that kills whoever looks at it.
  """

  pool: worker_pool.Pool
  log: pathlib.Path
  seconds: float = 0
  deadly: str | int = ''

  def map_groups(self, make_function, groups, **options):
    disturbance = _Disturbance(make_function, self.log, self.seconds, self.deadly)
    return self.pool.map_groups(disturbance, groups, **options)

  def workers(self) -> list[int]:
    """Process ids of all that have worked, the last to begin something at the end."""
    begun = sorted((int(file.suffix[1:]), int(file.stem)) for file in self.log.iterdir())
    return list(dict.fromkeys(process for _, process in reversed(begun)))[::-1]

  @contextlib.contextmanager
  def after(self, items: int, act: Callable[[], None]) -> Iterator[None]:
    """Does something within the block as soon as a number of items has been started."""

    def wait_and_act():
      wait_until(lambda: len(list(self.log.iterdir())) >= items)
      act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield
    thread.join()


@dataclasses.dataclass(frozen=True)
class _Disturbance:
  make_function: Callable
  log: pathlib.Path
  seconds: float
  deadly: str | int

  def __call__(self):
    function = self.make_function()

    def disturbed(group):
      for item in group:
        (self.log / f'{os.getpid()}.{time.time_ns()}').touch()
        if self.deadly in (getattr(item, 'name', None), getattr(item, 'number', None)):
          os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
      return function(group)

    return disturbed
