"""expand_queries: which images expand a query, which of their features, what an answer gains."""

import numpy as np
import pytest
from support import stored_features

from delf_d2r import config as configs
from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.match_records import QueryMatches
from delf_d2r.errors import UserError
from delf_d2r.stages import (
  aggregate_features,
  build_index,
  expand_queries,
  rerank_results,
  search_index,
  train_codebook,
)
from delf_d2r.structures import Match


def match(image, inliers):
  places = np.zeros((inliers, 2), np.float32)
  return Match(image, np.eye(3), places, places)


def options(*overrides):
  return configs.load_or_default(
    None, ['expansion'], overrides=[f'expansion {{ {text} }}' for text in overrides]
  )


def test_images_with_most_inliers_are_chosen():
  found = QueryMatches('q', tuple(match(i, n) for i, n in enumerate((3, 9, 0, 20, 9, 8))))
  chosen = expand_queries.choose(found, options('num_images: 3').expansion)
  assert [m.image_id for m in chosen] == [3, 1, 4]
  assert [m.image_id for m in expand_queries.choose(found, options('min_inliers: 21').expansion)] == []


def test_features_that_fall_into_the_querys_box():
  query = stored_features.image(
    'q', np.zeros((1, 2)), stored_features.vectors(1, 0), regions=((0.25, 0, 0.5, 1),)
  )
  image = stored_features.image(
    'x', np.array([[0, 0], [40, 0], [50, 10], [60, 0]]), stored_features.vectors(4, 0)
  )
  # The box is rows 100 to 200 of a photo of 400 x 500; the transform doubles and moves down by 20.
  matrix = np.array([[2, 0, 20], [0, 2, 0], [0, 0, 1]])
  assert expand_queries.within_query(image.features, matrix, query).locations.tolist() == [
    [40, 0],
    [50, 10],
    [60, 0],
  ]
  matrix[1, 2] = 481
  assert expand_queries.within_query(image.features, matrix, query).locations.tolist() == [[40, 0], [60, 0]]
  matrix[0, 2] = 120
  assert expand_queries.within_query(image.features, matrix, query).locations.tolist() == [[0, 0], [40, 0]]


@pytest.fixture
def made(tmp_path):
  """Two photos of one object from either side: the query shows what only the first has in common with it."""
  places = np.random.default_rng(0).uniform(0, 400, (90, 2))
  descriptors = stored_features.vectors(90, 1)
  noise = [stored_features.vectors(40, seed) for seed in range(2, 12)]
  others = np.random.default_rng(1).uniform(0, 400, (40, 2))

  def photo(name, part, number):
    return stored_features.image(
      name, np.concatenate([places[part], others]), np.concatenate([descriptors[part], noise[number]])
    )

  index = [photo('first.jpg', slice(0, 60), 0), photo('second.jpg', slice(40, 90), 1)]
  index += [photo(f'other{n}.jpg', slice(0, 0), n) for n in range(2, 9)]
  queries = [
    stored_features.image('q0', places[:35], descriptors[:35]),
    stored_features.image('q1', others[:20], stored_features.vectors(20, 50)),
  ]
  config = configs.load_or_default(
    None,
    ['codebook', 'aggregation', 'search', 'verification', 'expansion'],
    overrides=['codebook { num_words: 32 iterations: 5 }'],
  )
  features = stored_features.write_features(tmp_path / 'features', index)
  query_features = stored_features.write_features(tmp_path / 'query_features', queries, fingerprint='q')
  codebook = train_codebook.run(config, features, tmp_path / 'codebook')
  descriptors = aggregate_features.run(config, features, codebook, tmp_path / 'descriptors')
  index = build_index.run(config, descriptors, codebook, tmp_path / 'index')
  rankings = search_index.run(config, index, query_features, tmp_path / 'rankings')
  reranked = rerank_results.run(config, rankings, features, query_features, tmp_path / 'reranked')
  return {
    'reranked': reranked,
    'index': index,
    'features': features,
    'query_features': query_features,
    'rankings': rankings,
  }


def run(made, output, *overrides, **other):
  inputs = {name: made[name] for name in ('reranked', 'index', 'features', 'query_features')} | other
  return expand_queries.run(options(*overrides), *inputs.values(), output)


def score_of(artefact, image_id):
  ranking = ranking_files.load(artefact.path).rankings[0]
  return float(ranking.scores[ranking.image_ids.tolist().index(image_id)])


def test_the_query_gains_what_verified_images_show(made, tmp_path):
  # Only first.jpg is verified; the points 35 to 59, which it adds, are partly those of second.jpg.
  expanded = run(made, tmp_path / 'out', 'min_images_per_word: 1')
  assert expanded.counts['expanded'] == 1
  first = ranking_files.load(expanded.path).rankings[0]
  assert first.image_ids[0] == 0
  assert first.inliers.tolist() == [35, *[0] * 8]
  # It passes photos that show nothing of the object.
  before, after = (
    min(score_of(artefact, 1) / score_of(artefact, n) for n in range(2, 9))
    for artefact in (made['reranked'], expanded)
  )
  assert before < 1 < after


def test_a_query_without_verified_images_is_answered_as_before(made, tmp_path):
  expanded = run(made, tmp_path / 'out')
  before, after = (ranking_files.load(made_of.path).rankings[1] for made_of in (made['reranked'], expanded))
  np.testing.assert_array_equal(after.image_ids, before.image_ids)
  np.testing.assert_array_equal(after.scores, before.scores)


def test_same_bytes_and_up_to_date(made, tmp_path):
  one, two = (run(made, tmp_path / name) for name in ('one', 'two'))
  assert stored_features.contents(one) == stored_features.contents(two)
  assert run(made, tmp_path / 'one').manifest == one.manifest


def test_rankings_must_be_verified(made, tmp_path):
  with pytest.raises(UserError, match='not verified'):
    run(made, tmp_path / 'out', reranked=made['rankings'])


@pytest.mark.parametrize('role', ['features', 'query_features'])
def test_what_the_rankings_were_not_made_from(made, tmp_path, role):
  other = stored_features.write_features(
    tmp_path / 'other', stored_features.index_images(), fingerprint='other'
  )
  with pytest.raises(UserError, match=f'Give the {role} that the rankings were made from'):
    run(made, tmp_path / 'out', **{role: other})
