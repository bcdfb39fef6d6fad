"""Suppression of TensorFlow's messages, for example about every tensor and shard that it saves."""

import contextlib
import logging as standard_logging
import os
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def warnings_only() -> Iterator[None]:
  """Limits absl's log, which TensorFlow writes to, to warnings within a `with` block."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.WARNING)
  try:
    yield
  finally:
    logging.set_verbosity(before)


@contextlib.contextmanager
def without_reference_variables() -> Iterator[None]:
  """Discards a warning of each variable of a model of TensorFlow 1 within a `with` block.

  It says that such a variable does not become a Python object. Nothing here needs the object: the variables
  are restored and read by the graph.
  """
  logger = standard_logging.getLogger('tensorflow')
  logger.addFilter(_is_no_reference_variable)
  try:
    yield
  finally:
    logger.removeFilter(_is_no_reference_variable)


def _is_no_reference_variable(record: standard_logging.LogRecord) -> bool:
  return not record.getMessage().startswith('Unable to create a python object for variable')


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
  """Discards the process's standard error within a `with` block, even of native code without a log level."""
  saved = os.dup(2)
  sink = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(sink, 2)
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
    os.close(sink)
