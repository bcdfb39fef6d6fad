"""Features and matches in the format of hloc (github.com/cvg/Hierarchical-Localization), HDF5 or NPZ.

`features.h5` has a group for each image name with `keypoints` [N, 2], `(x, y)` in pixels of the original
image with the centre of the first pixel at (0, 0), `descriptors` [D, N], `scores` [N] and `image_size` [2],
width and height; this project adds `scales` [N]. An `.npz` file has the same arrays for one image.
`matches.h5` has a group `<name 0>/<name 1>` for each pair, with `-` instead of each `/` in the names, that
contains `matches0` [N0], positions among the keypoints of image 1 or -1, and `matching_scores0` [N0]. The
list of pairs, which every stage of hloc needs as well, has two names a line, separated by a space.

hloc ignores the EXIF orientation of photos: extract features for it with apply_exif_orientation: false.
"""

import pathlib
from collections.abc import Iterable

import h5py
import numpy as np

from delf_d2r.data.foreign import zip_limits
from delf_d2r.errors import UserError
from delf_d2r.structures import LocalFeatures

# Limit of the unpacked size: a million float32 features of 128 dimensions.
MAX_NPZ_BYTES = 2**29

# Locations in this project are relative to the edge of the image, so the centre of the first pixel is at 0.5.
_FIRST_PIXEL = np.float32(0.5)

_KEYPOINTS = ('keypoints', 'descriptors', 'scores', 'scales')


def arrays(features: LocalFeatures, image_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
  """Returns the arrays of one image by their names in the format of hloc.

  Args:
    features: N features.
    image_size: height and width of the image in pixels; None if they are unknown.
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
  """Reads the features of an `.npz` file. Without `scales`, as hloc writes it, scales are 1.

  Raises:
    UserError: the file is missing or damaged, lacks an array, or its arrays have different lengths or values
      that are not finite.
  """
  try:
    # NumPy does not close a file that it cannot read.
    with open(path, 'rb') as file:
      zip_limits.check_unpacked_size(file, MAX_NPZ_BYTES)
      with np.load(file, allow_pickle=False) as archive:
        found = {name: np.asarray(archive[name], np.float32) for name in _KEYPOINTS if name in archive}
    lacking = [name for name in ('keypoints', 'descriptors', 'scores') if name not in found]
    if lacking:
      raise ValueError(f'it lacks {", ".join(lacking)}')
    if not all(np.isfinite(array).all() for array in found.values()):
      raise ValueError('it has values that are not finite')
    scales = found.get('scales', np.ones_like(found['scores']))
    locations = found['keypoints'][:, ::-1] + _FIRST_PIXEL
    return LocalFeatures(locations, scales, found['scores'], found['descriptors'].T)
  except Exception as error:  # A damaged archive raises nearly any exception.
    raise UserError(f'{path}: not readable as .npz of features ({error})') from None


def write_features(path: pathlib.Path, images: Iterable[tuple[str, dict[str, np.ndarray]]]) -> None:
  """Writes a new HDF5 file with a group of arrays for each image name."""
  with h5py.File(path, 'w') as file:
    for name, found in images:
      _add(file, name, found)


def write_matches(path: pathlib.Path, pairs: Iterable[tuple[str, str, np.ndarray]]) -> None:
  """Writes a new HDF5 file of matches.

  Args:
    path: path of the file.
    pairs: names of two images, and int [N0]: the match of each keypoint of the first image in the second, or
      -1.

  Raises:
    UserError: two pairs have the same name after `/` is replaced by `-`.
  """
  with h5py.File(path, 'w') as file:
    for first, second, matches in pairs:
      name = '/'.join(name.replace('/', '-') for name in (first, second))
      if name in file:
        raise UserError(
          f'{first} and {second}: another pair is named {name}, too, since "/" becomes "-". Rename one'
        )
      found: dict[str, np.ndarray] = {
        'matches0': matches.astype(np.int32),
        'matching_scores0': (matches >= 0).astype(np.float16),
      }
      _add(file, name, found)


def format_pairs(pairs: Iterable[tuple[str, str]]) -> str:
  """Formats a list of pairs; raises UserError for a name with a space, where hloc would split it."""
  lines = []
  for pair in pairs:
    for name in pair:
      if name.split() != [name]:
        raise UserError(f'{name!r}: hloc does not support spaces in names of photos. Rename it')
    lines.append(' '.join(pair) + '\n')
  return ''.join(lines)


def _add(file: h5py.File, name: str, found: dict[str, np.ndarray]) -> None:
  group = file.create_group(name)
  for key, array in found.items():
    group.create_dataset(key, data=array)


def matches_of(first: np.ndarray, second: np.ndarray, keypoints: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
  """Converts matched locations to positions among keypoints.

  Args:
    first, second: float32 [I, 2], the matched locations in each image, which are locations of keypoints.
    keypoints: float32 [N0, 2] and [N1, 2], the keypoints of the images, in the same frame.

  Returns:
    int [N0]: the position of the match of each keypoint of the first image, -1 for none. Of several keypoints
    at one location, the first is used; locations without a keypoint are omitted.
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
