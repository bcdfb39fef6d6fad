"""export_detector: a trained detector to a SavedModel with its model card."""

import dataclasses
import datetime
import json
import math
import pathlib

from absl import logging
from google.protobuf import text_format

from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.protos import detector_pb2
from delf_d2r.stages import train_detector
from delf_d2r.stages.shared import training_run
from delf_d2r.version import VERSION


@dataclasses.dataclass(frozen=True)
class Options:
  """How to export.

  Attributes:
    name: of the model, for its card.
    notes: data, licence and whatever else a user should know, for the card.
    half_weights: store weights in half precision: half the size, boxes differ slightly.
    min_score, nms_iou, max_detections: take the place of the config's fields of that name; None = its values.
  """

  name: str = 'Landmark detector'
  notes: str = ''
  half_weights: bool = False
  min_score: float | None = None
  nms_iou: float | None = None
  max_detections: int | None = None


def run_trained(trained: Artefact, output: pathlib.Path, options: Options) -> pathlib.Path:
  """Exports the detector that train_detector made; arguments and errors are those of `run`."""
  config = trained.config.detector_training
  facts = training_run.card_facts(trained, config, until=_best_step(trained))
  return run(config.model, trained.path / train_detector.WEIGHTS, output, options, facts=facts)


def run(
  config: detector_pb2.DetectorModelConfig,
  weights: str | pathlib.Path,
  output: pathlib.Path,
  options: Options,
  *,
  facts: dict | None = None,
) -> pathlib.Path:
  """Writes a SavedModel directory with model card.

  Args:
    config: of the network.
    weights: its file.
    output: must not exist.
    options: how.
    facts: more for the model card.

  Raises:
    UserError: the weights do not fit, the output exists, or tf-models-official is not installed.
  """
  from delf_d2r.models.detector import export, network
  from delf_d2r.models.saved_models import directory

  directory.require_absent(output)
  built = detector_pb2.DetectorModelConfig()
  built.CopyFrom(config)
  built.ClearField('backbone_weights')
  for field in ('min_score', 'nms_iou', 'max_detections'):
    if getattr(options, field) is not None:
      setattr(built, field, getattr(options, field))
  model = network.Detector(built)
  model.load(weights)
  module = export.DetectorModule(model, half_weights=options.half_weights)
  card = {
    'name': options.name,
    'notes': options.notes,
    'model': text_format.MessageToString(built),
    'contract': {
      'input': 'input_tensor uint8 [1, height, width, 3], RGB',
      'output': 'detection_boxes, detection_scores, detection_classes, num_detections',
      'classes': '1 = landmark',
      'stored weights': 'float16' if options.half_weights else 'float32',
    },
    **(facts or {}),
    'weights': {'fingerprint': files.fingerprint(pathlib.Path(weights))},
    'made': {'library': f'delf_d2r {VERSION}', 'date': datetime.date.today().isoformat()},
  }
  export.save(module, model, output, card=card)
  size = sum(file.stat().st_size for file in output.rglob('*') if file.is_file())
  logging.info('export: %s, %.1f MiB', output, size / 2**20)
  return output


def _best_step(trained: Artefact) -> float:
  """Returns the step whose weights the artefact holds; without validation, infinity for the last one."""
  best = trained.path / 'best.json'
  return json.loads(best.read_text(encoding='utf-8'))['step'] if best.is_file() else math.inf
