"""The matches of a page: why pairs of a query and a result match.

`of_run` chooses pairs of an experiment by their labels (`choose`), `of_answer` takes the results of one
search. `match_document` holds what the page's match view (assets/match_view.js) shows of a pair. Its boxes
are `[ymin, xmin, ymax, xmax]` and its locations `[y, x]`, both normalised to [0, 1] in the frame of the photo
as it is shown.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.engine import Answer, SearchEngine
from delf_d2r.engine.attribution import Explanation, explain
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.extractors import registry
from delf_d2r.extractors.registry import DescriptorKind
from delf_d2r.protos import experiment_pb2
from delf_d2r.report.reported_run import RankedQuery, Run, ranked_queries
from delf_d2r.report.views import MatchGroup, MatchView, QueryView, ResultView
from delf_d2r.structures import ImageFeatures, Match, Ranking

# They limit what a pair adds to a page: about 20 kB of marks, besides the two photos.
MAX_WORDS = 250
MAX_INLIERS = 300
# More decimals than the pixels of any screen can show.
_DECIMALS = 4

_GLOBAL = 'Global descriptors have no visual words, so there are no matches to show.'
_TITLES = {
  'first_right': ('Right, found first', 'The first right result of a query, best rank first.'),
  'first_wrong': (
    'Wrong, ranked highest',
    'The first wrong result of a query that is ranked above a right one, best rank first.',
  ),
  'last_right': (
    'Right, ranked lowest',
    'The last right result of a query, below a wrong one, lowest rank first.',
  ),
}


@dataclasses.dataclass(frozen=True)
class Matches:
  """Matches in groups, and notes on pairs that could not be explained."""

  groups: tuple[MatchGroup, ...] = ()
  notes: tuple[str, ...] = ()


def of_run(run: Run, count: int) -> Matches:
  """Returns the matches of at most `count` pairs of queries and results, see `Choice`.

  The features of queries and index images are those that the run stored. Missing features of an index image
  are extracted again from its photo. Pairs that cannot be explained are omitted, and a note says why.
  """
  if not count or run.rankings is None:
    return Matches()
  if _is_global(run.index.config):
    return Matches(notes=(_GLOBAL,))
  try:
    store = _query_features(run.rankings)
  except ArtefactError as error:
    return Matches(notes=(f'No matches are shown, because features of the queries are missing: {error}',))
  config = run.rankings.config
  engine = SearchEngine.load(
    run.index.path,
    aggregation=config.aggregation,
    verification=config.verification if config.HasField('verification') else None,
  )
  engine.photos = run.photo_folders
  queries = [
    (query, query.ranking, query.row)
    for query in ranked_queries(run)
    if query.ranking is not None and query.row is not None
  ]
  choice = choose(
    [query.labels(ranking.image_ids) for query, ranking, _ in queries],
    [ranking.scores for _, ranking, _ in queries],
    count=count,
  )
  explainer = _Explainer(engine)

  def view(pair: Pair) -> MatchView | None:
    query, whole_ranking, row = queries[pair.query]
    ranking = whole_ranking.take(slice(pair.place, pair.place + 1))
    features = store.read(query.query.name, position=row)
    document = explainer(features, int(ranking.image_ids[0]), int(ranking.best_regions[0]))
    return _view(run, engine, query, ranking, pair.place, document) if document else None

  groups = []
  for reason, (title, explanation) in _TITLES.items():
    views = [view(pair) for pair in getattr(choice, reason)]
    groups.append(MatchGroup(title, explanation, tuple(filter(None, views))))
  return Matches(tuple(group for group in groups if group.matches), explainer.notes())


def of_answer(
  engine: SearchEngine, answer: Answer, query: QueryView, *, count: int
) -> tuple[tuple[MatchView, ...], tuple[str, ...]]:
  """Returns the matches of the first `count` results of an answer, and notes on those that are omitted.

  Args:
    engine: the engine that gave the answer.
    answer: its results.
    query: the query and its results as the page shows them.
    count: number of results to explain.
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
  """Makes documents of pairs and remembers the pairs that could not be explained."""

  def __init__(self, engine: SearchEngine):
    self._engine = engine
    self._failures: list[str] = []

  def __call__(self, query: ImageFeatures, image_id: int, region: int) -> dict[str, Any] | None:
    engine = self._engine
    try:
      image = engine.features(image_id)
      # Where no region is the best one, the whole image is explained.
      why = explain(engine, query, image_id, image, region=max(region, 0))
      found = engine.match(query.features, image_id)
    except UserError as error:
      self._failures.append(str(error))
      return None
    return match_document(
      query, image, why, found, region=region, max_words=MAX_WORDS, max_inliers=MAX_INLIERS
    )

  def notes(self) -> tuple[str, ...]:
    if not self._failures:
      return ()
    return (f'{len(self._failures)} matches are not shown; the first of them: {self._failures[0]}',)


def _is_global(config: experiment_pb2.ExperimentConfig) -> bool:
  return registry.record(config.extraction.extractor).descriptors is DescriptorKind.GLOBAL


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
  # With both parts the view shows the fused score itself.
  is_ranked_by_other = not math.isclose(document['score'], result.score, rel_tol=1e-3, abs_tol=1e-6)
  if result.local_score is None and is_ranked_by_other:
    note = f'ranked by {result.score:.4g}, the score after query expansion or fusion'
  return MatchView(query.query.name, query.path, shown, document, note)


