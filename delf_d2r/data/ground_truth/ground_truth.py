"""Ground truth of a retrieval benchmark: which index images show the object of each query.

The format of this project is one JSON object:

  {
    "version": 1,
    "name": "miniature landmarks",              optional; default: the name of the file
    "index_images": ["scenes/000.jpg", ...],    optional; absent or empty: all photos of the folder
    "queries": [
      {
        "image": "queries/clock.jpg",
        "name": "clock 1",                      optional; default: the image
        "box": [0.1, 0.2, 0.9, 0.8],            optional: [ymin, xmin, ymax, xmax], normalised
        "box_pixels": [20, 10, 80, 90],         instead of box: [xmin, ymin, xmax, ymax] in pixels
        "easy": ["scenes/003.jpg"],             positives that are easy to find; default: none
        "hard": ["scenes/017.jpg"],             positives that are hard to find
        "junk": ["queries/clock.jpg"]           neither positive nor negative: removed from rankings
      }
    ]
  }

Names are paths relative to the image folder. A query image that is also an index image belongs to the junk of
its query (leave-one-out). The `.pkl` and `.mat` files of Revisited Oxford and Paris are read by revisited.py.
"""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from delf_d2r.data.files import write_output
from delf_d2r.data.ground_truth import revisited
from delf_d2r.data.ground_truth.values import LABELS, GroundTruth, QueryGroundTruth
from delf_d2r.data.photos import name_matching
from delf_d2r.data.photos.name_matching import MissingImagesError
from delf_d2r.errors import UserError

__all__ = [
  'GroundTruth',
  'MissingImagesError',
  'QueryGroundTruth',
  'ResolvedQuery',
  'load',
  'resolve',
  'save_json',
]

VERSION = 1
MAX_FILE_BYTES = 200 * 2**20

_TOP_KEYS = ('version', 'name', 'index_images', 'queries')
_QUERY_KEYS = ('image', 'name', 'box', 'box_pixels', *LABELS)


@dataclasses.dataclass(frozen=True)
class ResolvedQuery:
  """A query with image ids instead of names.

  Attributes:
    name: name of the query.
    easy, hard, junk: int64 arrays of positions in the list of index images.
  """

  name: str
  easy: np.ndarray
  hard: np.ndarray
  junk: np.ndarray


def resolve(
  ground_truth: GroundTruth, image_names: Sequence[str], *, distractors: range = range(0)
) -> tuple[ResolvedQuery, ...]:
  """Returns the queries of a ground truth with positions in `image_names` instead of names.

  Photos that are not among the `index_images` of the ground truth are distractors. Photos that exist but
  could not be decoded belong at the end of `image_names`: no ranking contains them, so they count as not
  found.

  Args:
    ground_truth: Q queries.
    image_names: M paths relative to the image folder, in the order of image ids.
    distractors: positions in `image_names` of photos that no name of the ground truth may match.

  Returns:
    Q resolved queries, in the order of the ground truth. Names are matched by `name_matching.match_names`.

  Raises:
    MissingImagesError: index images of the ground truth are missing.
    UserError: a name matches several photos, or two names of one query match the same photo.
  """
  labelled = (image for query in ground_truth.queries for label in LABELS for image in getattr(query, label))
  names = {*ground_truth.index_images, *labelled}
  source = f'ground truth {ground_truth.name!r}'
  known = np.delete(np.arange(len(image_names)), distractors).tolist()
  found = name_matching.match_names(names, [image_names[position] for position in known], source=source)
  matches = {name: known[position] for name, position in found.items()}
  return tuple(_resolve_query(query, matches, source) for query in ground_truth.queries)


def _resolve_query(query: QueryGroundTruth, matches: dict[str, int], source: str) -> ResolvedQuery:
  name_of: dict[int, str] = {}
  for label in LABELS:
    for name in getattr(query, label):
      other = name_of.setdefault(matches[name], name)
      if other != name:
        raise UserError(
          f'{source}: query {query.name!r}: {other!r} and {name!r} are the same photo; keep one of the two'
        )
  positions = (name_matching.positions_of(getattr(query, label), matches) for label in LABELS)
  return ResolvedQuery(query.name, *positions)


