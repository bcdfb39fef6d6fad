"""Reads a FusionConfig: how the scores of two searches of the same images are added."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r import aggregator
from delf_d2r.config import same_extractor
from delf_d2r.data import files
from delf_d2r.data.artefacts import background_files, codebook_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.background_files import Background
from delf_d2r.errors import UserError
from delf_d2r.extractors import registry
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.index.ranking import top_k as select_top_k
from delf_d2r.kernels import fusion
from delf_d2r.kernels.background import Expected, ExpectedOfImages
from delf_d2r.kernels.fusion import FusedScores
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.experiment_pb2 import ExperimentConfig
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.structures import AggregatedDescriptor, Ranking

# Fields of the first search on which the statistics of visual words do not depend; and `normalize`, whose
# default depends on others. A background photo stands for one region, whether the regions of an image are
# pooled, told apart by masks, or one alone.
_FREE = frozenset(
  (
    'assignment',
    'images_per_shard',
    'normalize',
    'query_assignment',
    'query_num_assignments',
    'region_masks',
    'regions',
    'value_type',
    'whole_image_weight',
  )
)
_REMEDY = (
  'Train a background model for these searches by d2r train_background and name it by fusion.background_path,'
  ' or set fusion.normalization: Z_SCORE, without power and norm_order'
)


class Fuser:
  """Adds the scores of two searches. Threads may share it."""

  def __init__(self, config: FusionConfig, background: Background | None = None):
    """Takes a config and, with normalization BACKGROUND, the model; use `of_indexes` to load and check it."""
    if (config.normalization == FusionConfig.BACKGROUND) != (background is not None):
      raise ValueError('expected a background model with normalization BACKGROUND, and only then')
    self._weight = config.weight
    self._power = config.power if config.HasField('power') else 1.0
    self._norm_order = config.norm_order if config.HasField('norm_order') else 1.0
    self._normalization = config.normalization
    self._both_sides = config.both_sides
    self._background = background

  @classmethod
  def of_indexes(
    cls, config: FusionConfig, first: Artefact, other: Artefact, *, aggregation: AggregationConfig
  ) -> 'Fuser':
    """Returns the fuser of the scores of two indexes; loads the background model, if the config wants one.

    Args:
      config: weight, normalization and background model.
      first: the index of the first search.
      other: the index of the other search.
      aggregation: how queries and images are compared in the first search.

    Raises:
      UserError: the background model is missing or damaged, or it is of other searches.
    """
    if config.normalization != FusionConfig.BACKGROUND:
      return cls(config)
    background = background_files.load(background_place(config))
    _require_fits(background, background_place(config), first, other, aggregation)
    return cls(config, background)

  @property
  def needs_queries(self) -> bool:
    """Whether scores cannot be added without the descriptors of the query."""
    return self._background is not None

  def of_images(self, other: InvertedIndex) -> ExpectedOfImages | None:
    """Returns what the images of the other index score with unrelated ones; None if it is not wanted.

    Compute it once for an index that does not change.
    """
    if self._background is None or not self._both_sides:
      return None
    return self._background.descriptors.expected_of_images(other.dense_rows())

  def __call__(
    self,
    first: npt.NDArray[Any],
    other: npt.NDArray[Any],
    query: AggregatedDescriptor | None = None,
    other_query: AggregatedDescriptor | None = None,
    images: ExpectedOfImages | None = None,
  ) -> FusedScores:
    """Returns the joint scores of M images, and their parts.

    Args:
      first: float [M], the scores of the first search.
      other: float [M], those of the other search, for the same images.
      query, other_query: the query as both searches describe it; see `needs_queries`.
      images: that of `of_images`, for the same images in the same order.
    """
    if self._background is not None:
      if query is None or other_query is None:
        raise ValueError('expected the descriptors of the query, found None')
      of_words = self._background.words.expected(query.visual_words)
      of_values = Expected(0, 0)
      if len(other_query):
        of_values = self._background.descriptors.expected(other_query.values[0])
      ours = fusion.standardized(first, of_words.mean, of_words.deviation)
      if self._both_sides:
        if images is None:
          raise ValueError('both_sides: expected the statistics of the images, found None; give of_images')
        standardized = fusion.symmetric(other, of_values, images)
      else:
        standardized = fusion.standardized(other, of_values.mean, of_values.deviation)
      theirs = fusion.positive_power(standardized, self._power)
    elif self._normalization == FusionConfig.NONE:
      ours, theirs = first.astype(np.float64), other.astype(np.float64)
    else:
      ours, theirs = fusion.z_scores(first), fusion.z_scores(other)
    return fusion.add(ours, theirs, self._weight, norm_order=self._norm_order)


def background_place(config: FusionConfig) -> pathlib.Path:
  """Returns the directory of the background model of a config."""
  return pathlib.Path(config.background_path) if config.background_path else background_files.SHIPPED


def require_planned_fits(config: FusionConfig, aggregation: AggregationConfig) -> None:
  """Raises UserError unless the background model of a run is of its searches, codebooks aside.

  Before the run, so that it does not end after hours with indexes that cannot be searched.

  Args:
    config: of the run; its `extraction` and `aggregation` are those of the other search. Without a background
      model, nothing is required.
    aggregation: of the first search.
  """
  if config.normalization == FusionConfig.BACKGROUND:
    place = background_place(config)
    _require_same_searches(background_files.load(place), place, aggregation, config)


def _require_fits(
  background: Background,
  place: pathlib.Path,
  first: Artefact,
  other: Artefact,
  aggregation: AggregationConfig,
) -> None:
  """Raises UserError, naming both values, unless a background model is of two searches."""
  _require(place, 'the codebook', codebook_files.digest(first.path), background.codebook, str(first.path))
  names = (str(first.path), str(other.path))
  _require_same_searches(background, place, aggregation, other.config, names=names)


def _require_same_searches(
  background: Background,
  place: pathlib.Path,
  aggregation: AggregationConfig,
  other: FusionConfig | ExperimentConfig,
  *,
  names: tuple[str, str] = ('the config', 'the config'),
) -> None:
  """Raises UserError unless a background model is of two searches, codebooks aside.

  Args:
    background: the model.
    place: its directory.
    aggregation: of the first search.
    other: its `extraction` and `aggregation` are those of the other search.
    names: how the message calls the first and the other search.
  """
  for field in sorted(set(AggregationConfig.DESCRIPTOR.fields_by_name) - _FREE):
    found, expected = (_text(each, field) for each in (aggregation, background.config.aggregation))
    _require(place, f'aggregation.{field}', found, expected, names[0])
  normalizes, expected_to = aggregator.normalizes(aggregation), background.words.normalize
  _require(place, 'aggregation.normalize', str(normalizes).lower(), str(expected_to).lower(), names[0])
  theirs = background.config.fusion
  difference = same_extractor.difference(other.extraction, theirs.extraction)
  if difference:
    _require(place, f'fusion.extraction.{difference[0]}', *difference[1:], names[1])
  found, expected = (_text(each.aggregation, 'kernel') for each in (other, theirs))
  _require(place, 'fusion.aggregation.kernel', found, expected, names[1])
  for role, path in registry.model_files(other.extraction).items():
    if path.exists():  # Else no photo can be described, which says so itself.
      _require(place, f'the global {role}', files.fingerprint(path), background.models.get(role), names[1])


def _require(place: pathlib.Path, what: str, found: object, expected: object, name: str) -> None:
  if found != expected:
    raise UserError(
      f'{place}: the background model is of {what} {expected}, that of {name} is {found}. {_REMEDY}'
    )


def _text(config: AggregationConfig, field: str) -> str:
  """Returns the value of a field, or its default, as it is written in a config."""
  value = getattr(config, field)
  enum = config.DESCRIPTOR.fields_by_name[field].enum_type
  return enum.values_by_number[value].name if enum else str(value).lower()


def ranked(
  fused: FusedScores,
  best_regions: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int32]],
  *,
  top_k: int,
  name: str = '',
) -> Ranking:
  """Returns the ranking of M images by fused scores, with both parts.

  Args:
    fused: the scores.
    best_regions: from ids of images, int64 [k], to their best regions, int32 [k].
    top_k: length of the ranking.
    name: of the query.
  """
  ids = select_top_k(fused.scores, top_k)
  return Ranking(
    name,
    ids,
    fused.scores[ids],
    best_regions(ids),
    local_scores=fused.local_scores[ids],
    global_scores=fused.global_scores[ids],
  )
