"""Reads the annotations of Revisited Oxford and Paris (Radenovic et al., CVPR 2018).

`gnd_roxford5k` (70 queries, 4,993 index images) and `gnd_rparis6k` (70, 6,322) hold three things:
`imlist`, the index images; `qimlist`, the query images; `gnd`, for each query the lists `easy`, `hard` and
`junk` of positions in `imlist`, and the query box `bbx` = (xmin, ymin, xmax, ymax) in pixels. The pickle
counts from 0, the MATLAB file from 1. Names have neither folder nor extension.
"""

import numbers
import pathlib
import reprlib
from collections.abc import Mapping, Sequence

import numpy as np

from delf_d2r.data.foreign import matlab_file, restricted_pickle
from delf_d2r.data.ground_truth.values import LABELS, GroundTruth, QueryGroundTruth

_TOP_KEYS = ('gnd', 'imlist', 'qimlist')
_QUERY_KEYS = ('bbx', *LABELS)


def read_pickle(path: pathlib.Path) -> GroundTruth:
  """Reads `gnd_*.pkl` (any protocol, Python 2 or 3) without running what a pickle may contain.

  Raises:
    ValueError: the pickle is damaged, asks for a global, or does not have Revisited's form.
  """
  return _ground_truth(path, restricted_pickle.loads(path.read_bytes()), first=0)


def read_mat(path: pathlib.Path) -> GroundTruth:
  """Reads `gnd_*.mat` (MATLAB 5 to 7.2).

  Raises:
    ValueError: the file is damaged, unpacks to too much, or does not have Revisited's form.
  """
  content = matlab_file.read(path)
  if isinstance(content.get('gnd'), np.ndarray):
    content['gnd'] = [_struct(element) for element in content['gnd'].ravel()]
  return _ground_truth(path, content, first=1)


def _struct(element: object) -> object:
  """One element of a MATLAB struct array, or of a cell array of structs."""
  return element.ravel()[0] if isinstance(element, np.ndarray) and element.size == 1 else element


def _ground_truth(path: pathlib.Path, content: object, *, first: int) -> GroundTruth:
  """Checks Revisited's form; the lists of `content['gnd']` count from `first`."""
  top = _mapping(content, 'the file', _TOP_KEYS)
  index_images = _names(top['imlist'], 'imlist')
  query_images = _names(top['qimlist'], 'qimlist')
  entries = _items(top['gnd'], 'gnd')
  if len(entries) != len(query_images):
    raise ValueError(f'gnd: expected one entry for each of {len(query_images)} queries, found {len(entries)}')
  queries = []
  for image, entry in zip(query_images, entries, strict=True):
    where = f'query {image!r}'
    fields = _mapping(entry, where, _QUERY_KEYS)
    labelled = {}
    for label in LABELS:
      positions = _positions(fields[label], f'{where}: {label}', first, len(index_images))
      labelled[label] = tuple(index_images[i - first] for i in positions)
    box = tuple(_numbers(fields['bbx'], f'{where}: bbx'))
    queries.append(QueryGroundTruth(image, image, box_pixels=box or None, **labelled))
  return GroundTruth(path.stem.removeprefix('gnd_'), index_images, tuple(queries))


def _mapping(value: object, where: str, keys: Sequence[str]) -> Mapping[str, object]:
  found = sorted(map(reprlib.repr, value)) if isinstance(value, Mapping) else _type(value)
  if not isinstance(value, Mapping) or any(key not in value for key in keys):
    raise ValueError(
      f'{where}: expected {", ".join(keys)}, found {found};'
      ' is it gnd_roxford5k or gnd_rparis6k? The older annotations (ok, junk) are another protocol'
    )
  return value


def _names(value: object, where: str) -> tuple[str, ...]:
  return tuple(_name(cell, f'{where}[{i}]') for i, cell in enumerate(_items(value, where)))


def _name(cell: object, where: str) -> str:
  if isinstance(cell, np.ndarray) and cell.size == 1:  # A MATLAB cell.
    cell = cell.ravel()[0]
  if not isinstance(cell, str):
    raise ValueError(f'{where}: expected an image name, found {_type(cell)}')
  return str(cell).rstrip(' ')  # MATLAB pads the rows of a character matrix.


def _positions(value: object, where: str, first: int, count: int) -> list[int]:
  found = _numbers(value, where)
  for number in found:
    if number != int(number) or not first <= number < first + count:
      raise ValueError(
        f'{where}: expected whole numbers from {first} to {first + count - 1}'
        f' ({count} images in imlist), found {number:g}'
      )
  return [int(number) for number in found]


def _numbers(value: object, where: str) -> list[float]:
  found = list(_items(value, where))
  for number in found:
    if not isinstance(number, numbers.Real) or isinstance(number, bool | np.bool_) or not np.isfinite(number):
      raise ValueError(f'{where}: expected finite numbers, found {reprlib.repr(number)}')
  return [number.item() if isinstance(number, np.generic) else number for number in found]


def _items(value: object, where: str) -> Sequence:
  """The elements of a list, a tuple or an array of any shape (MATLAB has no vectors)."""
  if isinstance(value, np.ndarray):
    return np.asarray(value).ravel()
  if not isinstance(value, list | tuple):
    raise ValueError(f'{where}: expected a list, found {_type(value)}')
  return value


def _type(value: object) -> str:
  # Only the type: the text of a value out of an untrusted pickle can be of any length.
  return f'a value of type {type(value).__name__}'
