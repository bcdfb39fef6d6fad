"""fuse_rankings: the rankings of two searches of the same images to one.

`kernels.fusion` says how scores are added.
"""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging

from delf_d2r.data.artefacts import artefact_writer, background_files, feature_files, ranking_files
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Input, Plan
from delf_d2r.data.artefacts.ranking_files import StoredRankings, Timing
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import UserError
from delf_d2r.fuser import Fuser, background_place, ranked
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.kernels.background import ExpectedOfImages
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.structures import AggregatedDescriptor, Ranking


def run(
  config: experiment_pb2.ExperimentConfig,
  rankings: Artefact,
  other: Artefact,
  output: pathlib.Path,
  *,
  redo: bool = False,
) -> Artefact:
  """Ranks the images of every query by two scores.

  The artefact takes the place of `rankings` in later stages: it has their index, query features and best
  regions.

  Args:
    config: its part `fusion` says how.
    rankings: the artefact of search_index, with rankings of all images.
    other: the same, of another index of the same images and for the same queries.
    output: the artefact directory.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

  Raises:
    UserError: the two are not of the same queries and images, or not of all images, or are verified already;
      the background model cannot be used with them, or the output cannot be written.
  """
  stored = [_load(artefact) for artefact in (rankings, other)]
  _require_same(rankings, other, *stored)
  merged = experiment_pb2.ExperimentConfig()
  merged.CopyFrom(rankings.config)
  merged.fusion.CopyFrom(config.fusion)
  for part in ('extraction', 'codebook', 'aggregation'):
    getattr(merged.fusion, part).CopyFrom(getattr(other.config, part))
  inputs = [
    rankings.as_input('first'),
    other.as_input('other'),
    *(rankings.require_input(role) for role in ('index', 'query_features')),
  ]
  if config.fusion.normalization == FusionConfig.BACKGROUND:
    inputs.append(_background(config.fusion))
  with artefact_writer.writing(output, Plan('rankings', merged, tuple(inputs)), redo=redo) as writer:
    if writer.finished:
      return writer.reuse('fused rankings')
    places = {name: position for position, name in enumerate(stored[0].image_names)}
    to_first = np.array([places[name] for name in stored[1].image_names], np.int64)
    fuser = _fuser(config.fusion, rankings, other)
    described = _described_queries(rankings, other) if fuser.needs_queries else itertools.repeat((None, None))
    images = _statistics_of(fuser, stored[0].image_names, other) if config.fusion.both_sides else None
    fused = [
      fuse(first, second, to_first, fuser, queries=queries, images=images)
      for (first, second), queries in zip(
        zip(stored[0].rankings, stored[1].rankings, strict=True), described, strict=False
      )
    ]
    ranking_files.save(fused, stored[0].image_names, _timing(*stored), output)
    logging.info('fused rankings: %d queries over %d images', len(fused), len(places))
    sizes = {
      'queries': len(fused),
      'images': len(places),
      'distractors': rankings.counts.get('distractors', 0),
    }
    return writer.finish(sizes, upstream=rankings)


def fuse(
  first: Ranking,
  other: Ranking,
  to_first: np.ndarray,
  fuser: Fuser,
  *,
  queries: tuple[AggregatedDescriptor | None, AggregatedDescriptor | None] = (None, None),
  images: ExpectedOfImages | None = None,
) -> Ranking:
  """Returns one ranking of all M images from two; equal sums are in order of image id.

  Args:
    first, other: rankings of all images.
    to_first: int64 [M], the image id in `first` of each image id in `other`.
    fuser: adds the scores.
    queries: the query as both searches describe it; see `Fuser.needs_queries`.
    images: what the images score with unrelated ones, in the order of `first`; see `Fuser.of_images`.
  """
  scores, others = np.empty(len(first), np.float32), np.empty(len(first), np.float32)
  regions = np.empty(len(first), np.int32)
  scores[first.image_ids] = first.scores
  regions[first.image_ids] = first.best_regions
  others[to_first[other.image_ids]] = other.scores
  return ranked(
    fuser(scores, others, *queries, images), lambda ids: regions[ids], top_k=len(scores), name=first.query
  )


