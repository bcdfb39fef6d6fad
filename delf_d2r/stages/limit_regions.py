"""Features of fewer boxes: what extract_features gives under other limits, without extracting again."""

import pathlib

import numpy as np
from absl import logging

from delf_d2r.data.artefacts import artefact_writer, feature_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.errors import ArtefactError
from delf_d2r.extractors.photo_boxes import limits
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.protos import experiment_pb2
from delf_d2r.structures import Boxes

_IMAGES_PER_SHARD = 1024


def run(
  config: experiment_pb2.ExperimentConfig,
  features: Artefact,
  boxes: Artefact,
  output: pathlib.Path,
  *,
  redo: bool = False,
) -> Artefact:
  """Keeps the whole of every image and those of its boxes that the limits of `config.regions` leave.

  Args:
    config: its part `regions` has limits at least as strict as those of `boxes`.
    features: what extract_features made of `boxes`.
    boxes: what detect_boxes made.
    output: the artefact directory.
    redo: replace what another config made.

  Raises:
    ArtefactError: the features are those of other boxes.
    UserError: the output cannot be written.
  """
  made_of = features.input('boxes')
  if made_of is None or made_of.fingerprint != boxes.manifest.fingerprint:
    raise ArtefactError(
      f'{features.path} was extracted with boxes {made_of.fingerprint if made_of else "none"}, but those of'
      f' {boxes.path} are {boxes.manifest.fingerprint}. Give the boxes that belong to the features'
    )
  merged = experiment_pb2.ExperimentConfig(extraction=features.config.extraction, regions=config.regions)
  inputs = (features.input('images'), boxes.as_input('boxes'), features.as_input('features'))
  with artefact_writer.writing(output, Plan('features', merged, inputs), redo=redo) as writer:
    if writer.finished:
      logging.info('features of fewer boxes: %s is up to date, skipped', output)
      return Artefact.open(output, 'features')
    boxes_of = dict(map(records.decode_boxes, boxes.records()))
    stream = enumerate(features.records())
    for shard in writer.ledger.missing(features.counts['images'], _IMAGES_PER_SHARD):
      with writer.ledger.write(shard) as file:
        for item in shard.items:
          # Records of shards that an earlier run finished are passed over without being parsed.
          image = records.decode_features(next(data for position, data in stream if position == item))
          kept = box_geometry.selected(boxes_of.get(image.name, Boxes.empty()), **limits(config.regions))
          fewer = image.take_regions([0, *(1 + np.array(kept, int))])
          feature_files.add(file, fewer)
    return writer.finish(upstream=features)
