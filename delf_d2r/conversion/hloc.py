"""Features and verified matches out of artefacts into files that hloc and others read."""

import pathlib
from collections.abc import Iterator

import numpy as np
from absl import logging

from delf_d2r.conversion import foreign_files, single_files
from delf_d2r.data import files
from delf_d2r.data.artefacts import match_records, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.data.foreign import hloc_files
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.runtime import progress
from delf_d2r.stages import extract_features


def write_features(features: Artefact, output: pathlib.Path, *, redo: bool = False) -> None:
  """Writes `features.h5`: of index images the features of the whole image, of queries those of their box.

  Args:
    features: what extract_features made.
    output: the file.
    redo: replace the file that stands there.

  Raises:
    UserError: a file stands there, or the place cannot be written.
  """
  with _new_file(output, redo) as path:
    hloc_files.write_features(path, _arrays(features, str(output)))


def write_npz(features: Artefact, output: pathlib.Path, *, redo: bool = False) -> int:
  """Writes `<image name>.npz` for each image, with the arrays of `write_features`; returns how many.

  Arguments and errors as there, `output` being a folder.
  """
  for name, found in _arrays(features, '.npz files'):
    foreign_files.put(output / f'{name}.npz', single_files.npz(found), redo=redo)
  return features.counts['images']


def write_matches(rankings: Artefact, output: pathlib.Path, *, redo: bool = False) -> None:
  """Writes `matches.h5`: the inliers of each query and image that rerank_results looked at, if any.

  They are positions among the keypoints of `write_features`; those that agree in features of boxes alone are
  left out. The pairs of images are those of `write_pairs`, without which hloc reads no matches.

  Args:
    rankings: what rerank_results made. The features that it used must lie where they were.
    output: the file.
    redo: replace the file that stands there.

  Raises:
    UserError: the rankings are not verified, their features are gone or others, a file stands there, or the
      place cannot be written.
  """
  if rankings.input('query_features') is None or not rankings.manifest.shards:
    raise UserError(f'{rankings.path}: these rankings have no matches. Give what rerank_results made')
  with _new_file(output, redo) as path:
    hloc_files.write_matches(path, _pairs(rankings, str(output)))


def write_pairs(rankings: Artefact, output: pathlib.Path, *, redo: bool = False) -> None:
  """Writes a list of each query with its images, best first: those that rerank_results looked at, else all.

  Args:
    rankings: what search_index, rerank_results, fuse_rankings or expand_queries made.
    output: the file.
    redo: replace the file that stands there.

  Raises:
    UserError: a name has a space, other contents stand at the file, or it cannot be written.
  """
  stored = ranking_files.load(rankings.path)
  if rankings.manifest.shards:
    verified = match_records.read(rankings)
    chosen = ((found.query, [match.image_id for match in found.matches]) for found in verified)
  else:
    chosen = ((ranking.query, ranking.image_ids) for ranking in stored.rankings)
  pairs = ((query, stored.image_names[image_id]) for query, image_ids in chosen for image_id in image_ids)
  foreign_files.put(output, hloc_files.format_pairs(pairs), redo=redo)


def _arrays(features: Artefact, what: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
  total = features.counts['images']
  for image in progress.track(extract_features.read(features), total=total, what=what, unit='images'):
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
    logging.warning('%d matches are of features of boxes or share a keypoint with others: left out', lost)


def _behind(rankings: Artefact, role: str) -> Artefact:
  expected = rankings.input(role)
  found = Artefact.open(expected.path, 'features')
  if found.manifest.fingerprint != expected.fingerprint:
    raise ArtefactError(
      f'{rankings.path}: verified with {role} {expected.fingerprint}, but {expected.path} is'
      f' {found.manifest.fingerprint}. Run rerank_results again'
    )
  return found


def _new_file(output: pathlib.Path, redo: bool):
  foreign_files.require_absent(output, redo=redo)
  with files.user_errors('cannot write', output):
    output.parent.mkdir(parents=True, exist_ok=True)
  return files.atomic_replace(output)
