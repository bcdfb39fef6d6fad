"""rerank_results: spatial verification of the head of each ranking, and the order that it gives.

Images that a protocol calls junk may be left out of the head: `verification.junk`. The tensorflow/models DELF
code verifies the first images that are not junk, once for Medium and once for Hard, and takes the numbers of
each protocol from its own order (docs/reference.md 4.7).
"""

import concurrent.futures
import functools
import pathlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from threadpoolctl import threadpool_limits

from delf_d2r.data.artefacts import artefact_writer, match_records, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.data.artefacts.match_records import QueryMatches
from delf_d2r.data.artefacts.ranking_files import StoredRankings
from delf_d2r.data.ground_truth import ground_truth, resolved
from delf_d2r.errors import UserError
from delf_d2r.evaluation import protocol as protocols
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.runtime import worker_pool
from delf_d2r.stages.shared import sharded
from delf_d2r.stages.shared.compatibility import is_same_extractor, require_same_extractor
from delf_d2r.stages.shared.sharded import Outcome
from delf_d2r.structures import LocalFeatures, Match, Ranking
from delf_d2r.verifier import Verifier, features_to_match, reordered, why_unverifiable

# Index images whose features are kept between queries: some 2 MB each.
_CACHED_IMAGES = 256


def run(
  config: experiment_pb2.ExperimentConfig,
  rankings: Artefact,
  features: Artefact,
  query_features: Artefact,
  output: pathlib.Path,
  *,
  distractors: Artefact | None = None,
  ground_truth_path: str | pathlib.Path | None = None,
  protocol: str | None = None,
  workers: int | None = None,
  redo: bool = False,
) -> Artefact:
  """Verifies the head of every ranking.

  Verified images come first, those with most inliers ahead and ties in their order before; all others follow
  in their order before. The artefact holds rankings and, in its shards, the inliers and the model of each
  pair of images (match_records.py).

  Args:
    config: its part `verification` says how.
    rankings: the artefact of search_index.
    features: the artefact of extract_features, of the index images.
    query_features: the features that the rankings were made from; or features and query_features of another
      extractor, as global descriptors need, of the same images and queries.
    output: the artefact directory.
    distractors: the artefact of extract_features, of the distractors in the rankings.
    ground_truth_path: says which images are junk; needed only if `verification.junk` skips junk.
    protocol: the protocol whose junk is skipped, `medium` or `hard`; needed only with junk SKIP_EACH.
    workers: threads, which share the images of a ranking; None: one for each core.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

  Raises:
    UserError: the estimator is not installed, features and rankings do not belong together, or the output
      cannot be written.
  """
  options = config.verification
  verifier = Verifier(options, features.config.extraction.extractor)
  skipped = _skipped_protocol(options, each=protocol)
  _require_origin(rankings, features, query_features)
  problem = why_unverifiable(features.config.extraction.extractor, options)
  if problem:
    raise UserError(f'{features.path}: {problem}')
  stored = ranking_files.load(rankings.path)
  inputs = [
    rankings.as_input('rankings'),
    features.as_input('features'),
    query_features.as_input('query_features'),
    rankings.require_input('index'),
  ]
  index_features = [features]
  if distractors:
    inputs.append(distractors.as_input('distractor_features'))
    index_features.append(distractors)
  junk: dict[str, np.ndarray] = {}
  if skipped:
    if ground_truth_path is None:
      raise UserError(
        'verification.junk has junk skipped, but without --ground_truth nothing is known to be junk. Give it,'
        ' or set verification.junk: LIKE_OTHERS'
      )
    inputs.append(resolved.ground_truth_input(ground_truth_path))
    if options.junk == VerificationConfig.SKIP_EACH:
      # Two artefacts, one for each protocol, have this config.
      inputs.append(Input('part', skipped, pathlib.Path(skipped)))
    queries = resolved.resolved_queries(rankings, stored, ground_truth.load(ground_truth_path))
    junk = {query.name: protocols.positives_and_junk(query, skipped)[1] for query in queries}
  merged = experiment_pb2.ExperimentConfig()
  merged.CopyFrom(rankings.config)
  merged.verification.CopyFrom(options)
  if not is_same_extractor(features.config.extraction, rankings.config.extraction):
    merged.verification.extraction.CopyFrom(features.config.extraction)
  with artefact_writer.writing(output, Plan('rankings', merged, tuple(inputs)), redo=redo) as writer:
    if writer.finished:
      return writer.reuse('verified rankings')
    verification = _QueryVerification(
      options,
      verifier,
      stored,
      images=FeatureStore(*index_features),
      queries=FeatureStore(query_features),
      junk=junk,
      threads=workers or worker_pool.available_cores(),
    )
    with verification:
      sharded.write_results(
        writer,
        lambda shards: (verification.outcome(item) for shard in shards for item in shard.items),
        total=len(stored.rankings),
        per_shard=options.queries_per_shard,
        what='verify',
        unit='queries',
      )
    _save(writer, stored, verification.milliseconds)
    sizes = {'images': len(stored.image_names), 'distractors': rankings.counts.get('distractors', 0)}
    artefact = writer.finish(sizes, upstream=rankings)
  counts = artefact.counts
  logging.info(
    'verified rankings: %d of %d pairs of images verified; a query took %.1f ms (median)',
    counts.get('verified', 0),
    counts.get('pairs', 0),
    np.median(verification.milliseconds) if verification.milliseconds else 0,
  )
  return artefact


