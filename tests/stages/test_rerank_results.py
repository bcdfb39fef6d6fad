"""rerank_results: order, what is kept, resuming, threads, inputs that do not belong together."""

import sys

import numpy as np
import pytest
from support.stored_features import (
  MATRIX,
  NAMES,
  QUERIES,
  contents,
  image,
  index_images,
  query_images,
  write_features,
  write_rankings,
)

from delf_d2r import config as configs
from delf_d2r.data.artefacts import match_records, ranking_files
from delf_d2r.data.ground_truth import ground_truth, resolved
from delf_d2r.data.ground_truth.ground_truth import GroundTruth, QueryGroundTruth
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.geometry import transforms
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.stages import evaluate_retrieval, rerank_results
from delf_d2r.structures import Match, Ranking
from delf_d2r.verifier import reordered


@pytest.fixture
def inputs(tmp_path):
  queries = write_features(tmp_path / 'query_features', query_images()[1], fingerprint='q')
  features = write_features(tmp_path / 'features', index_images())
  return write_rankings(tmp_path / 'rankings', queries), features, queries


def options(*overrides):
  return configs.load_or_default(
    None, ['verification'], overrides=[f'verification {{ {text} }}' for text in overrides]
  )


def orders(artefact):
  return [ranking.image_ids.tolist() for ranking in ranking_files.load(artefact.path).rankings]


def test_verified_images_first_by_inliers_then_as_before(inputs, tmp_path):
  made = rerank_results.run(options(), *inputs, tmp_path / 'out')
  stored = ranking_files.load(made.path)
  first = stored.rankings[0]
  # c and e show all points, and tie as they stood; a shows none.
  assert first.image_ids.tolist() == [2, 4, 1, 3, 0]
  assert first.inliers.tolist() == [60, 60, 30, 12, 0]
  np.testing.assert_allclose(first.scores, np.linspace(1, 0.5, 5)[first.image_ids], rtol=1e-6)
  assert stored.image_names == NAMES
  assert stored.timing.describe == (1.0, 1.0, 1.0)
  assert len(stored.timing.verify) == 3
  assert made.counts['pairs'] == 15


def test_matches_tell_places_and_model(inputs, tmp_path):
  made = rerank_results.run(options(), *inputs, tmp_path / 'out')
  found = list(match_records.read(made))
  assert [query.query for query in found] == list(QUERIES)
  assert [m.image_id for m in found[0].matches] == [0, 1, 2, 3, 4]
  match = found[0].matches[2]
  np.testing.assert_allclose(match.matrix, MATRIX, atol=1e-3)
  np.testing.assert_allclose(
    transforms.apply(MATRIX, match.index_locations.astype(float)), match.query_locations, atol=1e-2
  )
  assert not found[0].matches[0].matrix.any()


def test_a_feature_of_two_regions_counts_once(inputs, tmp_path):
  whole = rerank_results.run(options('features: WHOLE_IMAGE'), *inputs, tmp_path / 'whole')
  every = rerank_results.run(options(), *inputs, tmp_path / 'every')
  inliers = [[r.inliers.tolist() for r in ranking_files.load(a.path).rankings] for a in (whole, every)]
  assert inliers[0] == inliers[1]


def test_only_the_head_is_looked_at(inputs, tmp_path):
  made = rerank_results.run(options('num_images: 3'), *inputs, tmp_path / 'out')
  assert orders(made)[0] == [2, 1, 0, 3, 4]
  assert made.counts['pairs'] == 9


def test_too_few_inliers_change_nothing(inputs, tmp_path):
  made = rerank_results.run(options('min_inliers: 61'), *inputs, tmp_path / 'out')
  assert orders(made) == [[0, 1, 2, 3, 4]] * 3
  assert not any(ranking.inliers.any() for ranking in ranking_files.load(made.path).rankings)


def test_research_rule(inputs, tmp_path):
  made = rerank_results.run(options('compat: true trials: 200'), *inputs, tmp_path / 'out')
  assert orders(made)[0][:4] == [2, 4, 1, 3]
  assert len(next(match_records.read(made)).matches[2]) >= 60


def test_threads_and_runs_give_the_same_bytes(inputs, tmp_path):
  made = [rerank_results.run(options(), *inputs, tmp_path / f'out{n}', workers=n) for n in (1, 4)]
  assert contents(made[0]) == contents(made[1])


