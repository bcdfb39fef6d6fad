"""Checks that artefacts may be used together: descriptors of different extractors cannot be compared."""

import functools

from google.protobuf.message import Message

from delf_d2r.data.artefacts import codebook_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.errors import UserError
from delf_d2r.extractors import registry
from delf_d2r.protos import extraction_pb2


def require_same_extractor(
  ours: extraction_pb2.ExtractionConfig,
  our_place: object,
  theirs: extraction_pb2.ExtractionConfig,
  their_place: object,
  *,
  remedy: str,
) -> None:
  """Raises UserError, naming both places and values, unless both configs make the same descriptors."""
  difference = _difference(ours, theirs)
  if difference:
    field, our_value, their_value = difference
    raise UserError(
      f'{our_place} and {their_place} come from different extractors: extraction.{field} is {our_value}'
      f' in the one, {their_value} in the other. {remedy}'
    )


def require_same_making(ours: Artefact, theirs: Artefact) -> None:
  """Raises UserError unless the aggregated descriptors of other photos were made as ours were."""
  differences = Plan(ours.manifest.kind, ours.config, ()).differences(
    Plan(ours.manifest.kind, theirs.config, ()).to_manifest()
  )
  here, there = ours.input('codebook'), theirs.input('codebook')
  if here and there and here.fingerprint != there.fingerprint:
    differences.append(f'codebook is {there.path} there, {here.path} here')
  if differences:
    raise UserError(
      f'{theirs.path} and {ours.path} were made differently: {"; ".join(differences)}. Aggregate both with'
      ' one config and one codebook'
    )


def is_same_extractor(ours: extraction_pb2.ExtractionConfig, theirs: extraction_pb2.ExtractionConfig) -> bool:
  """Returns whether both configs make the same descriptors."""
  return _difference(ours, theirs) is None


def _difference(
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


def require_same_dimensions(features: Artefact, codebook: Artefact) -> None:
  """Raises UserError, naming both values, unless the visual words have the dimensions of the descriptors."""
  first = next(features.records(), None)
  if first is None:
    return
  found = records.decode_features(first).features.dimensions
  expected = codebook_files.load_centroids(codebook.path).shape[1]
  if found != expected:
    raise UserError(
      f'{features.path} has descriptors of {found} dimensions, the visual words of {codebook.path} have'
      f' {expected}. Use the codebook of these features'
    )