def _skipped_protocol(options: VerificationConfig, *, each: str | None) -> str | None:
  """Returns the protocol whose junk is skipped, or None if none is skipped; for SKIP_EACH it is `each`.

  Raises:
    UserError: SKIP_EACH without `each`.
  """
  if options.junk == VerificationConfig.SKIP_EACH:
    if each is None:
      raise UserError(
        'verification.junk: SKIP_EACH makes two rankings, as run_experiment does. Verify with SKIP_MEDIUM and'
        ' with SKIP_HARD, each into an --output of its own, and give both to evaluate_retrieval'
      )
    return each
  if options.junk == VerificationConfig.LIKE_OTHERS and options.compat:
    logging.warning(
      'verification.compat: junk takes up places among the first %d images; the tensorflow/models DELF code'
      ' leaves out the junk of the protocol that it scores. For its numbers set verification.junk: SKIP_EACH',
      options.num_images,
    )
  return {VerificationConfig.SKIP_MEDIUM: 'medium', VerificationConfig.SKIP_HARD: 'hard'}.get(options.junk)


class _QueryVerification:
  """Verifies one query after another, the images of each on several threads; a context manager.

  Attributes:
    milliseconds: of each query that was verified.
  """

  def __init__(
    self,
    options: VerificationConfig,
    verifier: Verifier,
    stored: StoredRankings,
    *,
    images: FeatureStore,
    queries: FeatureStore,
    junk: Mapping[str, np.ndarray],
    threads: int,
  ):
    """Takes rankings and features.

    Args:
      options: the config.
      verifier: of that config.
      stored: the rankings.
      images: the features of the index images.
      queries: the features of the queries.
      junk: int64 [J] by query: the image ids to skip.
      threads: how many.
    """
    self.milliseconds: list[float] = []
    self._options = options
    self._stored = stored
    self._junk = junk
    self._queries = queries
    self._images = images
    self._verifier = verifier
    self._threads = threads
    self._features_of = functools.lru_cache(_CACHED_IMAGES)(self._read_features)

  def __enter__(self) -> '_QueryVerification':
    # The threads share the images. Threads of the matrix products within would only compete with them for the
    # cores, and the sums would depend on their number.
    self._limits = threadpool_limits(1, user_api='blas')
    self._pool = concurrent.futures.ThreadPoolExecutor(self._threads)
    return self

  def __exit__(self, *_):
    self._pool.shutdown(cancel_futures=True)
    self._limits.restore_original_limits()

  def outcome(self, number: int) -> Outcome:
    """Returns the matches of query `number` as a record."""
    found = self._verify(number)
    counts = {
      'queries': 1,
      'pairs': len(found.matches),
      'verified': sum(len(match) > 0 for match in found.matches),
      'inliers': sum(map(len, found.matches)),
    }
    return Outcome(found.query, match_records.encode(found), counts)

  def _verify(self, number: int) -> QueryMatches:
    """Returns the matches of query `number` with the images at the head of its ranking."""
    ranking = self._stored.rankings[number]
    started = time.perf_counter()
    query = self._queries.read(ranking.query, position=number).features
    matches = self._pool.map(lambda image: self._match(query, image), self._head(ranking))
    found = QueryMatches(ranking.query, tuple(matches))
    self.milliseconds.append(round(1e3 * (time.perf_counter() - started), 3))
    return found

  def _head(self, ranking: Ranking) -> list[int]:
    ids = ranking.image_ids
    if ranking.query in self._junk:
      ids = ids[~np.isin(ids, self._junk[ranking.query])]
    return ids[: self._options.num_images].tolist()

  def _match(self, query: LocalFeatures, image: int) -> Match:
    return self._verifier.match(query, image, self._features_of(image))

  def _read_features(self, image: int) -> LocalFeatures:
    found = self._images.read(self._stored.image_names[image], position=image)
    return features_to_match(found, self._options)


def _require_origin(rankings: Artefact, features: Artefact, query_features: Artefact) -> None:
  """Raises UserError unless the rankings can be verified with these features."""
  require_same_extractor(
    features.config.extraction,
    features.path,
    query_features.config.extraction,
    query_features.path,
    remedy='Extract both with one config',
  )
  if rankings.input('rankings'):
    raise UserError(f'{rankings.path}: these rankings are verified already. Give what search_index made')
  expected = rankings.require_input('query_features')
  found = query_features.as_input('query_features')
  # Features of another extractor can be compared by the names of their images and queries only.
  if (
    is_same_extractor(query_features.config.extraction, rankings.config.extraction)
    and expected.fingerprint != found.fingerprint
  ):
    raise UserError(
      f'{rankings.path}: made from query features {expected.fingerprint} ({expected.path}), found'
      f' {found.fingerprint} ({found.path}). Give the query features that the rankings were made from'
    )


def _save(
  writer: artefact_writer.ArtefactWriter, stored: StoredRankings, milliseconds: Sequence[float]
) -> None:
  # The matches are read from the shards, which include the queries of an earlier run that was killed.
  found = map(match_records.decode, writer.ledger.records())
  rankings = [
    reordered(ranking, query.matches) for ranking, query in zip(stored.rankings, found, strict=True)
  ]
  timing = ranking_files.Timing(stored.timing.describe, stored.timing.search, tuple(milliseconds))
  ranking_files.save(rankings, stored.image_names, timing, writer.path)