def test_resumes_to_the_same_bytes_without_doing_it_again(inputs, tmp_path, monkeypatch):
  config = options('queries_per_shard: 1')
  whole = rerank_results.run(config, *inputs, tmp_path / 'whole')
  original, done = rerank_results._QueryVerification.outcome, []

  def stop_at_the_second(stage, number):
    done.append(number)
    if len(done) == 2:
      raise KeyboardInterrupt
    return original(stage, number)

  monkeypatch.setattr(rerank_results._QueryVerification, 'outcome', stop_at_the_second)
  with pytest.raises(KeyboardInterrupt):
    rerank_results.run(config, *inputs, tmp_path / 'out')
  resumed = rerank_results.run(config, *inputs, tmp_path / 'out')
  assert resumed.counts['queries'] == 3
  assert done == [0, 1, 1, 2]
  assert contents(whole) == contents(resumed)
  rerank_results.run(config, *inputs, tmp_path / 'out')
  assert done == [0, 1, 1, 2]


def test_another_config_is_refused(inputs, tmp_path):
  rerank_results.run(options(), *inputs, tmp_path / 'out')
  with pytest.raises(ArtefactError, match=r'verification\.max_residual is 10 there, 5 here'):
    rerank_results.run(options('max_residual: 5'), *inputs, tmp_path / 'out')


def test_features_of_another_extractor(inputs, tmp_path):
  rankings, _, queries = inputs
  other = write_features(tmp_path / 'other', index_images(), extractor=1)
  with pytest.raises(UserError, match='come from different extractors'):
    rerank_results.run(options(), rankings, other, queries, tmp_path / 'out')


def test_features_of_other_queries(inputs, tmp_path):
  rankings, features, _ = inputs
  other = write_features(tmp_path / 'other', query_images()[1], fingerprint='other')
  with pytest.raises(UserError, match=r'made from query features .* Give the query features'):
    rerank_results.run(options(), rankings, features, other, tmp_path / 'out')


def test_an_image_without_features_in_the_artefact(inputs, tmp_path):
  rankings, _, queries = inputs
  other = write_features(tmp_path / 'other', index_images()[:3])
  with pytest.raises(UserError, match=r'no features of d\.jpg among those of 3 images'):
    rerank_results.run(options(), rankings, other, queries, tmp_path / 'out')


def test_features_in_another_order(inputs, tmp_path):
  rankings, features, queries = inputs
  other = write_features(tmp_path / 'other', index_images()[::-1])
  found = [
    rerank_results.run(options(), rankings, given, queries, tmp_path / f'out{n}')
    for n, given in enumerate((features, other))
  ]
  assert orders(found[0]) == orders(found[1])


def test_verified_rankings_are_not_verified_again(inputs, tmp_path):
  made = rerank_results.run(options(), *inputs, tmp_path / 'out')
  with pytest.raises(UserError, match='verified already'):
    rerank_results.run(options(), made, *inputs[1:], tmp_path / 'again')


def test_images_and_queries_without_features(tmp_path):
  nothing = image('q0', np.zeros((0, 2)), np.zeros((0, 32), np.float32))
  queries = write_features(tmp_path / 'query_features', [nothing, *query_images()[1][1:]])
  images = index_images()
  images[1] = image('b.jpg', np.zeros((0, 2)), np.zeros((0, 32), np.float32))
  features = write_features(tmp_path / 'features', images)
  made = rerank_results.run(
    options(), write_rankings(tmp_path / 'rankings', queries), features, queries, tmp_path / 'out'
  )
  assert orders(made) == [[0, 1, 2, 3, 4], [2, 4, 3, 0, 1], [2, 4, 3, 0, 1]]


