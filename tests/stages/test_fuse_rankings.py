"""fuse_rankings: sums of comparable scores, images by name, and rankings that cannot be added."""

import numpy as np
import pytest
from support.run_files import score_table
from support.stored_features import (
  NAMES,
  QUERIES,
  contents,
  index_images,
  query_images,
  write_features,
  write_rankings,
)

from delf_d2r import config as configs
from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.ranking_files import Timing
from delf_d2r.errors import UserError
from delf_d2r.fuser import Fuser
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.stages import fuse_rankings, rerank_results
from delf_d2r.structures import Ranking

SCORES = np.array([[5.0, 1, 3, 0, 1], [2, 2, 2, 2, 2], [0, 0, 0, 0, 9]], np.float32)
OTHER = np.array([[0.1, 0.9, 0.2, 0.8, 0.5], [0.3, 0.1, 0.5, 0.2, 0.4], [1, 1, 1, 1, 1]], np.float32)


def ranked(scores, names=QUERIES):
  found = []
  for query, row in zip(names, scores, strict=True):
    order = np.argsort(-row, kind='stable')
    found.append(Ranking(query, order, row[order], (order * 10).astype(np.int32)))
  return found


@pytest.fixture
def queries(tmp_path):
  return write_features(tmp_path / 'query_features', query_images()[1])


@pytest.fixture
def inputs(tmp_path, queries):
  return (
    write_rankings(tmp_path / 'rankings', queries, ranked(SCORES)),
    write_rankings(tmp_path / 'other', queries, ranked(OTHER)),
  )


def options(fields=''):
  return configs.load_or_default(None, ['fusion'], overrides=[f'fusion {{ {fields} }}'])


def z(scores):
  deviations = scores.std(axis=1, keepdims=True)
  return (scores - scores.mean(axis=1, keepdims=True)) / np.where(deviations == 0, 1, deviations)


def test_z_scores_add_up(inputs, tmp_path):
  made = fuse_rankings.run(options('weight: 0.7'), *inputs, tmp_path / 'out')
  np.testing.assert_allclose(score_table(made), z(SCORES) + 0.7 * z(OTHER), atol=1e-6)
  first = ranking_files.load(made.path).rankings[0]
  np.testing.assert_allclose(first.local_scores + first.global_scores, first.scores, atol=1e-6)
  np.testing.assert_allclose(first.local_scores, z(SCORES)[0][first.image_ids], atol=1e-6)
  # Regions are those of the first search.
  np.testing.assert_array_equal(first.best_regions, first.image_ids * 10)
  assert made.config.fusion.weight == np.float32(0.7)
  assert made.counts['images'] == 5


def test_plain_scores_add_up_and_ties_stand_by_image(inputs, tmp_path):
  made = fuse_rankings.run(options('weight: 2 normalization: NONE'), *inputs, tmp_path / 'out')
  np.testing.assert_allclose(score_table(made), SCORES + 2 * OTHER, rtol=1e-6)
  third = ranking_files.load(made.path).rankings[2]
  assert third.image_ids.tolist() == [4, 0, 1, 2, 3]


def test_a_weight_of_nothing_keeps_the_order(inputs, tmp_path):
  made = fuse_rankings.run(options('weight: 0'), *inputs, tmp_path / 'out')
  for found, before in zip(ranking_files.load(made.path).rankings, ranked(SCORES), strict=True):
    np.testing.assert_array_equal(found.image_ids, before.image_ids)


def test_images_are_known_by_name(inputs, tmp_path):
  rankings, other = inputs
  before = score_table(fuse_rankings.run(options(), rankings, other, tmp_path / 'a'))
  turned = [Ranking(r.query, 4 - r.image_ids, r.scores, r.best_regions) for r in ranked(OTHER)]
  times = (1.0,) * 3
  ranking_files.save(turned, NAMES[::-1], Timing(times, times), other.path)
  np.testing.assert_array_equal(
    score_table(fuse_rankings.run(options(), rankings, other, tmp_path / 'b')), before
  )


def test_what_cannot_be_added(inputs, tmp_path, queries):
  rankings, other = inputs
  short = [Ranking(r.query, r.image_ids[:3], r.scores[:3], r.best_regions[:3]) for r in ranked(OTHER)]
  with pytest.raises(UserError, match=r'3 of 5 images, but all .* search\.top_k: 0'):
    fuse_rankings.run(options(), rankings, write_rankings(tmp_path / 'x', queries, short), tmp_path / 'out')
  elsewhere = write_rankings(tmp_path / 'y', queries, ranked(OTHER, names=('q0', 'q1', 'q9')))
  with pytest.raises(UserError, match='of different queries: 3 and 3, which differ in q2'):
    fuse_rankings.run(options(), rankings, elsewhere, tmp_path / 'out')
  ranking_files.save(ranked(OTHER), ('z.jpg', *NAMES[1:]), Timing((1.0,) * 3, (1.0,) * 3), other.path)
  with pytest.raises(UserError, match=r'of different images: 5 and 5, which differ in a\.jpg'):
    fuse_rankings.run(options(), rankings, other, tmp_path / 'out')


def test_verified_rankings_are_fused_before(inputs, tmp_path, queries):
  rankings, other = inputs
  features = write_features(tmp_path / 'features', index_images())
  verifying = configs.default('verification')
  verified = rerank_results.run(verifying, rankings, features, queries, tmp_path / 'verified')
  with pytest.raises(UserError, match=r'are verified, .* Fuse before rerank_results'):
    fuse_rankings.run(options(), verified, other, tmp_path / 'out')
  # What is fused can be verified.
  fused = fuse_rankings.run(options(), rankings, other, tmp_path / 'fused')
  made = rerank_results.run(verifying, fused, features, queries, tmp_path / 'made')
  assert ranking_files.load(made.path).rankings[0].inliers.max() > 0


def test_same_bytes_and_a_second_run_is_skipped(inputs, tmp_path):
  made = [fuse_rankings.run(options(), *inputs, tmp_path / name) for name in ('a', 'b', 'a')]
  assert contents(made[0]) == contents(made[1])
  assert made[0].manifest.fingerprint == made[2].manifest.fingerprint


def test_one_query_by_hand():
  first = Ranking('q', np.array([1, 0]), np.array([3, 1], np.float32), np.full(2, -1, np.int32))
  other = Ranking('q', np.array([0, 1]), np.array([5, 1], np.float32), np.full(2, -1, np.int32))
  # Image 0 of the other is image 1 of the first.
  found = fuse_rankings.fuse(first, other, np.array([1, 0]), Fuser(FusionConfig(weight=0.5)))
  assert found.image_ids.tolist() == [1, 0]
  assert found.scores.tolist() == [1.5, -1.5]
  assert (found.local_scores.tolist(), found.global_scores.tolist()) == ([1, -1], [0.5, -0.5])
