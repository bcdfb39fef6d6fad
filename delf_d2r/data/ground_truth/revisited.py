"""Reads the annotations of Revisited Oxford and Paris (Radenovic et al., CVPR 2018).

`gnd_roxford5k` (70 queries, 4,993 index images) and `gnd_rparis6k` (70 and 6,322) hold three entries:
`imlist`, the index images; `qimlist`, the query images; and `gnd`, for each query the lists `easy`, `hard`
and `junk` of positions in `imlist`, and the query box `bbx` = (xmin, ymin, xmax, ymax) in pixels, which other
ground truths of this form may lack. Positions begin with 0 in the pickle and with 1 in the MATLAB file. Names
have neither folder nor extension.
"""

import math
import numbers
import pathlib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from delf_d2r.data.foreign import matlab_file, restricted_pickle
from delf_d2r.data.ground_truth.values import LABELS, GroundTruth, QueryGroundTruth

_TOP_KEYS = ('gnd', 'imlist', 'qimlist')
_QUERY_KEYS = LABELS


def read_pickle(path: pathlib.Path) -> GroundTruth:
  """Reads `gnd_*.pkl` (any protocol, Python 2 or 3) without executing code of the pickle.

  Raises:
    ValueError: the pickle is damaged, names a global that is not admitted, or has another structure.
  """
  return _ground_truth(path, restricted_pickle.loads(path.read_bytes()), first=0)


def read_mat(path: pathlib.Path) -> GroundTruth:
  """Reads `gnd_*.mat` (MATLAB 5 to 7.2).

  Raises:
    ValueError: the file is damaged, its content is too large, or it has another structure.
  """
  content: dict[str, object] = dict(matlab_file.read(path))
  entries = content.get('gnd')
  if isinstance(entries, np.ndarray):
    content['gnd'] = [_struct(element) for element in entries.ravel()]
  return _ground_truth(path, content, first=1)


def _struct(element: object) -> object:
  """Unwraps an element of a MATLAB struct array, or of a cell array of structs."""
  return element.ravel()[0] if isinstance(element, np.ndarray) and element.size == 1 else element


def _ground_truth(path: pathlib.Path, content: object, *, first: int) -> GroundTruth:
  """Validates the content of a file; positions in the lists of `content['gnd']` begin with `first`."""
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
    easy, hard, junk = (
      tuple(
        index_images[i - first]
        for i in _positions(fields[label], f'{where}: {label}', first, len(index_images))
      )
      for label in LABELS
    )
    # Without a box, the query is the whole photo.
    bbx = fields.get('bbx')
    box = tuple(_numbers(bbx, f'{where}: bbx')) if bbx is not None else ()
    # QueryGroundTruth checks that there are four numbers.
    box_pixels = cast(tuple[float, float, float, float], box) if box else None
    queries.append(QueryGroundTruth(image, image, None, easy, hard, junk, box_pixels))
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
  if isinstance(cell, np.ndarray) and cell.size == 1:  # A cell of MATLAB.
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
    if (
      not isinstance(number, numbers.Real) or isinstance(number, bool | np.bool_) or not math.isfinite(number)
    ):
      raise ValueError(f'{where}: expected finite numbers, found {reprlib.repr(number)}')
  return [number.item() if isinstance(number, np.generic) else number for number in found]


def _items(value: object, where: str) -> Sequence[Any]:
  """Returns the elements of a list, a tuple or an array of any shape (MATLAB has no vectors)."""
  if isinstance(value, np.ndarray):
    return list(np.asarray(value).ravel())
  if not isinstance(value, list | tuple):
    raise ValueError(f'{where}: expected a list, found {_type(value)}')
  return value


def _type(value: object) -> str:
  # Only the type: the text of a value from an untrusted pickle may have any length.
  return f'a value of type {type(value).__name__}'
