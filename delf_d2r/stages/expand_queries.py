"""expand_queries: every query again, together with the features of its verified images.

Query expansion with geometry after Tolias and Jegou, "Visual query expansion with or without geometry:
refining local descriptors by feature aggregation" (Pattern Recognition 2014): the features of verified
images that fall into the query, mapped there by the transform that was found, join the query's own, word by
word, and a word that the query does not have must occur in several images. Here query and images are the
regions of one R-ASMK descriptor (Teichmann et al., CVPR 2019, section 4.2), which gives each image the same
weight however many features it has. The weights are those of alpha query expansion (Radenovic, Tolias, Chum,
PAMI 2019) with shares of inliers in place of similarities.
"""

import pathlib
import time

import numpy as np
from absl import logging

from delf_d2r.data.artefacts import artefact_writer, match_records, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.data.artefacts.match_records import QueryMatches
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import UserError
from delf_d2r.geometry import transforms
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.expansion_pb2 import QueryExpansionConfig
from delf_d2r.runtime import progress
from delf_d2r.structures import AggregatedDescriptor, ImageFeatures, LocalFeatures, Match
from delf_d2r.verifier import features_to_match, reordered


def run(
  config: experiment_pb2.ExperimentConfig,
  reranked: Artefact,
  index: Artefact,
  features: Artefact,
  query_features: Artefact,
  output: pathlib.Path,
  *,
  distractors: Artefact | None = None,
  redo: bool = False,
) -> Artefact:
  """Ranks the index images for every expanded query.

  Images that were verified before stay ahead, by their inliers; all others follow in the order of the
  expanded query. A query without verified images keeps its ranking.

  Args:
    config: its part `expansion` says how.
    reranked: the artefact of rerank_results.
    index, features, query_features: the artefacts that `reranked` was made from.
    output: the artefact directory.
    distractors: the features of distractors that `reranked` was made from, if there are any.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

  Raises:
    UserError: the artefacts do not belong together, or the output cannot be written.
  """
  options = config.expansion
  made_from = {'index': index, 'features': features, 'query_features': query_features}
  if distractors:
    made_from['distractor_features'] = distractors
  _require_inputs(reranked, made_from)
  merged = experiment_pb2.ExperimentConfig()
  merged.CopyFrom(reranked.config)
  merged.expansion.CopyFrom(options)
  inputs = tuple(artefact.as_input(role) for role, artefact in {'reranked': reranked, **made_from}.items())
  with artefact_writer.writing(output, Plan('rankings', merged, inputs), redo=redo) as writer:
    if writer.finished:
      return writer.reuse('expanded queries')
    stored = ranking_files.load(reranked.path)
    engine = SearchEngine.load(index.path, aggregation=merged.aggregation)
    images = FeatureStore(features, distractors) if distractors else FeatureStore(features)
    expander = _Expander(merged, engine, images)
    queries = FeatureStore(query_features)
    rankings, describe, search, expanded = [], [], [], 0
    found = zip(stored.rankings, match_records.read(reranked), strict=True)
    for number, (before, matches) in enumerate(
      progress.track(found, total=len(stored.rankings), what='expand', unit='queries')
    ):
      started = time.perf_counter()
      chosen = choose(matches, options)
      ranking, described = before, started
      if chosen:
        query = queries.read(before.query, position=number)
        descriptor = expander.describe(query, chosen)
        described = time.perf_counter()
        # All images are ranked first, so that no verified image is cut off.
        everything = engine.rank(descriptor, top_k=0, name=before.query)
        ranking = reordered(everything, matches.matches, length=len(before))
        expanded += 1
      rankings.append(ranking)
      describe.append(round(1e3 * (described - started), 3))
      search.append(round(1e3 * (time.perf_counter() - described), 3))
    timing = ranking_files.Timing(tuple(describe), tuple(search), stored.timing.verify)
    ranking_files.save(rankings, stored.image_names, timing, output)
    logging.info('expanded queries: %d of %d have verified images', expanded, len(rankings))
    counts = {'queries': len(rankings), 'expanded': expanded, 'images': len(engine)}
    counts['distractors'] = reranked.counts.get('distractors', 0)
    return writer.finish(counts, upstream=reranked)


def choose(found: QueryMatches, options: QueryExpansionConfig) -> list[Match]:
  """Returns the images that expand a query, most inliers first, ties in the order of the ranking."""
  enough = [match for match in found.matches if len(match) >= options.min_inliers]
  return sorted(enough, key=len, reverse=True)[: options.num_images]


def within_query(features: LocalFeatures, matrix: np.ndarray, query: ImageFeatures) -> LocalFeatures:
  """Returns the features of an index image that a transform maps into the query's box.

  Args:
    features: of the image.
    matrix: [3, 3], from `(y, x, 1)` of the image to `(y, x, 1)` of the query.
    query: the query; its box is region 0.
  """
  places = transforms.apply(matrix.astype(np.float64), features.locations.astype(np.float64))
  box = query.boxes[0] * np.tile([query.height, query.width], 2)
  return features.take(np.all((places >= box[:2]) & (places <= box[2:]), axis=1))


class _Expander:
  """Makes the descriptors of queries and their verified images."""

  def __init__(self, config: experiment_pb2.ExperimentConfig, engine: SearchEngine, images: FeatureStore):
    self._config = config
    self._engine = engine
    self._images = images

  def describe(self, query: ImageFeatures, chosen: list[Match]) -> AggregatedDescriptor:
    """Returns the expanded descriptor; `chosen` are images in order of inliers, at least one."""
    others = [self._seen(query, match) for match in chosen]
    options = self._config.expansion
    weights = [(len(match) / len(chosen[0])) ** options.weight_alpha for match in chosen]
    return self._engine.describe_expanded(
      query, others, weights, min_images_per_word=options.min_images_per_word
    )

  def _seen(self, query: ImageFeatures, match: Match) -> LocalFeatures:
    name = self._engine.index.image_names[match.image_id]
    image = self._images.read(name, position=match.image_id)
    return within_query(features_to_match(image, self._config.verification), match.matrix, query)


def _require_inputs(reranked: Artefact, given: dict[str, Artefact]) -> None:
  if not reranked.input('rankings'):
    raise UserError(f'{reranked.path}: these rankings are not verified. Give what rerank_results made')
  for role, artefact in given.items():
    expected, found = reranked.require_input(role), artefact.as_input(role)
    if expected.fingerprint != found.fingerprint:
      raise UserError(
        f'{reranked.path}: made from {role} {expected.fingerprint} ({expected.path}), found'
        f' {found.fingerprint} ({found.path}). Give the {role} that the rankings were made from'
      )
