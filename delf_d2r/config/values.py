"""Resolved configs as values: their text, fingerprints and differences.

In a resolved config, every field with a default is written out. A saved config therefore shows every value
that was used, and two configs are equal if and only if their texts are. For a codebook that comes with the
package these are the values that it was made with.
"""

import copy
import hashlib
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from delf_d2r.config import shipped_codebook
from delf_d2r.protos import codebook_pb2

MessageT = TypeVar('MessageT', bound=Message)


def resolve(config: MessageT) -> MessageT:
  """Returns a copy with the default of every field written out, in the stages that are present."""
  config = copy.deepcopy(config)
  _write_defaults(config)
  return config


def _write_defaults(message: Message) -> None:
  if isinstance(message, codebook_pb2.CodebookConfig):
    message.CopyFrom(shipped_codebook.completed(message))
  for field in message.DESCRIPTOR.fields:
    if field.is_repeated:
      continue
    if field.type == FieldDescriptor.TYPE_MESSAGE:
      if message.HasField(field.name):
        _write_defaults(getattr(message, field.name))
    elif field.has_default_value and not message.HasField(field.name):
      setattr(message, field.name, field.default_value)


def to_text(config: Message) -> str:
  """Returns the config in protobuf text format."""
  return text_format.MessageToString(config)


def fingerprint(config: Message) -> str:
  """Returns a digest of the resolved config, which does not depend on order or layout of its file."""
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
    # The shortest text that distinguishes two float32 values.
    return str(np.float32(value)).removesuffix('.0')
  return repr(value) if isinstance(value, str) else str(value)
