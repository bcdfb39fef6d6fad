"""Features and matches in the layout of hloc (github.com/cvg/Hierarchical-Localization), HDF5 or NPZ.

`features.h5` has a group for each image name with `keypoints` [N, 2] `(x, y)` in pixels of the original
image, the centre of its first pixel at (0, 0), `descriptors` [D, N], `scores` [N] and `image_size` [2], width
and height; here also `scales` [N]. An `.npz` file has the same arrays for one image. `matches.h5` has a group
`<name 0>/<name 1>`, `-` for each `/` of a name, with `matches0` [N0], positions among the keypoints of image
1 or -1, and `matching_scores0` [N0]. A list of pairs, which every stage of hloc asks for beside them, has two
names a line, a space between.

hloc takes photos as they are stored: where EXIF turns some, features are to be extracted with
apply_exif_orientation false.
"""

import pathlib
from collections.abc import Iterable

import h5py
import numpy as np

from delf_d2r.data.foreign import zip_limits
from delf_d2r.errors import UserError
from delf_d2r.structures import LocalFeatures

# Unpacked: a million features of 128 dimensions.
MAX_NPZ_BYTES = 2**29

# Our locations count from the image's edge, where the centre of the first pixel is at 0.5.
_FIRST_PIXEL = np.float32(0.5)

_KEYPOINTS = ('keypoints', 'descriptors', 'scores', 'scales')


def arrays(features: LocalFeatures, image_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
  """The arrays of one image.

  Args:
    features: N features.
    image_size: its height and width in pixels; None where they are not known.
  """
  found = {
    'keypoints': np.ascontiguousarray(features.locations[:, ::-1] - _FIRST_PIXEL),
    'descriptors': np.ascontiguousarray(features.descriptors.T),
    'scores': features.attention,
    'scales': features.scales,
  }
  if image_size:
    found['image_size'] = np.array(image_size[::-1], np.int64)
  return found


def read_npz(path: pathlib.Path) -> LocalFeatures:
  """The features of an `.npz` file; scales are 1 where it has none, as hloc's extractors write it.

  Raises:
    UserError: it is missing, damaged, lacks an array, or arrays do not fit or are not finite.
  """
  try:
    # NumPy leaves a file open that it cannot read.
    with open(path, 'rb') as file:
      zip_limits.check_unpacked_size(file, MAX_NPZ_BYTES)
      with np.load(file, allow_pickle=False) as archive:
        found = {name: np.asarray(archive[name], np.float32) for name in _KEYPOINTS if name in archive}
    lacking = [name for name in ('keypoints', 'descriptors', 'scores') if name not in found]
    if lacking:
      raise ValueError(f'it lacks {", ".join(lacking)}')
    if not all(np.isfinite(array).all() for array in found.values()):
      raise ValueError('it has numbers that are not finite')
    scales = found.get('scales', np.ones_like(found['scores']))
    locations = found['keypoints'][:, ::-1] + _FIRST_PIXEL
    return LocalFeatures(locations, scales, found['scores'], found['descriptors'].T)
  except Exception as error:  # A damaged archive raises nearly any exception.
    raise UserError(f'{path}: not readable as .npz of features ({error})') from None


def write_features(path: pathlib.Path, images: Iterable[tuple[str, dict[str, np.ndarray]]]) -> None:
  """Writes a new HDF5 file: a group of arrays for each image name."""
  with h5py.File(path, 'w') as file:
    for name, found in images:
      _add(file, name, found)


def write_matches(path: pathlib.Path, pairs: Iterable[tuple[str, str, np.ndarray]]) -> None:
  """Writes a new HDF5 file.

  Args:
    path: of the file.
    pairs: names of two images and int [N0], for each keypoint of the first the match in the second or -1.

  Raises:
    UserError: two pairs would have one name.
  """
  with h5py.File(path, 'w') as file:
    for first, second, matches in pairs:
      name = '/'.join(name.replace('/', '-') for name in (first, second))
      if name in file:
        raise UserError(f'{first} and {second}: another pair is {name} too, "/" being "-". Rename one')
      found = {
        'matches0': matches.astype(np.int32),
        'matching_scores0': (matches >= 0).astype(np.float16),
      }
      _add(file, name, found)


def format_pairs(pairs: Iterable[tuple[str, str]]) -> str:
  """A list of pairs of images; UserError for a name with a space, at which hloc would cut it."""
  lines = []
  for pair in pairs:
    for name in pair:
      if name.split() != [name]:
        raise UserError(f'{name!r}: hloc takes no spaces in names of photos. Rename it')
    lines.append(' '.join(pair) + '\n')
  return ''.join(lines)


def _add(file: h5py.File, name: str, found: dict[str, np.ndarray]) -> None:
  group = file.create_group(name)
  for key, array in found.items():
    group.create_dataset(key, data=array)


def matches_of(first: np.ndarray, second: np.ndarray, keypoints: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
  """Matched places as positions among keypoints.

  Args:
    first, second: float32 [I, 2], the matched places in either image, each one that of a keypoint.
    keypoints: float32 [N0, 2] and [N1, 2] of the images, in the same frame.

  Returns:
    int [N0]: for each keypoint of the first image the position of its match, -1 for none. Of keypoints in one
    place the first stands for all; pairs with a place that is no keypoint's are left out.
  """
  rows, columns = (_positions(*pair) for pair in ((first, keypoints[0]), (second, keypoints[1])))
  found = np.full(len(keypoints[0]), -1)
  known = (rows >= 0) & (columns >= 0)
  found[rows[known]] = columns[known]
  return found


def _positions(places: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
  first_of: dict[tuple[float, float], int] = {}
  for position, place in enumerate(map(tuple, keypoints.tolist())):
    first_of.setdefault(place, position)
  return np.array([first_of.get(place, -1) for place in map(tuple, places.tolist())], int)
