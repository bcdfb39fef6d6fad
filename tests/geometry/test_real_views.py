"""Matching and verification between real photos whose homographies are known exactly."""

import functools
import pathlib

import numpy as np
import pytest

from delf_d2r.data.photos.images import load_image
from delf_d2r.extractors.root_sift import RootSift
from delf_d2r.geometry import legacy_rule, transforms
from delf_d2r.geometry.matching import match
from delf_d2r.geometry.transforms import Model
from delf_d2r.geometry.verification import Options, verify
from delf_d2r.protos import extraction_pb2

VIEWS = pathlib.Path(__file__).resolve().parents[3] / 'shared/data/hpatches_v_churchill'
pytestmark = pytest.mark.skipif(not VIEWS.is_dir(), reason='../shared/data is not beside the checkout')

# Least share of the right matches that must be found, and the largest mean error of the photo's corners in
# pixels: later views are steeper, and a corner lies far from what both photos show.
EXPECTED = {2: (0.9, 1.5), 3: (0.9, 4.0), 4: (0.9, 4.0), 5: (0.9, 0.5), 6: (0.85, 12.0)}
# OpenCV's pixel centres have whole coordinates, and so have those of the files.
_CENTRE = 0.5


@functools.cache
def features(view):
  extractor = RootSift(extraction_pb2.RootSiftConfig(), max_features=2000, min_attention=0)
  return extractor(load_image(VIEWS / f'{view}.png'))


def true_matrix(view):
  """View 1 to another, for (y, x) and pixels that begin at whole coordinates."""
  matrix = np.loadtxt(VIEWS / f'H_1_{view}')[[1, 0, 2]][:, [1, 0, 2]]
  shift = np.eye(3)
  shift[:2, 2] = _CENTRE
  moved = shift @ matrix @ np.linalg.inv(shift)
  return moved / moved[2, 2]


@pytest.mark.parametrize('view', EXPECTED)
def test_homography_between_views(view):
  query, index = features(view), features(1)
  matches = match(query.descriptors, index.descriptors, max_distance=0.9)
  places = query.locations[matches.query], index.locations[matches.index]
  found = verify(*places, Options(model=Model.HOMOGRAPHY, max_residual=5), credible=matches.credible)
  truth = true_matrix(view)
  right = transforms.residuals(truth, places[1].astype(float), places[0].astype(float)) <= 5
  least_share, largest_error = EXPECTED[view]
  assert right[found.inliers].mean() > 0.96
  distinct = len(np.unique(np.floor(np.concatenate(places, axis=1)[right]), axis=0))
  assert right[found.inliers].sum() >= least_share * distinct
  height, width = 1024, 768
  corners = np.array([[0, 0], [0, width], [height, 0], [height, width]], float)
  errors = transforms.residuals(found.matrix, corners, transforms.apply(truth, corners))
  assert errors.mean() < largest_error


def test_mutual_matches_have_a_larger_share_of_right_ones():
  query, index = features(4), features(1)
  shares = []
  for mutual in (True, False):
    matches = match(query.descriptors, index.descriptors, mutual=mutual)
    index_places, query_places = index.locations[matches.index], query.locations[matches.query]
    places = (part[matches.credible].astype(float) for part in (index_places, query_places))
    shares.append((transforms.residuals(true_matrix(4), *places) <= 5).mean())
  assert shares[0] > 1.3 * shares[1]


def right_matches(view):
  """The number of right pairs that are credible, and of all that are right."""
  query, index = features(view), features(1)
  found = match(query.descriptors, index.descriptors, max_distance=0.9, ratio=0.9)
  places = (index.locations[found.index].astype(float), query.locations[found.query].astype(float))
  right = transforms.residuals(true_matrix(view), *places) <= 5
  return (right & found.credible).sum(), right.sum()


@pytest.mark.parametrize('view', EXPECTED)
def test_codes_find_as_many_right_matches_as_all_distances(monkeypatch, view):
  by_codes = right_matches(view)
  monkeypatch.setattr('delf_d2r.geometry.matching._FEWEST_PAIRS', np.inf)
  by_all = right_matches(view)
  assert by_codes[0] >= by_all[0]
  assert by_codes[1] >= 0.98 * by_all[1]


@pytest.mark.parametrize('view', [3, 4, 6])
def test_no_fewer_right_inliers_than_by_the_reference_rule(view):
  """Right by the true homography, and each pixel once: several matches of one keypoint are one."""
  query, index = features(view), features(1)
  ours = match(query.descriptors, index.descriptors, max_distance=0.9, ratio=0.9)
  theirs = legacy_rule.match(query.descriptors, index.descriptors, max_distance=0.9)
  counts = []
  for matches, find in (
    (ours, functools.partial(verify, options=Options(), credible=ours.credible)),
    (theirs, functools.partial(legacy_rule.verify, max_residual=10, trials=1000, seed=0)),
  ):
    places = query.locations[matches.query], index.locations[matches.index]
    found = find(*places).inliers
    query_places, index_places = (part[found].astype(float) for part in places)
    right = transforms.residuals(true_matrix(view), index_places, query_places) <= 10
    counts.append(min(len(np.unique(np.floor(part[right]), axis=0)) for part in (query_places, index_places)))
  assert counts[0] >= counts[1]
