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

# Fields that say what the visual words and their codes are; the others say how words are trained.
_OF_WORDS = ('num_words', 'projection', 'bits')


def load() -> experiment_pb2.ExperimentConfig | None:
  """Returns how the codebook was made: its parts `extraction` and `codebook`; None if there is none."""
  return _load(DIRECTORY / CONFIG)


@functools.cache
def _load(path: pathlib.Path) -> experiment_pb2.ExperimentConfig | None:
  if not path.is_file():
    return None
  return text_format.Parse(path.read_text(encoding='utf-8'), experiment_pb2.ExperimentConfig())


def contradictions(config: Codebook, shipped: Codebook) -> Iterator[tuple[str, str, str]]:
  """Yields field, value and shipped value of what a config says of its words and is not so of the shipped."""
  for field, value in config.ListFields():
    expected = getattr(shipped, field.name)
    if field.name in _OF_WORDS and value != expected:
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

  Fields that say how to train are those of its training, since nothing is trained now. With another source,
  without a shipped codebook, or if the config is resolved already, it is a copy as it is.
  """
  copy = Codebook()
  copy.CopyFrom(config)
  shipped = load() if config.source == Codebook.SHIPPED else None
  if shipped is None or is_resolved(config):
    return copy
  for field in Codebook.DESCRIPTOR.fields:
    is_given = field.name == 'source' or (field.name in _OF_WORDS and config.HasField(field.name))
    if not is_given and shipped.codebook.HasField(field.name):
      value = getattr(shipped.codebook, field.name)
      if field.type == field.TYPE_MESSAGE:
        getattr(copy, field.name).CopyFrom(value)
      else:
        setattr(copy, field.name, value)
  return copy
