"""Saving without TensorFlow's account of every tensor and shard."""

import contextlib
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def warnings_only() -> Iterator[None]:
  """Inside, absl's log, which TensorFlow writes to, keeps to warnings."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.WARNING)
  try:
    yield
  finally:
    logging.set_verbosity(before)
