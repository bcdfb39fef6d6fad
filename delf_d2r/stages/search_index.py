"""search_index: the query images of a data set to rankings."""

import pathlib
import time

import numpy as np
from absl import logging

from delf_d2r.data.artefacts import artefact_writer, feature_files, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact, Plan, with_comparison
from delf_d2r.engine import SearchEngine
from delf_d2r.protos import experiment_pb2
from delf_d2r.runtime import progress
from delf_d2r.stages.shared.compatibility import require_same_extractor


def run(
  config: experiment_pb2.ExperimentConfig,
  index: Artefact,
  query_features: Artefact,
  output: pathlib.Path,
  *,
  redo: bool = False,
  warm: bool = False,
) -> Artefact:
  """Ranks the index images for every query.

  Args:
    config: its part `search` says how long rankings are, its part `aggregation` how descriptors are compared.
    index: the artefact of build_index.
    query_features: the artefact of extract_features, of the queries and by the same extractor.
    output: the artefact directory.
    redo: replace an artefact of another config.
    warm: read the index in a row first, so that queries find it in memory.

  Raises:
    UserError: queries and index were extracted differently, or the output cannot be written.
  """
  require_same_extractor(
    query_features.config.extraction,
    query_features.path,
    index.config.extraction,
    index.path,
    remedy='Extract the queries with the config of the index',
  )
  merged = with_comparison(index.config, config.aggregation)
  merged.search.CopyFrom(config.search)
  plan = Plan('rankings', merged, (index.as_input('index'), query_features.as_input('query_features')))
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      return writer.reuse('rankings')
    engine = SearchEngine.load(index.path, aggregation=merged.aggregation)
    if warm:
      engine.preload(progress.callback('index into memory'))
    rankings, describe, search = [], [], []
    total = query_features.counts['images']
    for query in progress.track(
      feature_files.read(query_features), total=total, what='search', unit='queries'
    ):
      started = time.perf_counter()
      descriptor = engine.describe(query)
      described = time.perf_counter()
      rankings.append(engine.rank(descriptor, top_k=config.search.top_k, name=query.name))
      describe.append(round(1e3 * (described - started), 3))
      search.append(round(1e3 * (time.perf_counter() - described), 3))
      if not len(descriptor):
        logging.warning('%s: no features, every index image scores 0', query.name)
    timing = ranking_files.Timing(tuple(describe), tuple(search))
    ranking_files.save(rankings, engine.index.image_names, timing, output)
    logging.info(
      'rankings: %d queries over %d images; a query took %.1f ms to describe and %.2f ms to search (median)',
      len(rankings),
      len(engine),
      np.median(describe),
      np.median(search),
    )
    counts = {'queries': len(rankings), 'images': len(engine)}
    counts['distractors'] = index.counts.get('distractors', 0)
    return writer.finish(counts, upstream=index)
