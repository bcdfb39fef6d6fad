"""detect_boxes: photos to the boxes of every index image."""

import itertools
import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence

from absl import logging

from delf_d2r.data.artefacts import artefact_writer, records
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.artefacts.artefact_writer import ERRORS, ArtefactWriter
from delf_d2r.data.artefacts.shard_ledger import ShardRange, ShardWriter
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError
from delf_d2r.protos import experiment_pb2, regions_pb2
from delf_d2r.runtime import progress, worker_pool
from delf_d2r.stages import box_sources
from delf_d2r.stages.box_sources import Found, Photo
from delf_d2r.stages.shared import unreadable

Regions = regions_pb2.RegionsConfig

# Counts of boxes and of scores are kept in ten classes, the last one open.
_CLASSES = 10


def run(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  output: pathlib.Path,
  *,
  boxes_path: str | pathlib.Path | None = None,
  workers: worker_pool.Workers = None,
  strict: bool = False,
  redo: bool = False,
) -> Artefact:
  """Writes the boxes of every index image.

  A photo that the detector cannot be given because it cannot be decoded is named in `errors.jsonl` and left
  out of the artefact; other sources look at no photo.

  Args:
    config: its part `regions` says where boxes come from.
    dataset: the photos.
    output: the artefact directory.
    boxes_path: takes the place of `regions.file_path` or `regions.random.like`.
    workers: processes of the detector (None: one for each core), or those of a cluster.
    strict: stop at the first photo that cannot be decoded.
    redo: replace what another config made.

  Raises:
    UserError: the boxes' file or the detector is missing or wrong, the limits of the config leave no box on
      any photo, no photo could be decoded, or the output cannot be written.
    ImageError: with `strict`, for the first photo that cannot be decoded.
  """
  regions = config.regions
  photos = dataset.images
  source = box_sources.build(regions, photos, boxes_path=boxes_path)
  own_part = experiment_pb2.ExperimentConfig(regions=regions)
  plan = Plan('boxes', own_part, (photos.as_input(), *source.inputs))
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      logging.info('boxes: %s is up to date, skipped', output)
      return Artefact.open(output, 'boxes')
    shards = list(writer.ledger.missing(len(photos), source.images_per_shard))
    left = sum(len(shard.items) for shard in shards)
    done = len(photos) - left
    if writer.resumed:
      logging.info('boxes: going on, %d of %d photos are done', done, len(photos))
    at_once = source.photos_at_once
    results = worker_pool.map_groups(
      source.make,
      _groups(photos, shards, at_once),
      num_groups=sum(-(-len(shard.items) // at_once) for shard in shards),
      workers=workers if source.uses_network else 1,
      lost=lambda photo, reason: Found(photo.name, error=f'{photo.path}: {reason}'),
      uses_network=source.uses_network,
    )
    remarks = _Remarks()
    with progress.bar(total=len(photos), what='boxes', unit='images', done=done) as bar:
      for shard in shards:
        with writer.ledger.write(shard) as file:
          for found in itertools.islice(results, len(shard.items)):
            _keep(found, file, strict)
            remarks.add(found)
            bar.update()
    unreadable.require_some(writer, 'index images')
    _require_boxes(writer, regions, remarks)
    artefact = writer.finish()
  _tell(artefact, remarks)
  return artefact


def _groups(photos: ImageList, shards: Sequence[ShardRange], size: int) -> Iterator[list[Photo]]:
  for shard in shards:
    for first in shard.items[::size]:
      names = photos.names[first : min(first + size, shard.items.stop)]
      yield [Photo(name, photos.path(name)) for name in names]


def _keep(found: Found, file: ShardWriter, strict: bool) -> None:
  if found.error:
    unreadable.leave_out(file, found.name, found.error, strict=strict)
    return
  number = len(found.boxes)
  counts = Counter(images=1, boxes=number, candidates=found.candidates, without_boxes=not number)
  if number:
    more = '_or_more' if number >= _CLASSES else ''
    counts[f'images_with_{min(number, _CLASSES):02d}{more}_boxes'] = 1
  tenths = (found.boxes.scores.clip(0, 1) * _CLASSES).astype(int).clip(max=_CLASSES - 1).tolist()
  for tenth in tenths:
    counts[f'scores_from_0.{tenth}'] += 1
  file.add(records.encode_boxes(found.name, found.boxes), **counts)


class _Remarks:
  """What this run saw of photos that the limits leave no box on; earlier parts of it are forgotten."""

  def __init__(self):
    self.best: Found | None = None
    self.note = ''

  def add(self, found: Found) -> None:
    self.note = self.note or found.note
    lost = found.candidates and not len(found.boxes)
    if lost and (self.best is None or found.best_score > self.best.best_score):
      self.best = found

  def best_text(self) -> str:
    if self.best is None:
      return ''
    return f'the best box there scores {self.best.best_score:.4g} ({self.best.name})'


def _require_boxes(writer: ArtefactWriter, regions: Regions, remarks: _Remarks) -> None:
  """Refuses to finish an artefact whose boxes were all lost to the config."""
  counts = writer.ledger.counts
  if counts['boxes'] or not (counts['candidates'] or remarks.note):
    return
  limits = f'min_score {regions.min_score:g}, min_area {regions.min_area:g}'
  why = remarks.note or (
    f'the limits of regions ({limits}) leave none of the {counts["candidates"]} boxes on'
    f' {counts["images"]} photos; {remarks.best_text() or "their scores are not known any more"}. Lower the'
    ' limits'
  )
  writer.discard()
  raise UserError(f'no boxes at all: {why}')


def _tell(artefact: Artefact, remarks: _Remarks) -> None:
  counts = artefact.counts
  logging.info(
    'boxes: %d of %d on %d photos, %d photos without any; %d could not be read',
    *(counts.get(name, 0) for name in ('boxes', 'candidates', 'images', 'without_boxes', 'failed')),
  )
  if counts['without_boxes'] and remarks.best:
    logging.info('boxes: where the limits of regions leave none, %s', remarks.best_text())
  if counts['failed']:
    logging.warning('%d photos could not be read: %s', counts['failed'], artefact.path / ERRORS)
  source = artefact.config.regions.source
  if not counts['boxes'] and source == Regions.DETECTOR:
    logging.warning('boxes: the detector finds nothing on any of the %d photos', counts['images'])
