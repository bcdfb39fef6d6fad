"""Reads a VerificationConfig: the matching and the verification that it chooses."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from delf_d2r.config.rules import runs
from delf_d2r.errors import ConfigError
from delf_d2r.extractors import registry
from delf_d2r.extractors.registry import DescriptorKind
from delf_d2r.geometry import channels, legacy_rule, matching, verification
from delf_d2r.geometry.matching import PutativeMatches
from delf_d2r.geometry.merging import merge_regions
from delf_d2r.geometry.transforms import Limits, Model
from delf_d2r.geometry.verification import Estimator, Options, Verification
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.structures import ImageFeatures, LocalFeatures, Match, Ranking

_MODELS = {
  VerificationConfig.AFFINE: Model.AFFINE,
  VerificationConfig.SIMILARITY: Model.SIMILARITY,
  VerificationConfig.HOMOGRAPHY: Model.HOMOGRAPHY,
}
# The average number of features at a scale from which on they are cells of a pyramid.
_LEAST_AT_A_SCALE = 4
_ESTIMATORS = {VerificationConfig.USAC: Estimator.USAC, VerificationConfig.DEGENSAC: Estimator.DEGENSAC}


def why_unverifiable(extractor: ExtractionConfig.Extractor, config: VerificationConfig) -> str:
  """Returns why features of an extractor cannot be verified by a config; an empty string if they can."""
  record = registry.record(extractor)
  if record.descriptors is DescriptorKind.GLOBAL:
    return (
      'global descriptors have no places that could agree. Give local features of the same photos, for'
      ' example of extractor: ROOT_SIFT'
    )
  is_channel = record.descriptors is DescriptorKind.CHANNEL
  if is_channel != (config.matching == VerificationConfig.SAME_CHANNEL):
    return (
      f'features of {record.name} cannot be matched by'
      f' {VerificationConfig.Matching.Name(config.matching)}. Set verification.matching:'
      f' {"SAME_CHANNEL" if is_channel else "DESCRIPTORS"}'
    )
  return ''


class Verifier:
  """Matches the features of two images and finds the matches that agree. Threads may share it."""

  def __init__(self, config: VerificationConfig, extractor: ExtractionConfig.Extractor | None = None):
    """Prepares to verify features.

    Args:
      config: how.
      extractor: of the features. Kinds of features that it joins are matched one after the other, which saves
        time; None: all together.

    Raises:
      ConfigError: a package that is needed is not installed.
    """
    for problem in runs.missing_estimator(config):
      raise ConfigError(problem.text)
    self._config = config
    self._unit_origins = None if extractor is None else registry.record(extractor).unit_origins
    self._options = Options(
      model=_MODELS[config.model],
      estimator=_ESTIMATORS[config.estimator],
      max_residual=config.max_residual,
      trials=config.trials,
      min_inliers=config.min_inliers,
      max_false_alarms=config.max_false_alarms,
      limits=Limits(config.max_scale, config.max_anisotropy, config.min_spread),
      seed=config.seed,
    )

  def __call__(self, query: LocalFeatures, index: LocalFeatures) -> tuple[PutativeMatches, Verification]:
    """Returns the putative matches of a query's features with an index image's, and those that agree."""
    config = self._config
    if config.compat:
      matches = legacy_rule.match(query.descriptors, index.descriptors, max_distance=config.max_distance)
      found = legacy_rule.verify(
        query.locations[matches.query],
        index.locations[matches.index],
        max_residual=config.max_residual,
        trials=config.trials,
        seed=config.seed,
      )
    elif config.matching == VerificationConfig.SAME_CHANNEL:
      matches, found = self._by_channel(query, index)
    else:
      doubts_ratio = self._doubts_ratio(query, index)
      matches = matching.match(
        query.descriptors,
        index.descriptors,
        max_distance=config.max_distance,
        ratio=config.ratio,
        mutual=config.mutual,
        all_mutual=doubts_ratio,
        origins=self._unit_origins and self._unit_origins(query.dimensions),
      )
      places = query.locations[matches.query], index.locations[matches.index]
      found = verification.verify(*places, self._options, credible=matches.credible)
      if doubts_ratio and not len(found):
        found = verification.verify(*places, self._options, credible=matches.mutual)
    return matches, found

  def _doubts_ratio(self, query: LocalFeatures, index: LocalFeatures) -> bool:
    """Returns whether a transform is also searched among all mutual matches, whatever their ratio.

    The cells of an image pyramid, such as those of DELF, overlap: the second nearest descriptor is often that
    of a neighbouring cell, which has the right place, too, and the ratio test rejects most right matches. Of
    keypoints it rejects wrong ones.
    """
    return self._config.mutual and self._config.ratio < 1 and all(map(_of_pyramid, (query, index)))

  def _by_channel(self, query: LocalFeatures, index: LocalFeatures) -> tuple[PutativeMatches, Verification]:
    options = self._options
    matches = channels.match(query, index)
    agree = channels.consistent_matches(
      query,
      index,
      matches,
      max_residual=options.max_residual,
      max_scale=options.limits.max_scale,
      trials=options.trials,
    )
    places = query.locations[matches.query], index.locations[matches.index]
    return matches, verification.verify(*places, options, credible=agree)

  def match(self, query: LocalFeatures, image_id: int, index: LocalFeatures) -> Match:
    """Returns the outcome for the index image of an id, without the matches that do not agree."""
    matches, found = self(query, index)
    return Match(
      image_id,
      found.matrix,
      query.locations[matches.query[found.inliers]],
      index.locations[matches.index[found.inliers]],
    )


def _of_pyramid(features: LocalFeatures) -> bool:
  """Returns whether many features share a scale, as the cells of a pyramid do and keypoints do not."""
  return len(np.unique(features.scales)) * _LEAST_AT_A_SCALE <= len(features)


def features_to_match(image: ImageFeatures, options: VerificationConfig) -> LocalFeatures:
  """Returns the features of an index image that are matched with those of a query."""
  has_channels = options.matching == VerificationConfig.SAME_CHANNEL
  if options.compat or has_channels or options.features == VerificationConfig.WHOLE_IMAGE:
    return image.region(0)
  return merge_regions(image)


def reordered(ranking: Ranking, matches: Sequence[Match], *, length: int | None = None) -> Ranking:
  """Returns the ranking with verified images first, by descending inliers, and all others in their order.

  Args:
    ranking: of k images.
    matches: of some of them.
    length: the number of images to keep from the head; None: all.
  """
  inliers_of = {match.image_id: len(match) for match in matches}
  inliers = np.array([inliers_of.get(image, 0) for image in ranking.image_ids.tolist()], np.int32)
  order = np.argsort(-inliers, kind='stable')[:length]
  return dataclasses.replace(ranking.take(order), inliers=inliers[order])
