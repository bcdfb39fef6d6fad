"""Artefacts that may be used together: descriptors are comparable only if one extractor made them."""

import functools

from delf_d2r.data.artefacts import codebook_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.errors import UserError
from delf_d2r.protos import extraction_pb2

# What decides a descriptor's meaning; sizes and numbers of features may differ.
_DECISIVE_FIELDS = (
  'extractor',
  'root_sift',
  'delf.model_path',
  'delf.network',
  'delf.pca',
  'global_descriptor',
  'patches',
  'activation_regions',
)


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


def require_same_making(ours: Artefact, theirs: Artefact) -> None:
  """Raises UserError unless the aggregated descriptors of other photos were made as ours were."""
  differences = Plan(ours.manifest.kind, ours.config, ()).differences(
    Plan(ours.manifest.kind, theirs.config, ()).to_manifest()
  )
  codebooks = ours.input('codebook'), theirs.input('codebook')
  if codebooks[0].fingerprint != codebooks[1].fingerprint:
    differences.append(f'codebook is {codebooks[1].path} there, {codebooks[0].path} here')
  if differences:
    raise UserError(
      f'{theirs.path} and {ours.path} were made differently: {"; ".join(differences)}. Aggregate both with'
      ' one config and one codebook'
    )


def is_same_extractor(ours: extraction_pb2.ExtractionConfig, theirs: extraction_pb2.ExtractionConfig) -> bool:
  """Whether both configs make the same descriptors."""
  return all(_text(ours, field) == _text(theirs, field) for field in _DECISIVE_FIELDS)


def _text(config: extraction_pb2.ExtractionConfig, field: str) -> str:
  value = functools.reduce(getattr, field.split('.'), config)
  if field == 'extractor':
    return extraction_pb2.ExtractionConfig.Extractor.Name(value)
  if isinstance(value, str):
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
