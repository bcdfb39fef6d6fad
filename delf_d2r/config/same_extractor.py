"""Whether two extraction configs make the same descriptors, which are compared with each other."""

import functools

from google.protobuf.message import Message

from delf_d2r.extractors import registry
from delf_d2r.protos import extraction_pb2


def difference(
  ours: extraction_pb2.ExtractionConfig, theirs: extraction_pb2.ExtractionConfig
) -> tuple[str, str, str] | None:
  """Returns the first field, and both values, that gives descriptors another meaning; None if none does."""
  for field in ('extractor', *registry.record(ours.extractor).decisive_fields):
    values = _text(ours, field), _text(theirs, field)
    if values[0] != values[1]:
      return field, *values
  return None


def _text(config: extraction_pb2.ExtractionConfig, field: str) -> str:
  if field == 'extractor':
    return registry.record(config.extractor).name
  value: object = functools.reduce(getattr, field.split('.'), config)
  if not isinstance(value, Message):
    return repr(value)
  # Unset and set to its defaults is the same extractor.
  values = (f'{item.name}: {getattr(value, item.name)}' for item in value.DESCRIPTOR.fields)
  return f'{{{", ".join(values)}}}'
