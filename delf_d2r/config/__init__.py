"""Configs: reads `.pbtxt` files and overrides into validated messages, and compares such messages."""

from delf_d2r.config.loading import STAGE_FIELDS, default, find, load, load_or_default
from delf_d2r.config.values import differences, fingerprint, resolve, to_text

__all__ = [
  'STAGE_FIELDS',
  'default',
  'differences',
  'find',
  'fingerprint',
  'load',
  'load_or_default',
  'resolve',
  'to_text',
]