@dataclasses.dataclass(frozen=True)
class Pair:
  """A query by its position, and a result by its place in the ranking, from 0."""

  query: int
  place: int


@dataclasses.dataclass(frozen=True)
class Choice:
  """Pairs for each of three reasons, at most one for each query, the most informative first.

  Attributes:
    first_right: the first right result of a query.
    first_wrong: the first wrong result that is ranked above a right one.
    last_right: the last right result, ranked below a wrong one.
  """

  first_right: tuple[Pair, ...]
  first_wrong: tuple[Pair, ...]
  last_right: tuple[Pair, ...]


def choose(labels: Sequence[np.ndarray], scores: Sequence[np.ndarray], *, count: int) -> Choice:
  """Chooses at most `count` pairs, as evenly by reason as there are pairs.

  First results are ordered by the best rank, last results by the worst; equal ranks are ordered by descending
  score, then by query. No pair is chosen twice.

  Args:
    labels: for each query the labels str [k] of its ranking ('right', 'wrong'; others do not count).
    scores: for each query the scores float32 [k].
    count: number of pairs in all.
  """
  first_right, first_wrong, last_right = [], [], []
  for query, ranked in enumerate(labels):
    right, wrong = (np.flatnonzero(ranked == label).tolist() for label in ('right', 'wrong'))
    has_failed = bool(wrong) and (not right or wrong[0] < right[-1])
    if has_failed:
      first_wrong.append(Pair(query, wrong[0]))
    if has_failed and right:
      last_right.append(Pair(query, right[-1]))
    if right and not (has_failed and len(right) == 1):
      first_right.append(Pair(query, right[0]))

  def by_rank(pair: Pair) -> tuple:
    return pair.place, -scores[pair.query][pair.place], pair.query

  reasons = [
    sorted(first_right, key=by_rank),
    sorted(first_wrong, key=by_rank),
    sorted(last_right, key=lambda pair: (-pair.place, -scores[pair.query][pair.place], pair.query)),
  ]
  # In turns, so that other reasons make up for a reason with few pairs.
  turns = [
    reason
    for pairs in itertools.zip_longest(*reasons)
    for reason, pair in enumerate(pairs)
    if pair is not None
  ][:count]
  return Choice(*(tuple(reasons[reason][: turns.count(reason)]) for reason in range(3)))


def match_document(
  query: ImageFeatures,
  image: ImageFeatures,
  why: Explanation,
  found: Match,
  *,
  region: int,
  max_words: int | None = None,
  max_inliers: int | None = None,
) -> dict[str, Any]:
  """Returns the data of the match view of a query and an index image, ready for JSON.

  Args:
    query, image: the features of both.
    why: the terms of the score.
    found: the verified matches.
    region: the region of the index image that scored best, whose words `why` has; -1 for none.
    max_words: number of visual words to keep, those of the largest share; None: all.
    max_inliers: number of verified matches to keep, evenly chosen; None: all.

  Returns:
    `name` and `score`; `query_photo` and `index_photo`, each with `height` and `width` in pixels;
    `query_box`; `num_words`, the number of shared words, and `words`, each with `word`, its `share` of the
    score and its locations in `query` and `index`, largest share first; `regions`, each with `box` and
    `share`; `boxes`, all boxes of the index image, and `best_region`, 0 for the whole image, r for the box
    r - 1 or None; `num_inliers`, the number of verified matches, and `inliers`, pairs of locations.
  """

  def share(term: float) -> float:
    return term / why.score if why.score else 0.0

  shown = np.arange(len(found))
  if max_inliers is not None and len(found) > max_inliers:
    shown = np.linspace(0, len(found) - 1, max_inliers).astype(np.int64)
  return {
    'name': image.name,
    'score': why.score,
    'query_photo': {'height': query.height, 'width': query.width},
    'index_photo': {'height': image.height, 'width': image.width},
    'query_box': query.boxes[0].tolist(),
    'num_words': len(why.words),
    'words': [
      {
        'word': word.word,
        'share': share(word.term),
        'query': _normalised_places(word.query_locations, query),
        'index': _normalised_places(word.index_locations, image),
      }
      for word in why.words[:max_words]
    ],
    'regions': [
      {'box': box.tolist(), 'share': share(term)}
      for box, term in zip(why.boxes, why.box_terms.tolist(), strict=True)
    ],
    'boxes': image.boxes[1:].tolist(),
    'best_region': min(region, len(image.boxes) - 1) if region >= 0 else None,
    'num_inliers': len(found),
    'inliers': list(
      zip(
        _normalised_places(found.query_locations[shown], query),
        _normalised_places(found.index_locations[shown], image),
        strict=True,
      )
    ),
  }


def _normalised_places(locations: np.ndarray, image: ImageFeatures) -> list[list[float]]:
  size = np.array([image.height, image.width], np.float64)
  return (locations.reshape(-1, 2) / size).round(_DECIMALS).tolist()