def load(path: str | os.PathLike) -> GroundTruth:
  """Reads ground truth: the `.json` of this project, or `gnd_*.pkl` or `gnd_*.mat` of Revisited.

  Raises:
    UserError: the file cannot be read, is damaged, too large or in another format, or contradicts itself. The
      message names the file, the query, the expected and the found value.
  """
  path = pathlib.Path(path)
  readers = {'.json': _read_json, '.pkl': revisited.read_pickle, '.mat': revisited.read_mat}
  extension = path.suffix.lower()
  if extension not in readers:
    raise UserError(f'{path}: expected a ground truth named .json, .pkl or .mat, found {extension!r}')
  try:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
      raise UserError(f'expected at most {MAX_FILE_BYTES} bytes, found {size}; is it a ground truth?')
    return readers[extension](path)
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}). Check --ground_truth') from error
  except ValueError as error:
    raise UserError(f'{path}: {error}') from error


def save_json(ground_truth: GroundTruth, path: str | os.PathLike) -> None:
  """Writes ground truth as JSON; equal ground truths give equal bytes.

  Raises:
    OSError: the folder is read-only or the disk is full.
  """
  queries = [
    {key: value for key, value in dataclasses.asdict(query).items() if value is not None}
    for query in ground_truth.queries
  ]
  document = {
    'version': VERSION,
    'name': ground_truth.name,
    'index_images': ground_truth.index_images,
    'queries': queries,
  }
  text = json.dumps(document, ensure_ascii=False, sort_keys=True, indent=1) + '\n'
  write_output(pathlib.Path(path), text)


def _read_json(path: pathlib.Path) -> GroundTruth:
  document = _object(_parse_json(path), 'the file', _TOP_KEYS, required=('version', 'queries'))
  version = document['version']
  if version != VERSION or isinstance(version, bool):
    raise ValueError(f'version: expected {VERSION}, found {version!r}; write the file again in this version')
  queries = tuple(_query_from_json(entry, i) for i, entry in enumerate(_list(document['queries'], 'queries')))
  index_images = tuple(_list(document.get('index_images', []), 'index_images'))
  return GroundTruth(document.get('name', path.stem), index_images, queries)


def _parse_json(path: pathlib.Path) -> object:
  def refuse_constant(text: str):
    raise ValueError(f'expected finite numbers, found {text}')

  try:
    # utf-8-sig: some editors begin a file with a byte order mark.
    text = path.read_bytes().decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'expected UTF-8, found byte {error.object[error.start]:#04x} at {error.start}'
    ) from error
  try:
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=refuse_constant)
  except json.JSONDecodeError as error:
    raise ValueError(f'not valid JSON, the file may be cut short: {error}') from error
  except RecursionError as error:
    raise ValueError('not a ground truth: JSON nested too deeply') from error


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
  document = dict(pairs)
  if len(document) != len(pairs):
    key = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
    raise ValueError(f'the key {key!r} appears twice in one object; keep one')
  return document


def _query_from_json(entry: object, position: int) -> QueryGroundTruth:
  where = f'queries[{position}]'
  if isinstance(entry, dict) and 'name' in entry:
    where = f'query {entry["name"]!r}'
  fields = dict(_object(entry, where, _QUERY_KEYS, required=('image',)))
  fields.setdefault('name', fields['image'])
  for key in fields.keys() - {'name', 'image'}:
    if key in LABELS or fields[key] is not None:
      fields[key] = tuple(_list(fields[key], f'{where}: {key}'))
  return QueryGroundTruth(**fields)


def _object(value: object, where: str, keys: Sequence[str], required: Sequence[str]) -> dict[str, Any]:
  """Returns a JSON object; raises ValueError if it is none, has unknown keys or lacks a required one."""
  if not isinstance(value, dict):
    raise ValueError(f'{where}: expected a JSON object, found {type(value).__name__}')
  unknown, absent = sorted(value.keys() - set(keys)), [key for key in required if key not in value]
  if unknown or absent:
    problem = f'unknown keys {unknown}' if unknown else f'missing keys {absent}'
    raise ValueError(f'{where}: {problem}; expected keys are {", ".join(keys)}')
  return value


def _list(value: object, where: str) -> list[Any]:
  if not isinstance(value, list):
    raise ValueError(f'{where}: expected a list, found {type(value).__name__}')
  return value
