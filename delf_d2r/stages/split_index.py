"""split_index: an index to shards of consecutive images, and to the front that searches all of them.

Every part is an artefact of its own, which can be moved to its machine; see sharding/layout.py.
"""

import hashlib
import pathlib
import shutil

import numpy as np
from absl import logging

from delf_d2r import config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, codebook_files, index_files
from delf_d2r.data.artefacts.artefact import RUN_CONFIG, Artefact, Input, Plan
from delf_d2r.data.artefacts.index_files import ImageBoxes
from delf_d2r.engine.fused_search import INDEX, is_fused
from delf_d2r.engine.live_index import LiveIndex
from delf_d2r.errors import UserError
from delf_d2r.index.images import NameTable
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.runtime import progress
from delf_d2r.sharding import layout
from delf_d2r.sharding.layout import Split


def run(index: Artefact, output: pathlib.Path, *, shards: int, redo: bool = False) -> list[Artefact]:
  """Splits an index; returns the front and the shards.

  Args:
    index: the artefact of build_index.
    output: the directory of the parts.
    shards: their number; their sizes differ by one image at most.
    redo: replace parts of another index or of another number of shards.

  Raises:
    UserError: there are fewer images than shards, the index is one of the two of a run with fusion, or the
      output cannot be written.
  """
  _require_one_index(index)
  snapshot = LiveIndex(index).snapshot
  whole, boxes = snapshot.index, snapshot.state.boxes
  assert isinstance(whole, InvertedIndex), 'an artefact holds its own postings'
  if len(whole) < shards:
    raise UserError(f'the index has {len(whole)} images, fewer than {shards} shards. Give fewer --shards')
  bounds = tuple(len(whole) * shard // shards for shard in range(shards + 1))
  digest = hashlib.sha256(f'{index.manifest.fingerprint} {whole.checksum} {bounds}'.encode())
  split = Split(digest.hexdigest()[:16], bounds, whole.num_entries)
  parts = [_make_front(index, whole, boxes, split, output / layout.FRONT, redo=redo)]
  for shard in progress.track(range(shards), total=shards, what='split', unit='shards'):
    directory = output / layout.shard_directory(shard, shards)
    parts.append(_make_shard(index, whole, split, shard, directory, redo=redo))
  logging.info('%d images in %d shards, each of about %.1f MB', len(whole), shards, 1e-6 * _size(parts))
  return parts


def _require_one_index(index: Artefact) -> None:
  """Raises UserError if an index is the first of the two that a run with fusion searches as one."""
  run = index.path.absolute().parent
  config = run / RUN_CONFIG
  if index.path.name == INDEX and config.is_file() and is_fused(configs.load(config)):
    raise UserError(
      f'{index.path}: the run has a fusion ({config}), but a split index has the scores of one search alone,'
      ' and would answer otherwise than the run. Serve the run unsplit; or copy the index to another folder'
      ' and split the copy, to search by its own scores'
    )


def _size(parts: list[Artefact]) -> float:
  return float(np.mean([part.manifest.bytes for part in parts[1:]]))


def _make_front(
  index: Artefact, whole: InvertedIndex, boxes: ImageBoxes, split: Split, output: pathlib.Path, *, redo: bool
) -> Artefact:
  # Its inputs include those of the whole index, through which features for verification are found.
  plan = Plan('index', index.config, (*index.inputs, Input('split', split.id, index.path)))
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      return Artefact.open(output, 'index')
    index_files.save_all_boxes(boxes, output)
    layout.save_names(NameTable.from_names(whole.image_names), output)
    codebook_files.copy(index.path, output)
    layout.save_split(split, output)
    return writer.finish({**index.counts, 'shards': len(split)})


def _make_shard(
  index: Artefact, whole: InvertedIndex, split: Split, shard: int, output: pathlib.Path, *, redo: bool
) -> Artefact:
  inputs = (Input('split', split.id, index.path), Input('number', str(shard), output))
  plan = Plan('shard', index.config, inputs)
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      return Artefact.open(output, 'shard')
    shutil.rmtree(output / index_files.INVERTED, ignore_errors=True)
    part = whole.subset(split.images(shard), directory=output / index_files.INVERTED)
    files.save_array(output / layout.LIST_SIZES, whole.list_sizes())
    layout.save_split(split, output, shard=shard)
    counts = {'images': len(part), 'entries': part.num_entries, 'postings': part.num_postings}
    return writer.finish({**counts, 'index_bytes': part.nbytes})
