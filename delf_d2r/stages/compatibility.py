"""Artefacts that may be used together: descriptors are comparable only if one extractor made them."""

import functools

from delf_d2r.errors import UserError
from delf_d2r.protos import extraction_pb2

# What decides a descriptor's meaning; sizes and numbers of features may differ.
_DECISIVE_FIELDS = ('extractor', 'root_sift', 'delf.model_path', 'delf.pca', 'global_descriptor')


def require_same_extractor(
  ours: extraction_pb2.ExtractionConfig,
  our_place: object,
  theirs: extraction_pb2.ExtractionConfig,
  their_place: object,
  *,
  remedy: str,
) -> None:
  """Raises UserError, naming both places and values, unless both configs make the same descriptors."""
  for field in _DECISIVE_FIELDS:
    our_value, their_value = (_text(config, field) for config in (ours, theirs))
    if our_value != their_value:
      raise UserError(
        f'{our_place} and {their_place} come from different extractors: extraction.{field} is {our_value}'
        f' in the one, {their_value} in the other. {remedy}'
      )


def _text(config: extraction_pb2.ExtractionConfig, field: str) -> str:
  value = functools.reduce(getattr, field.split('.'), config)
  if field == 'extractor':
    return extraction_pb2.ExtractionConfig.Extractor.Name(value)
  if isinstance(value, str):
    return repr(value)
  # Unset and set to its defaults is the same extractor.
  values = (f'{item.name}: {getattr(value, item.name)}' for item in value.DESCRIPTOR.fields)
  return f'{{{", ".join(values)}}}'
