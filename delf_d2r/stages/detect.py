"""detect_boxes: photos to the boxes of every index image."""

import pathlib

from absl import logging

from delf_d2r.data import artefact_writer, boxes_file, records
from delf_d2r.data.artefacts import Artefact, Input, Plan
from delf_d2r.data.dataset import Dataset
from delf_d2r.errors import UserError
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.protos import experiment_pb2, regions_pb2
from delf_d2r.structures import Boxes

Regions = regions_pb2.RegionsConfig


def run(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  output: pathlib.Path,
  *,
  boxes_path: str | pathlib.Path | None = None,
  redo: bool = False,
) -> Artefact:
  """Writes the boxes of every index image.

  Args:
    config: its part `regions` says where boxes come from.
    dataset: the photos.
    output: the artefact directory.
    boxes_path: CSV file that takes the place of `regions.file_path`.
    redo: replace what another config made.

  Raises:
    UserError: the boxes' file is missing or wrong, or the output cannot be written.
  """
  regions = config.regions
  images = dataset.images
  inputs = [images.as_input()]
  boxes_path = _boxes_path(regions, boxes_path)
  from_file: dict[str, Boxes] = {}
  if boxes_path:
    from_file = boxes_file.read_boxes(boxes_path, images.names)
    inputs.append(Input('boxes_file', boxes_file.fingerprint(boxes_path), boxes_path.resolve()))
  grid = box_geometry.uniform_grid(regions.uniform.boxes_per_side, overlap=regions.uniform.overlap)
  plan = Plan('boxes', _own_part(config), tuple(inputs))
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      logging.info('boxes: %s is up to date, skipped', output)
      return Artefact.open(output, 'boxes')
    for shard in writer.missing_shards(len(images), regions.images_per_shard):
      with writer.shard(shard) as file:
        for item in shard.items:
          name = images.names[item]
          boxes = grid if regions.source == Regions.UNIFORM else from_file.get(name, Boxes.empty())
          boxes = _selected(boxes, regions)
          record = records.encode_boxes(name, boxes)
          file.add(record, images=1, boxes=len(boxes), without_boxes=not len(boxes))
    artefact = writer.finish()
  counts = artefact.counts
  logging.info(
    'boxes: %d on %d images (%d images without)', *map(counts.get, ('boxes', 'images', 'without_boxes'))
  )
  return artefact


def _own_part(config: experiment_pb2.ExperimentConfig) -> experiment_pb2.ExperimentConfig:
  return experiment_pb2.ExperimentConfig(regions=config.regions)


def _boxes_path(regions: Regions, flag: str | pathlib.Path | None) -> pathlib.Path | None:
  if regions.source != Regions.FILE:
    if flag:
      source = Regions.Source.Name(regions.source)
      raise UserError(
        f'--boxes_file is given but regions.source is {source}; set it to FILE, or drop the flag'
      )
    return None
  if not (flag or regions.file_path):
    raise UserError('regions.source is FILE but there is no file: give --boxes_file or regions.file_path')
  return pathlib.Path(flag or regions.file_path)


def _selected(boxes: Boxes, regions: Regions) -> Boxes:
  return box_geometry.select(
    boxes,
    min_score=regions.min_score,
    min_area=regions.min_area,
    max_overlap=regions.max_overlap,
    max_boxes=regions.max_boxes,
  )
