"""limit_regions: features of fewer boxes, as extract_features gives them under stricter limits.

It has no command of its own: threshold_curve uses it in place of one extraction for each limit.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from delf_d2r.data.artefacts import artefact_writer, feature_files, records, shard_ledger
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.errors import ArtefactError
from delf_d2r.extractors.photo_boxes import limits
from delf_d2r.geometry import boxes as box_geometry
from delf_d2r.protos import experiment_pb2, regions_pb2
from delf_d2r.stages.shared import sharded
from delf_d2r.stages.shared.sharded import Outcome
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
  """Keeps the whole of every image and those of its boxes that are within the limits of `config.regions`.

  Args:
    config: its part `regions` has limits at least as strict as those of `boxes`.
    features: the artefact of extract_features, of `boxes`.
    boxes: the artefact of detect_boxes.
    output: the artefact directory.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

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
  inputs = (features.require_input('images'), boxes.as_input('boxes'), features.as_input('features'))
  with artefact_writer.writing(output, Plan('features', merged, inputs), redo=redo) as writer:
    if writer.finished:
      return writer.reuse('features of fewer boxes')
    boxes_of = dict(map(records.decode_boxes, boxes.records()))
    sharded.write_results(
      writer,
      lambda shards: (
        _limit(data, boxes_of, config.regions) for data in shard_ledger.items_of(shards, features.records())
      ),
      total=features.counts['images'],
      per_shard=_IMAGES_PER_SHARD,
      what='features of fewer boxes',
    )
    return writer.finish(upstream=features)


def _limit(data: bytes, boxes_of: Mapping[str, Boxes], regions: regions_pb2.RegionsConfig) -> Outcome:
  """Returns the record of one image with the regions within the limits."""
  image = records.decode_features(data)
  kept = box_geometry.selected(boxes_of.get(image.name, Boxes.empty()), **limits(regions))
  fewer = image.take_regions([0, *(1 + np.array(kept, int))])
  return Outcome(fewer.name, records.encode_features(fewer), feature_files.counts(fewer))
