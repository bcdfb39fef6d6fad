"""The directories of a split index.

    front/                  an index artefact without postings: codebook, boxes and names of all images
    shard-00000-of-00004/   the postings of the first images, and `list_sizes.npy` of the whole index; and so
    on

The `split.json` of each directory names the split that it belongs to. A shard holds consecutive images, so
the image id in the whole index is the id in the shard plus that of the shard's first image.
"""

import dataclasses
import itertools
import json
import pathlib

import numpy as np

from delf_d2r.data import files
from delf_d2r.errors import ArtefactError
from delf_d2r.index.images import NameTable

FRONT = 'front'
SPLIT = 'split.json'
LIST_SIZES = 'list_sizes.npy'
MOST_SHARDS = 10_000
_NAMES = ('names_offsets.npy', 'names_utf8.npy')


@dataclasses.dataclass(frozen=True)
class Split:
  """How an index is split.

  Attributes:
    id: identifies the split; the same for its front and all its shards.
    bounds: S + 1 image ids; shard s holds the images from `bounds[s]` to below `bounds[s + 1]`.
    entries: number of aggregated descriptors in the whole index.
  """

  id: str
  bounds: tuple[int, ...]
  entries: int

  def __len__(self) -> int:
    """Returns S, the number of shards."""
    return len(self.bounds) - 1

  def images(self, shard: int) -> range:
    """Returns the image ids of a shard."""
    return range(*self.bounds[shard : shard + 2])

  def shard_of(self, image_id: int) -> int:
    """Returns the number of the shard that holds an image."""
    return int(np.searchsorted(self.bounds, image_id, side='right')) - 1


def shard_directory(shard: int, of: int) -> str:
  """Returns the name of the directory of a shard."""
  return f'shard-{shard:05d}-of-{of:05d}'


def save_split(split: Split, directory: pathlib.Path, *, shard: int | None = None) -> None:
  """Writes `split.json` for a shard, or for the front if `shard` is None."""
  document = dataclasses.asdict(split) | {'shard': shard}
  files.write_atomically(directory / SPLIT, json.dumps(document) + '\n')


def load_split(directory: pathlib.Path) -> tuple[Split, int | None]:
  """Returns the split that a directory belongs to, and the number of its shard; None for the front.

  Raises:
    ArtefactError: `split.json` is missing or damaged.
  """
  path = directory / SPLIT
  try:
    document = files.parse_json(path.read_text(encoding='utf-8'))
    shard = document.pop('shard')
    split = Split(str(document['id']), tuple(map(int, document['bounds'])), int(document['entries']))
    ascending = all(first <= second for first, second in itertools.pairwise(split.bounds))
    if not len(split) or split.bounds[0] != 0 or not ascending or shard not in (None, *range(len(split))):
      raise ValueError(f'bounds {split.bounds}, shard {shard}')
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ArtefactError(f'{path}: missing or damaged ({error}). Run split_index') from None
  return split, shard


def save_names(names: NameTable, directory: pathlib.Path) -> None:
  """Writes the names of all images of the index."""
  files.save_array(directory / _NAMES[0], names.offsets)
  files.save_array(directory / _NAMES[1], names.utf8)


def load_names(directory: pathlib.Path) -> NameTable:
  """Opens the names that `save_names` wrote, by memory map.

  Raises:
    ArtefactError: a file is missing or damaged.
  """
  offsets, utf8 = (files.load_array(directory / file) for file in _NAMES)
  fits = offsets.dtype == np.uint64 and utf8.dtype == np.uint8 and offsets.ndim == utf8.ndim == 1
  if not fits or not len(offsets) or offsets[-1] != len(utf8) or (offsets[1:] < offsets[:-1]).any():
    raise ArtefactError(f'{directory}: {" and ".join(_NAMES)} do not fit each other. Run split_index again')
  return NameTable(offsets, utf8)
