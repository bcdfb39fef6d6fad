"""The matches of a page: of an experiment's most telling pairs, or of the results of one search."""

import dataclasses
import math
from typing import Any

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.engine import Answer, SearchEngine
from delf_d2r.engine.attribution import explain
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.report import match_choice
from delf_d2r.report.match_choice import Pair
from delf_d2r.report.match_document import match_document
from delf_d2r.report.reported_run import RankedQuery, Run, ranked_queries
from delf_d2r.report.views import MatchGroup, MatchView, QueryView, ResultView
from delf_d2r.structures import ImageFeatures, Ranking

# They bound what a pair adds to a page: some 20 kB of marks, beside the two photos.
MAX_WORDS = 250
MAX_INLIERS = 300

_GLOBAL = 'Global descriptors have no visual words, so there are no matches to show.'
_TITLES = {
  'first_right': ('Right, found first', 'The first right result of a query, best rank first.'),
  'first_wrong': (
    'Wrong, ranked highest',
    'The first wrong result of a query that stands above a right one, best rank first.',
  ),
  'last_right': (
    'Right, ranked lowest',
    'The last right result of a query, below a wrong one, lowest rank first.',
  ),
}


@dataclasses.dataclass(frozen=True)
class Matches:
  """What was explained, and what a reader must know of the rest."""

  groups: tuple[MatchGroup, ...] = ()
  notes: tuple[str, ...] = ()


def of_run(run: Run, count: int) -> Matches:
  """The matches of at most `count` pairs of queries and results; see `match_choice.Choice`.

  The features of queries and index images are read as the run stored them. Those of an index image that are
  gone are made anew from its photo; what cannot be explained is left out, and a note says why.
  """
  if not count or run.rankings is None:
    return Matches()
  if _is_global(run.index.config):
    return Matches(notes=(_GLOBAL,))
  try:
    store = _query_features(run.rankings)
  except ArtefactError as error:
    return Matches(notes=(f'No matches are shown, as the features of the queries are not at hand: {error}',))
  config = run.rankings.config
  engine = SearchEngine.load(
    run.index.path,
    aggregation=config.aggregation,
    verification=config.verification if config.HasField('verification') else None,
  )
  engine.photos = run.photo_folders
  queries = [query for query in ranked_queries(run) if query.ranking is not None]
  choice = match_choice.choose(
    [query.labels(query.ranking.image_ids) for query in queries],
    [query.ranking.scores for query in queries],
    count=count,
  )
  explainer = _Explainer(engine)

  def view(pair: Pair) -> MatchView | None:
    query = queries[pair.query]
    ranking = _only(query.ranking, pair.place)
    features = store.read(query.query.name, position=query.row)
    document = explainer(features, int(ranking.image_ids[0]), int(ranking.best_regions[0]))
    return document and _view(run, engine, query, ranking, pair.place, document)

  groups = []
  for reason, (title, explanation) in _TITLES.items():
    views = [view(pair) for pair in getattr(choice, reason)]
    groups.append(MatchGroup(title, explanation, tuple(filter(None, views))))
  return Matches(tuple(group for group in groups if group.matches), explainer.notes())


def of_answer(
  engine: SearchEngine, answer: Answer, query: QueryView, *, count: int
) -> tuple[tuple[MatchView, ...], tuple[str, ...]]:
  """The matches of the first `count` results of an answer, and notes on those that are left out.

  Args:
    engine: that answered.
    answer: what it found.
    query: the same for the page.
    count: results to explain.
  """
  if not count or not answer.num_features:
    return (), ()
  if _is_global(engine.artefact.config):
    return (), (_GLOBAL,)
  wanted = {result.name for result in answer.results[:count]}
  ids = {name: image_id for image_id, name in enumerate(engine.index.image_names) if name in wanted}
  explainer = _Explainer(engine)
  views = []
  for result, shown in zip(answer.results[:count], query.results[:count], strict=True):
    document = explainer(answer.features, ids[result.name], result.best_region)
    if document:
      views.append(MatchView(query.name, query.image_path, shown, document))
  notes = explainer.notes()
  if len(answer.results) > count:
    notes += (f'Matches can be opened for the first {count} of the {len(answer.results)} results.',)
  return tuple(views), notes


class _Explainer:
  """Makes documents of pairs and remembers what could not be explained."""

  def __init__(self, engine: SearchEngine):
    self._engine = engine
    self._failures: list[str] = []

  def __call__(self, query: ImageFeatures, image_id: int, region: int) -> dict[str, Any] | None:
    engine = self._engine
    try:
      image = engine.features(image_id)
      # Where no region was found best, the whole image is explained.
      why = explain(engine, query, image_id, image, region=max(region, 0))
      found = engine.match(query.features, image_id)
    except UserError as error:
      self._failures.append(str(error))
      return None
    return match_document(query, image, why, found, max_words=MAX_WORDS, max_inliers=MAX_INLIERS)

  def notes(self) -> tuple[str, ...]:
    if not self._failures:
      return ()
    return (f'{len(self._failures)} matches are not shown; the first of them: {self._failures[0]}',)


def _is_global(config: experiment_pb2.ExperimentConfig) -> bool:
  return config.extraction.extractor == ExtractionConfig.GLOBAL


def _query_features(rankings: Artefact) -> FeatureStore:
  made_from = rankings.input('query_features')
  if made_from is None:
    raise ArtefactError(f'{rankings.path} does not say which features it was made from')
  found = Artefact.open(made_from.path, 'features')
  if found.manifest.fingerprint != made_from.fingerprint:
    raise ArtefactError(
      f'{made_from.path}: {rankings.path} was made from {made_from.fingerprint}, found'
      f' {found.manifest.fingerprint}. Search again'
    )
  return FeatureStore(found)


def _only(ranking: Ranking, place: int) -> Ranking:
  only = slice(place, place + 1)
  return Ranking(ranking.query, ranking.image_ids[only], ranking.scores[only], ranking.best_regions[only])


def _view(
  run: Run, engine: SearchEngine, query: RankedQuery, ranking: Ranking, place: int, document: dict[str, Any]
) -> MatchView:
  (result,) = engine.results(ranking)
  label = str(query.labels(ranking.image_ids)[0])
  shown = ResultView.of(
    dataclasses.replace(result, rank=place + 1),
    run.photo_folders.find(result.name),
    label,
  )
  note = ''
  if not math.isclose(document['score'], result.score, rel_tol=1e-3, abs_tol=1e-6):
    note = f'ranked by {result.score:.4g}, the score after query expansion or fusion'
  return MatchView(query.query.name, query.path, shown, document, note)
