"""rerank_results: the head of each ranking in the order of what spatial verification finds."""

import concurrent.futures
import functools
import pathlib
import time

import numpy as np
from absl import logging
from threadpoolctl import threadpool_limits

from delf_d2r.data.artefacts import artefact_writer, match_records, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.data.artefacts.match_records import QueryMatches
from delf_d2r.data.artefacts.ranking_files import StoredRankings
from delf_d2r.errors import UserError
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.runtime import progress, worker_pool
from delf_d2r.stages import skipped_junk
from delf_d2r.stages.shared.compatibility import is_same_extractor, require_same_extractor
from delf_d2r.structures import LocalFeatures, Match, Ranking
from delf_d2r.verifier import Verifier, features_to_match, reordered, unmatchable

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

  Verified images come first, those with most inliers ahead and ties as they stood; all others follow as they
  stood. The artefact holds rankings and, in its shards, the inliers and the model of each pair of images
  (match_records.py).

  Args:
    config: its part `verification` says how.
    rankings: what search_index made.
    features: what extract_features made of the index images.
    query_features: the features that the rankings were made from; or features and query_features of another
      extractor, as global descriptors need, of the same images and queries.
    output: the artefact directory.
    distractors: what extract_features made of the distractors in the rankings.
    ground_truth_path: where `verification.junk` has junk skipped: what is junk.
    protocol: with junk SKIP_EACH: `medium` or `hard`, whose junk is skipped.
    workers: threads, which share out the images of a ranking; None: one for each core.
    redo: replace what another config made.

  Raises:
    UserError: the estimator is not installed, features and rankings do not belong together, or the output
      cannot be written.
  """
  options = config.verification
  verifier = Verifier(options)
  protocol = skipped_junk.protocol_of(options, each=protocol)
  _require_belonging(rankings, features, query_features)
  problem = unmatchable(features.config.extraction.extractor, options)
  if problem:
    raise UserError(f'{features.path}: {problem}')
  stored = ranking_files.load(rankings.path)
  inputs = [
    rankings.as_input('rankings'),
    features.as_input('features'),
    query_features.as_input('query_features'),
    rankings.input('index'),
  ]
  stores = [features]
  if distractors:
    inputs.append(distractors.as_input('distractor_features'))
    stores.append(distractors)
  junk = {}
  if protocol:
    inputs += skipped_junk.inputs(options, ground_truth_path, protocol)
    junk = skipped_junk.of_queries(ground_truth_path, protocol, rankings, stored)
  merged = experiment_pb2.ExperimentConfig()
  merged.CopyFrom(rankings.config)
  merged.verification.CopyFrom(options)
  if not is_same_extractor(features.config.extraction, rankings.config.extraction):
    merged.verification.extraction.CopyFrom(features.config.extraction)
  with artefact_writer.writing(output, Plan('rankings', merged, tuple(inputs)), redo=redo) as writer:
    if writer.finished:
      logging.info('verified rankings: %s is up to date, skipped', output)
      return Artefact.open(output, 'rankings')
    stage = _Stage(
      options,
      verifier,
      stored,
      FeatureStore(*stores),
      FeatureStore(query_features),
      junk,
      workers or worker_pool.available_cores(),
    )
    shards = list(writer.ledger.missing(len(stored.rankings), options.queries_per_shard))
    done = len(stored.rankings) - sum(len(shard.items) for shard in shards)
    with (
      stage,
      progress.bar(total=len(stored.rankings), what='verify', unit='queries', done=done) as bar,
    ):
      for shard in shards:
        with writer.ledger.write(shard) as file:
          for item in shard.items:
            found = stage.verify(item)
            verified = sum(len(match) > 0 for match in found.matches)
            file.add(
              match_records.encode(found),
              queries=1,
              pairs=len(found.matches),
              verified=verified,
              inliers=sum(map(len, found.matches)),
            )
            bar.update()
    _save(writer, stored, stage.milliseconds)
    sizes = {'images': len(stored.image_names), 'distractors': rankings.counts.get('distractors', 0)}
    artefact = writer.finish(sizes, upstream=rankings)
  counts = artefact.counts
  logging.info(
    'verified rankings: %d of %d pairs of images verified; a query took %.1f ms (median)',
    counts.get('verified', 0),
    counts.get('pairs', 0),
    np.median(stage.milliseconds) if stage.milliseconds else 0,
  )
  return artefact


class _Stage:
  """Verifies one query after the other, the images of each on several threads."""

  def __init__(
    self,
    options: VerificationConfig,
    verifier: Verifier,
    stored: StoredRankings,
    images: FeatureStore,
    queries: FeatureStore,
    junk: dict[str, np.ndarray],
    threads: int,
  ):
    self.milliseconds: list[float] = []
    self._options = options
    self._stored = stored
    self._junk = junk
    self._queries = queries
    self._images = images
    self._verifier = verifier
    self._threads = threads
    self._features_of = functools.lru_cache(_CACHED_IMAGES)(self._read_features)

  def __enter__(self):
    # Threads share out the images; those of the matrix product within would only fight them for the cores,
    # and its sums would depend on how many there are.
    self._limits = threadpool_limits(1, user_api='blas')
    self._pool = concurrent.futures.ThreadPoolExecutor(self._threads)
    return self

  def __exit__(self, *_):
    self._pool.shutdown(cancel_futures=True)
    self._limits.restore_original_limits()

  def verify(self, number: int) -> QueryMatches:
    """The matches of query `number` with the images at the head of its ranking."""
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


def _require_belonging(rankings: Artefact, features: Artefact, query_features: Artefact) -> None:
  require_same_extractor(
    features.config.extraction,
    features.path,
    query_features.config.extraction,
    query_features.path,
    remedy='Extract both with one config',
  )
  if rankings.input('rankings'):
    raise UserError(f'{rankings.path}: these rankings are verified already. Give what search_index made')
  expected, found = rankings.input('query_features'), query_features.as_input('query_features')
  # Features of another extractor are told by the names of images and queries alone.
  if (
    is_same_extractor(query_features.config.extraction, rankings.config.extraction)
    and expected.fingerprint != found.fingerprint
  ):
    raise UserError(
      f'{rankings.path}: made from query features {expected.fingerprint} ({expected.path}), found'
      f' {found.fingerprint} ({found.path}). Give the query features that the rankings were made from'
    )


def _save(writer: artefact_writer.ArtefactWriter, stored: StoredRankings, milliseconds: list[float]) -> None:
  # From the shards, so that queries of an earlier, killed run are here too.
  found = map(match_records.decode, writer.ledger.records())
  rankings = [
    reordered(ranking, query.matches) for ranking, query in zip(stored.rankings, found, strict=True)
  ]
  timing = ranking_files.Timing(stored.timing.describe, stored.timing.search, tuple(milliseconds))
  ranking_files.save(rankings, stored.image_names, timing, writer.path)
