"""What hloc makes of its files, written after reading how its stages open them.

Read at github.com/cvg/Hierarchical-Localization: utils/io.py (get_keypoints, get_matches, find_pair),
utils/parsers.py (parse_retrieval, names_to_pair), match_features.py (FeaturePairsDataset), triangulation.py
(import_features, import_matches).
"""

import collections

import h5py
import numpy as np


def image_names(features):
  """Names of the images: whatever group holds arrays, however deep."""
  found = set()
  with h5py.File(features) as file:
    file.visititems(
      lambda _, item: found.add(item.parent.name[1:]) if isinstance(item, h5py.Dataset) else None
    )
  return found


def colmap_keypoints(features, name):
  """[N, 2] `(x, y)` as they enter COLMAP's database, which puts the centre of the first pixel at 0.5."""
  with h5py.File(features) as file:
    keypoints = file[name]['keypoints'][()]
  assert keypoints.dtype.kind == 'f'  # The shift is made in place.
  return keypoints + keypoints.dtype.type(0.5)


def matcher_input(features, name):
  """What a matcher is given of one image: all arrays as float32, and the shape of the image."""
  with h5py.File(features) as file:
    given = {key: array[()].astype(np.float32) for key, array in file[name].items()}
    width, height = file[name]['image_size']
  keypoints = len(given['keypoints'])
  assert given['descriptors'].shape[1] == given['scores'].shape[0] == keypoints
  return given | {'image': (1, height, width)}


def listed_pairs(path):
  """Images by query, from a file of two names a line."""
  found = collections.defaultdict(list)
  for line in path.read_text(encoding='utf-8').splitlines():
    query, image = line.split()
    found[query].append(image)
  return dict(found)


def matches(path, first, second):
  """[2, K] keypoints of both images, and [K] scores; a pair that is not there, either way, is an error."""
  flat = [name.replace('/', '-') for name in (first, second)]
  with h5py.File(path) as file:
    is_turned = '/'.join(flat) not in file
    pair = file['/'.join(flat[::-1] if is_turned else flat)]
    of_first, scores = pair['matches0'][()], pair['matching_scores0'][()]
  rows = np.flatnonzero(of_first != -1)
  found = np.stack([rows, of_first[rows]])
  return (found[::-1] if is_turned else found), scores[rows]
