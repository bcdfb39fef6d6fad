"""Conversion of features and verified matches to files that hloc and other programs read."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging

from delf_d2r.conversion import foreign_files, single_files
from delf_d2r.data.artefacts import feature_files, match_records, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.data.foreign import hloc_files
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.runtime import progress


def write_features(features: Artefact, output: pathlib.Path, *, redo: bool = False) -> None:
  """Writes `features.h5`: the features of whole index images, or of the boxes of queries.

  Args:
    features: artefact of extract_features.
    output: the file.
    redo: whether to replace a file of other contents.

  Raises:
    UserError: there is a file of other contents, or it cannot be written.
  """
  with foreign_files.new_file(output, redo=redo) as path:
    hloc_files.write_features(path, _arrays(features, str(output)))


def write_npz(features: Artefact, output: pathlib.Path, *, redo: bool = False) -> int:
  """Writes `<image name>.npz` for each image, with the arrays of `write_features`; returns their number.

  Arguments and errors are those of `write_features`, except that `output` is a folder.
  """
  for name, found in _arrays(features, '.npz files'):
    foreign_files.put(output / f'{name}.npz', single_files.npz(found), redo=redo)
  return features.counts['images']


def write_matches(rankings: Artefact, output: pathlib.Path, *, redo: bool = False) -> None:
  """Writes `matches.h5`: the inliers of each query and image that rerank_results verified, if any.

  They are positions in the keypoints of `write_features`; inliers among features that only boxes have are
  omitted. The pairs of images are those of `write_pairs`, without which hloc reads no matches.

  Args:
    rankings: artefact of rerank_results. The features that it used must be where they were.
    output: the file.
    redo: whether to replace a file of other contents.

  Raises:
    UserError: the rankings are not verified, their features are missing or have changed, there is a file of
      other contents, or it cannot be written.
  """
  if rankings.input('query_features') is None or not rankings.manifest.shards:
    raise UserError(f'{rankings.path}: these rankings have no matches. Give an artefact of rerank_results')
  with foreign_files.new_file(output, redo=redo) as path:
    hloc_files.write_matches(path, _pairs(rankings, str(output)))


def write_pairs(rankings: Artefact, output: pathlib.Path, *, redo: bool = False) -> None:
  """Writes the pairs of each query with its images, best first: those that were verified, else all.

  Args:
    rankings: artefact of search_index, rerank_results, fuse_rankings or expand_queries.
    output: the file.
    redo: whether to replace a file of other contents.

  Raises:
    UserError: a name has a space, there is a file of other contents, or it cannot be written.
  """
  stored = ranking_files.load(rankings.path)
  chosen: Iterator[tuple[str, Sequence[int] | np.ndarray]]
  if rankings.manifest.shards:
    verified = match_records.read(rankings)
    chosen = ((found.query, [match.image_id for match in found.matches]) for found in verified)
  else:
    chosen = ((ranking.query, ranking.image_ids) for ranking in stored.rankings)
  pairs = ((query, stored.image_names[image_id]) for query, image_ids in chosen for image_id in image_ids)
  foreign_files.put(output, hloc_files.format_pairs(pairs), redo=redo)


def _arrays(features: Artefact, what: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
  total = features.counts['images']
  for image in progress.track(feature_files.read(features), total=total, what=what, unit='images'):
    yield image.name, hloc_files.arrays(image.region(0), (image.height, image.width))


def _pairs(rankings: Artefact, what: str) -> Iterator[tuple[str, str, np.ndarray]]:
  stored = ranking_files.load(rankings.path)
  roles = [role for role in ('features', 'distractor_features') if rankings.input(role)]
  images = FeatureStore(*(_behind(rankings, role) for role in roles))
  queries = FeatureStore(_behind(rankings, 'query_features'))
  lost = 0
  tracked = progress.track(
    match_records.read(rankings), total=len(stored.rankings), what=what, unit='queries'
  )
  for number, found in enumerate(tracked):
    query = queries.read(found.query, position=number).region(0).locations
    for match in found.matches:
      name = stored.image_names[match.image_id]
      if not len(match):
        yield found.query, name, np.full(len(query), -1)
        continue
      places = images.read(name, position=match.image_id).region(0).locations
      matches = hloc_files.matches_of(match.query_locations, match.index_locations, (query, places))
      lost += len(match) - int((matches >= 0).sum())
      yield found.query, name, matches
  if lost:
    logging.warning('%d matches omitted: of features of boxes, or with a keypoint of another match', lost)


def _behind(rankings: Artefact, role: str) -> Artefact:
  expected = rankings.input(role)
  if expected is None:
    raise ArtefactError(f'{rankings.path}: the manifest names no {role}. Run rerank_results again')
  found = Artefact.open(expected.path, 'features')
  if found.manifest.fingerprint != expected.fingerprint:
    raise ArtefactError(
      f'{rankings.path}: verified with {role} {expected.fingerprint}, but {expected.path} is'
      f' {found.manifest.fingerprint}. Run rerank_results again'
    )
  return found
