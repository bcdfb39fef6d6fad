"""Resolved configs as values: their text, fingerprint and differences.

Resolved means that every field with a default is written out, so that a saved config says all that was in
force and two configs are equal exactly when their text is.
"""

import copy
import hashlib
from collections.abc import Iterator

import numpy as np
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def resolve(config: Message) -> Message:
  """A copy with the default of every field written out, in the stages that are present."""
  config = copy.deepcopy(config)
  _write_defaults(config)
  return config


def _write_defaults(message: Message) -> None:
  for field in message.DESCRIPTOR.fields:
    if field.is_repeated:
      continue
    if field.type == FieldDescriptor.TYPE_MESSAGE:
      if message.HasField(field.name):
        _write_defaults(getattr(message, field.name))
    elif field.has_default_value and not message.HasField(field.name):
      setattr(message, field.name, field.default_value)


def to_text(config: Message) -> str:
  """The config as `.pbtxt`."""
  return text_format.MessageToString(config)


def fingerprint(config: Message) -> str:
  """A digest of the config, independent of the order and the layout of the file that it came from."""
  return hashlib.sha256(to_text(resolve(config)).encode()).hexdigest()[:16]


def differences(old: Message, new: Message, prefix: str = '') -> Iterator[tuple[str, str, str]]:
  """Yields (field, old value, new value) for every field in which two messages of one type differ."""
  for field in old.DESCRIPTOR.fields:
    name = f'{prefix}{field.name}'
    nested = field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated
    if nested and old.HasField(field.name) and new.HasField(field.name):
      yield from differences(getattr(old, field.name), getattr(new, field.name), f'{name}.')
    elif _value_text(old, field) != _value_text(new, field):
      yield name, _value_text(old, field), _value_text(new, field)


def _value_text(message: Message, field: FieldDescriptor) -> str:
  value = getattr(message, field.name)
  if field.is_repeated:
    return f'[{", ".join(str(item) for item in value)}]'
  if field.has_presence and not message.HasField(field.name) and not field.has_default_value:
    return '(unset)'
  if field.type == FieldDescriptor.TYPE_MESSAGE:
    return f'{{{text_format.MessageToString(value, as_one_line=True)}}}'
  if field.type == FieldDescriptor.TYPE_ENUM:
    return field.enum_type.values_by_number[value].name
  if field.type == FieldDescriptor.TYPE_FLOAT:
    # The shortest text that tells two float32 apart.
    return str(np.float32(value)).removesuffix('.0')
  return repr(value) if isinstance(value, str) else str(value)
