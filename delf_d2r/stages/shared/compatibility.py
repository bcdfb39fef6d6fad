"""Checks that artefacts may be used together: descriptors of different extractors cannot be compared."""

from delf_d2r.config import same_extractor
from delf_d2r.data.artefacts import codebook_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.errors import UserError
from delf_d2r.protos import aggregation_pb2, extraction_pb2


def require_same_extractor(
  ours: extraction_pb2.ExtractionConfig,
  our_place: object,
  theirs: extraction_pb2.ExtractionConfig,
  their_place: object,
  *,
  remedy: str,
) -> None:
  """Raises UserError, naming both places and values, unless both configs make the same descriptors."""
  difference = same_extractor.difference(ours, theirs)
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


def require_same_codebook(descriptors: Artefact, codebook: Artefact) -> None:
  """Raises UserError, naming both codebooks and their bits, unless it aggregated the descriptors."""
  used = descriptors.input('codebook')
  if used is None or used.fingerprint == codebook.manifest.fingerprint:
    return
  first = next(descriptors.records(), None)
  found = records.decode_descriptors(first).descriptors[0].dimensions if first else 0
  raise UserError(
    f'{descriptors.path} was aggregated with the codebook {used.fingerprint} ({used.path}) to descriptors of'
    f' {found} dimensions (bits), but {codebook.path} is the codebook {codebook.manifest.fingerprint} of'
    f' {codebook_files.load_bits(codebook.path)}. Give the codebook of these descriptors, or aggregate again'
  )


def require_projection_kernel(codebook: Artefact, aggregation: aggregation_pb2.AggregationConfig) -> None:
  """Raises UserError if a codebook has a projection that the kernel has no use for."""
  projection = codebook_files.load_projection(codebook.path)
  if projection is not None and aggregation.kernel != aggregation_pb2.AggregationConfig.ASMK_STAR:
    name = aggregation_pb2.AggregationConfig.Kernel.Name(aggregation.kernel)
    raise UserError(
      f'{codebook.path} projects residuals to {projection.bits} bits, which has a meaning only with'
      f' aggregation.kernel: ASMK_STAR, found {name}. Change the kernel, or train a codebook without'
      ' codebook.projection and codebook.bits'
    )


def require_no_projection(codebook: Artefact) -> None:
  """Raises UserError if a codebook has a projection, which the DELF code does not know."""
  projection = codebook_files.load_projection(codebook.path)
  if projection is not None:
    raise UserError(
      f'{codebook.path}: projects residuals to {projection.bits} bits, but codebooks of the tensorflow/models'
      ' DELF code have no projection. Train a codebook without codebook.projection and codebook.bits'
    )


def is_same_extractor(ours: extraction_pb2.ExtractionConfig, theirs: extraction_pb2.ExtractionConfig) -> bool:
  """Returns whether both configs make the same descriptors."""
  return same_extractor.difference(ours, theirs) is None


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
