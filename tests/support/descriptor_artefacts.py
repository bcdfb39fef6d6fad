"""Artefacts of aggregated descriptors with many shards, and an index built from them by a single process."""

import itertools
import pathlib

import numpy as np

from delf_d2r import aggregator
from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer, codebook_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.index import InvertedIndex, builder, joining, search, stored_index, updates
from delf_d2r.stages import build_index
from delf_d2r.structures import AggregatedDescriptor

WORDS, DIMENSIONS = 32, 20
SEGMENT = 8


def small_segments(monkeypatch) -> None:
  """Limits segments to 8 entries, so that small indexes have several."""
  for module in (builder, build_index, search, stored_index, updates):
    monkeypatch.setattr(module, 'SEGMENT_ENTRIES', SEGMENT)


def config(*, regional: bool = False, masks: bool = False):
  regions = 'REGIONAL_SEARCH' if regional else 'WHOLE_IMAGE'
  if masks:
    regions = 'REGIONAL_AGGREGATION region_masks: true'
  return configs.load_or_default(
    None, ['extraction', 'codebook', 'aggregation'], overrides=[f'aggregation {{ regions: {regions} }}']
  )


def images(
  count: int, *, regional: bool = False, masks: bool = False, seed: int = 0
) -> list[ImageDescriptors]:
  """Makes descriptors of images, some without visual words; for regional search, one to four an image."""
  rng = np.random.default_rng(seed)
  found = []
  for number in range(count):
    regions = int(rng.integers(1, 5))
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (regions, 1))
    descriptors = []
    for _ in range(regions if regional else 1):
      words = np.flatnonzero(rng.random(WORDS) < rng.choice([0, 0.3])).astype(np.uint32)
      values = rng.integers(0, 256, (len(words), 3), np.uint8)
      values[:, -1] &= 0xF0
      own = rng.integers(1, 1 << regions, len(words)).astype(np.uint8) if masks else None
      descriptors.append(AggregatedDescriptor(words, values, DIMENSIONS, own))
    found.append(ImageDescriptors(f'{seed}/{number:04d}.jpg', boxes, descriptors))
  return found


def write_descriptors(path: pathlib.Path, contents, config, *, images_per_shard: int = 5) -> Artefact:
  codebook = Plan('codebook', config, ()).fingerprint
  inputs = (Input('images', path.name, path), Input('codebook', codebook, path))
  with artefact_writer.writing(path, Plan('descriptors', config, inputs)) as writer:
    for shard in writer.ledger.missing(len(contents), images_per_shard):
      with writer.ledger.write(shard) as file:
        for number in shard.items:
          image = contents[number]
          file.add(records.encode_descriptors(image), images=1, descriptors=len(image.descriptors))
    return writer.finish()


def write_codebook(path: pathlib.Path, config) -> Artefact:
  with artefact_writer.writing(path, Plan('codebook', config, ())) as writer:
    codebook_files.save_centroids(np.eye(WORDS, DIMENSIONS, dtype=np.float32), path)
    return writer.finish({'words': WORDS})


def build_here(directory: pathlib.Path, contents, config, *, regional: bool = False) -> InvertedIndex:
  """Builds an index like the stage, but at once."""
  owners = np.repeat(np.arange(len(contents)), [len(image.descriptors) for image in contents])
  return InvertedIndex.build(
    itertools.chain.from_iterable(image.descriptors for image in contents),
    [image.name for image in contents],
    num_words=WORDS,
    dimensions=DIMENSIONS,
    kernel=aggregator.kernel(config.aggregation),
    region_masks=config.aggregation.region_masks,
    entry_images=owners if regional else None,
    directory=directory,
  )


def die_after(parts: int) -> None:
  """Kills this process by SIGKILL after `parts` parts, when the next one is finished but not yet renamed."""
  import os
  import signal

  rename = os.rename
  done = itertools.count()

  def dying_rename(source, target):
    if next(done) == parts:
      os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)

  joining.os.rename = dying_rename
