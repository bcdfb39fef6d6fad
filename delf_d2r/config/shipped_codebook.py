"""The config of the codebook that comes with the package: `codebook { source: SHIPPED }`.

The files of the codebook itself are read by data/artefacts/packaged_codebook.py.
"""

import functools
import pathlib
from collections.abc import Iterator

from google.protobuf import text_format

from delf_d2r.extractors.registry import PACKAGED_MODELS
from delf_d2r.protos import codebook_pb2, experiment_pb2

DIRECTORY = PACKAGED_MODELS / 'default_codebook'
CONFIG = 'codebook.pbtxt'

Codebook = codebook_pb2.CodebookConfig


def load() -> experiment_pb2.ExperimentConfig | None:
  """Returns how the codebook was made: its parts `extraction` and `codebook`; None if there is none."""
  return _load(DIRECTORY / CONFIG)


@functools.cache
def _load(path: pathlib.Path) -> experiment_pb2.ExperimentConfig | None:
  if not path.is_file():
    return None
  return text_format.Parse(path.read_text(encoding='utf-8'), experiment_pb2.ExperimentConfig())


def contradictions(config: Codebook, shipped: Codebook) -> Iterator[tuple[str, str, str]]:
  """Yields field, value and shipped value of each field that is set to another value than the shipped one."""
  for field, value in config.ListFields():
    expected = getattr(shipped, field.name)
    if field.name != 'source' and value != expected:
      # A nested message is one line.
      found, wanted = (str(item).strip().replace('\n', ' ') for item in (value, expected))
      yield field.name, found, wanted


def is_resolved(config: Codebook) -> bool:
  """Returns whether all fields with a default are set, as in the saved config of a run.

  The run may be one of an earlier release, whose codebook was another one. It can be searched all the same,
  so the values of its config are no mistakes; making its codebook again is what cannot be done.
  """
  return all(config.HasField(field.name) for field in Codebook.DESCRIPTOR.fields if field.has_default_value)


def completed(config: Codebook) -> Codebook:
  """Returns a copy of a codebook config in which the fields that source: SHIPPED leaves open are set.

  With another source, or without a shipped codebook, it is a copy as it is.
  """
  copy = Codebook()
  copy.CopyFrom(config)
  shipped = load() if config.source == Codebook.SHIPPED else None
  if shipped is not None:
    copy = Codebook()
    copy.CopyFrom(shipped.codebook)
    for field, value in config.ListFields():
      copy.ClearField(field.name)
      if field.type == field.TYPE_MESSAGE:
        getattr(copy, field.name).CopyFrom(value)
      else:
        setattr(copy, field.name, value)
  return copy
