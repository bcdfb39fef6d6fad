"""train_detector: photos with boxes to a landmark detector."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from delf_d2r.data.artefacts import artefact_writer
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.training.detection_records import DetectionRecords
from delf_d2r.errors import ImageError
from delf_d2r.evaluation import detection_metrics
from delf_d2r.protos import detector_pb2, experiment_pb2
from delf_d2r.stages.shared import training_run
from delf_d2r.structures import Boxes

KIND = 'detector'
WEIGHTS = 'detector.weights.npz'

Config = detector_pb2.DetectorTrainingConfig


def run(
  config: experiment_pb2.ExperimentConfig,
  records: Sequence[str | pathlib.Path],
  output: pathlib.Path,
  *,
  validation_records: Sequence[str | pathlib.Path] = (),
  redo: bool = False,
) -> Artefact | None:
  """Trains a network; called again on the same directory it goes on from the last checkpoint.

  The directory receives `detector.weights.npz` (the best weights by validation, else the last),
  `history.jsonl`, `checkpoints/` and `tensorboard/`.

  Args:
    config: its part `detector_training` says how.
    records: directories of make_detection_records or make_detection_scenes, or patterns of TFRecord shards of
      their form (data/training/detection_examples.py).
    output: the artefact directory.
    validation_records: records in the same form, which decide which checkpoint is best; empty: no
      validation.
    redo: replace an artefact of another config.

  Returns:
    The artefact; None in a process that is not the first of several machines.

  Raises:
    UserError: records or config cannot be used, the loss is no number any more, or tf-models-official is not
      installed.
  """
  merged = experiment_pb2.ExperimentConfig(detector_training=config.detector_training)
  training = merged.detector_training
  examples = DetectionRecords(records)
  validation = DetectionRecords(validation_records) if validation_records else None
  from delf_d2r.models.training import distributed_training

  # The machines must be connected before TensorFlow does anything else.
  strategy = distributed_training.make_strategy(training)
  if not distributed_training.is_chief(strategy):
    _train(training, examples, validation, output, strategy, writes=False)
    return None
  inputs = [examples.as_input('records')]
  if validation:
    inputs.append(validation.as_input('validation records'))
  with artefact_writer.writing(output, Plan(KIND, merged, tuple(inputs)), redo=redo) as writer:
    if writer.finished:
      return writer.reuse('detector')
    _train(training, examples, validation, output, strategy, writes=True)
    return writer.finish({'steps': training.steps, 'photos': len(examples)})


def _train(
  config: Config,
  examples: DetectionRecords,
  validation: DetectionRecords | None,
  output: pathlib.Path,
  strategy: Any,
  *,
  writes: bool,
) -> None:
  """Runs one process of a training."""
  from delf_d2r.models.delf import training_summaries
  from delf_d2r.models.detector import detector_summaries, detector_training, input
  from delf_d2r.models.training import checkpoints

  trainer = detector_training.DetectorTrainer(config, strategy)

  def picture(summaries: training_summaries.Summaries, batch: Any, done: int) -> None:
    detector_summaries.write(summaries, trainer.model, trainer.local_part(batch), done)

  components = training_run.TrainingComponents(
    name=KIND,
    trainer=trainer,
    data=input.DetectorBatches(config, examples, trainer.model),
    checkpoints=checkpoints.Checkpoints(
      output, trainer, keep=config.keep_checkpoints, higher_is_better=True, weights=WEIGHTS
    ),
    summaries=training_summaries.Summaries(output / training_run.TENSORBOARD) if writes else None,
    metric='ap50',
    validate=_validator(config, trainer.model, validation) if validation else None,
    begin=lambda: None,
    picture=picture,
    retry='detector_training.initial_weights',
  )
  training_run.run(components, output)


def _validator(config: Config, detector, records: DetectionRecords) -> Callable[[], dict[str, float]]:
  """Returns the function that measures the detector in its present state, on some of the records."""
  from delf_d2r.models.detector import inference

  detect = inference.finder(detector)
  wanted = min(config.validation.max_photos or len(records), len(records))
  numbers = np.unique(np.linspace(0, len(records) - 1, wanted).astype(int)).tolist()

  def validate() -> dict[str, float]:
    truths: list[np.ndarray] = []
    found: list[Boxes] = []
    for number in numbers:
      example = records.read(number)
      try:
        image = example.image()
      except ImageError as error:
        logging.warning('left out of the validation: %s', error)
        continue
      truths.append(example.boxes)
      found.append(detect(image))
    return detection_metrics.evaluate(truths, found)

  return validate
