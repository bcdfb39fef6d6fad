"""Saving without TensorFlow's account of every tensor and shard."""

import contextlib
import os
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


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
  """Inside, nothing reaches the process's standard error, not even from native code that has no log level."""
  saved = os.dup(2)
  sink = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(sink, 2)
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
    os.close(sink)