def test_an_estimator_that_is_not_installed_leaves_nothing(inputs, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'pydegensac', None)
  with pytest.raises(UserError, match='pip install pydegensac'):
    rerank_results.run(options('estimator: DEGENSAC model: HOMOGRAPHY'), *inputs, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


@pytest.fixture
def truth(tmp_path):
  path = tmp_path / 'truth.json'
  queries = [
    QueryGroundTruth(name, 'a.jpg', easy=('c.jpg',), hard=('e.jpg',), junk=('b.jpg',)) for name in QUERIES
  ]
  ground_truth.save_json(GroundTruth('t', NAMES, tuple(queries)), path)
  return path


@pytest.mark.parametrize(('junk', 'looked_at'), [('SKIP_MEDIUM', [0, 2, 3]), ('SKIP_HARD', [0, 3, 4])])
def test_junk_is_skipped_where_asked(inputs, tmp_path, truth, junk, looked_at):
  made = rerank_results.run(
    options(f'junk: {junk} num_images: 3'), *inputs, tmp_path / 'out', ground_truth_path=truth
  )
  assert [m.image_id for m in next(match_records.read(made)).matches] == looked_at


def test_junk_needs_ground_truth(inputs, tmp_path):
  with pytest.raises(UserError, match='without --ground_truth nothing is known to be junk'):
    rerank_results.run(options('junk: SKIP_HARD'), *inputs, tmp_path / 'out')


def test_one_verification_has_one_order(inputs, tmp_path, truth, caplog):
  with pytest.raises(UserError, match='SKIP_EACH makes two rankings'):
    rerank_results.run(options('junk: SKIP_EACH'), *inputs, tmp_path / 'out', ground_truth_path=truth)
  assert not (tmp_path / 'out').exists()
  for junk, is_told in (('SKIP_HARD', False), ('LIKE_OTHERS', True)):
    text = f'compat: true trials: 1 junk: {junk}'
    rerank_results.run(options(text), *inputs, tmp_path / junk, ground_truth_path=truth)
    assert ('For its numbers set verification.junk: SKIP_EACH' in caplog.text) == is_told


def test_hard_is_scored_by_rankings_of_its_own(inputs, tmp_path, truth):
  config = configs.default('evaluation')
  junk = {name: options(f'junk: {name} num_images: 3') for name in ('SKIP_MEDIUM', 'SKIP_HARD')}
  made = {
    name: rerank_results.run(own, *inputs, tmp_path / name, ground_truth_path=truth)
    for name, own in junk.items()
  }
  alone = {
    name: evaluate_retrieval.score(
      ranking_files.load(artefact.path),
      resolved.resolved_queries(artefact, ranking_files.load(artefact.path), ground_truth.load(truth)),
    ).protocols
    for name, artefact in made.items()
  }
  assert (
    alone['SKIP_MEDIUM']['hard'].mean_average_precision != alone['SKIP_HARD']['hard'].mean_average_precision
  )
  scored = evaluate_retrieval.run(
    config, made['SKIP_MEDIUM'], truth, tmp_path / 'metrics', hard=made['SKIP_HARD']
  )
  found = metrics_files.read_metrics_json(scored.path / 'metrics.json')
  for name, source in (('easy', 'SKIP_MEDIUM'), ('medium', 'SKIP_MEDIUM'), ('hard', 'SKIP_HARD')):
    assert found[name].mean_average_precision == alone[source][name].mean_average_precision
  with pytest.raises(UserError, match='expected rankings that verify the same ones'):
    evaluate_retrieval.run(config, made['SKIP_MEDIUM'], truth, tmp_path / 'other', hard=inputs[0])


def test_metrics_before_and_after(inputs, tmp_path, truth):
  made = rerank_results.run(options(), *inputs, tmp_path / 'out')
  config = configs.default('evaluation')
  after = evaluate_retrieval.run(config, made, truth, tmp_path / 'metrics', before=inputs[0])
  text = (after.path / 'metrics.txt').read_text()
  assert [line for line in text.splitlines() if '=' not in line and '[' not in line] == [
    'hard',
    'hard_after_gv',
    'medium',
    'medium_after_gv',
  ]
  assert 'medium_after_gv\n  mAP=100.0\n' in text
  assert 'medium\n  mAP=100.0\n' not in text


def test_reordered_keeps_ties_as_they_stood():
  places = np.zeros((4, 2), np.float32)
  matches = [Match(image, np.eye(3), places[:n], places[:n]) for image, n in ((9, 4), (3, 0), (7, 4))]
  ranking = Ranking('q', np.array([3, 7, 9, 1]), np.array([4.0, 3, 2, 1]), np.array([0, 1, 2, 3]))
  found = reordered(ranking, matches)
  assert found.image_ids.tolist() == [7, 9, 3, 1]
  assert found.inliers.tolist() == [4, 4, 0, 0]
  assert found.scores.tolist() == [3, 2, 4, 1]
  assert found.best_regions.tolist() == [1, 2, 0, 3]


def test_rankings_of_other_features_are_verified_by_local_ones(inputs, tmp_path):
  rankings, *own = inputs
  first = rerank_results.run(options(), rankings, *own, tmp_path / 'first')
  local = [
    write_features(tmp_path / name, found, fingerprint=name, extractor=ExtractionConfig.DELF)
    for name, found in (('local', index_images()), ('local_queries', query_images()[1]))
  ]
  made = rerank_results.run(options(), rankings, *local, tmp_path / 'second')
  assert orders(made) == orders(first)
  assert made.config.extraction.extractor == ExtractionConfig.ROOT_SIFT
  assert made.config.verification.extraction.extractor == ExtractionConfig.DELF
  assert not first.config.verification.HasField('extraction')


@pytest.mark.parametrize(
  ('extractor', 'message'),
  [
    (ExtractionConfig.GLOBAL, 'global descriptors have no places'),
    (ExtractionConfig.ACTIVATION_REGIONS, r'by DESCRIPTORS\. Set verification\.matching: SAME_CHANNEL'),
  ],
)
def test_features_that_cannot_be_matched(inputs, tmp_path, extractor, message):
  others = [
    write_features(tmp_path / name, found, extractor=extractor)
    for name, found in (('other', index_images()), ('other_queries', query_images()[1]))
  ]
  with pytest.raises(UserError, match=message):
    rerank_results.run(options(), inputs[0], *others, tmp_path / 'out')