def _background(config: FusionConfig) -> Input:
  """Returns the background model of a config as an input; ArtefactError if it is missing."""
  place = background_place(config)
  if (place / MANIFEST).is_file():
    return Artefact.open(place, background_files.KIND).as_input('background')
  return Input('background', background_files.digest(place), place)


def _fuser(config: FusionConfig, rankings: Artefact, other: Artefact) -> Fuser:
  """Returns the fuser of a config; UserError if its background model is missing or of other searches."""
  if config.normalization != FusionConfig.BACKGROUND:
    return Fuser(config)
  first, second = (_input(artefact, 'index', 'index') for artefact in (rankings, other))
  return Fuser.of_indexes(config, first, second, aggregation=rankings.config.aggregation)


def _input(artefact: Artefact, role: str, kind: str) -> Artefact:
  """Returns an input of an artefact; ArtefactError if it is gone or another one."""
  return artefact.open_input(role, kind, remedy='Search again')


def _described_queries(
  rankings: Artefact, other: Artefact
) -> Iterator[tuple[AggregatedDescriptor, AggregatedDescriptor]]:
  """Yields each query as both searches describe it."""

  def described(artefact: Artefact) -> Iterator[AggregatedDescriptor]:
    index = _input(artefact, 'index', 'index')
    engine = SearchEngine.load(index.path, aggregation=artefact.config.aggregation)
    return map(engine.describe, feature_files.read(_input(artefact, 'query_features', 'features')))

  return zip(described(rankings), described(other), strict=True)


def _statistics_of(fuser: Fuser, names: Sequence[str], other: Artefact) -> ExpectedOfImages | None:
  """Returns what images score with unrelated ones, in the order of their names."""
  index = SearchEngine.load(_input(other, 'index', 'index').path).index
  assert isinstance(index, InvertedIndex), 'an index of one visual word is not split'
  found = fuser.of_images(index)
  if found is None:
    return None
  places = {name: place for place, name in enumerate(index.image_names)}
  order = np.array([places[name] for name in names], np.int64)
  return ExpectedOfImages(found.means[order], found.deviations[order])


def _load(artefact: Artefact) -> StoredRankings:
  if artefact.input('rankings'):
    raise UserError(
      f'{artefact.path}: these rankings are verified, and have no scores in the order of their images. Fuse'
      ' before rerank_results'
    )
  stored = ranking_files.load(artefact.path)
  short = [ranking for ranking in stored.rankings if len(ranking) != len(stored.image_names)]
  if short:
    raise UserError(
      f'{artefact.path}: its rankings have {len(short[0])} of {len(stored.image_names)} images, but all'
      ' scores are needed. Search with search.top_k: 0'
    )
  return stored


def _require_same(rankings: Artefact, other: Artefact, first: StoredRankings, second: StoredRankings) -> None:
  queries = [[ranking.query for ranking in stored.rankings] for stored in (first, second)]
  images = [sorted(stored.image_names) for stored in (first, second)]
  for what, (ours, theirs) in {'queries': queries, 'images': images}.items():
    if ours != theirs:
      differing = sorted(set(ours) ^ set(theirs)) or ['their order']
      raise UserError(
        f'{rankings.path} and {other.path} are of different {what}: {len(ours)} and {len(theirs)}, which'
        f' differ in {differing[0]}. Make both from the same photos and queries'
      )


def _timing(first: StoredRankings, other: StoredRankings) -> Timing:
  parts = (
    tuple(
      round(a + b, 3) for a, b in zip(getattr(first.timing, part), getattr(other.timing, part), strict=True)
    )
    for part in ('describe', 'search')
  )
  return Timing(*parts)
