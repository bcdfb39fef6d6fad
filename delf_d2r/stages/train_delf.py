"""train_delf: labelled photos, or any photos, to a DELF network."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.training import training_examples
from delf_d2r.data.training.training_examples import Examples
from delf_d2r.errors import UserError
from delf_d2r.protos import experiment_pb2, training_pb2
from delf_d2r.stages.shared import training_run
from delf_d2r.stages.shared.training_validation import RetrievalValidation

KIND = 'delf'
HISTORY = training_run.HISTORY
CLASSES = 'classes.txt'

Config = training_pb2.TrainDelfConfig
Validation = training_pb2.ValidationConfig
# The names of the metrics of retrieval.
_RETRIEVAL = {
  Validation.RETRIEVAL_MAP: 'retrieval_map',
  Validation.GLOBAL_RETRIEVAL_MAP: 'global_retrieval_map',
}


def run(
  config: experiment_pb2.ExperimentConfig,
  photos: str | pathlib.Path,
  output: pathlib.Path,
  *,
  validation_photos: str | pathlib.Path | None = None,
  classes: tuple[str, ...] = (),
  exclude: Sequence[str] = (),
  redo: bool = False,
) -> Artefact | None:
  """Trains a network; called again on the same directory it goes on from the last checkpoint.

  The directory receives `delf.weights.h5` (the best weights by validation, else the last), `history.jsonl`,
  `curves.csv` and `curves.svg` of it, `checkpoints/`, `tensorboard/` and, where photos
  have class names, `classes.txt`.

  Args:
    config: its part `training` says how.
    photos: the photos to train on; see `training_examples.load`.
    output: the artefact directory.
    validation_photos: photos in the same form, which decide which checkpoint is best; None: no validation.
    classes: the names that labels may have, in order; empty: those that occur.
    exclude: globs of files and folders to leave out, see `ImageList.from_folder`.
    redo: replace an artefact of another config.

  Returns:
    The artefact; None in a process that is not the first of several machines.

  Raises:
    UserError: photos, labels or config cannot be used, or the loss is no number any more.
  """
  config, examples, validation = _prepare(config, photos, validation_photos, classes, exclude)
  from delf_d2r.models.training import distributed_training

  # The machines must be connected before TensorFlow does anything else.
  strategy = distributed_training.make_strategy(config.training)
  if not distributed_training.is_chief(strategy):
    _train(config.training, examples, validation, output, strategy, writes=False)
    return None
  inputs = [examples.as_input('photos')]
  if validation:
    inputs.append(validation.as_input('validation photos'))
  with artefact_writer.writing(output, Plan(KIND, config, tuple(inputs)), redo=redo) as writer:
    if writer.finished:
      return writer.reuse('delf')
    if examples.classes:
      files.write_atomically(output / CLASSES, ''.join(f'{name}\n' for name in examples.classes))
    _train(config.training, examples, validation, output, strategy, writes=True)
    return writer.finish({'steps': config.training.steps, 'photos': len(examples)})


def _prepare(
  config: experiment_pb2.ExperimentConfig,
  photos: str | pathlib.Path,
  validation_photos: str | pathlib.Path | None,
  classes: tuple[str, ...],
  exclude: Sequence[str],
) -> tuple[experiment_pb2.ExperimentConfig, Examples, Examples | None]:
  """Returns the config with the number of classes filled in, and both sets of photos."""
  merged = experiment_pb2.ExperimentConfig(training=config.training)
  training = merged.training
  is_classification = training.objective == Config.CLASSIFICATION
  examples = training_examples.load(
    photos,
    num_classes=training.model.num_classes if is_classification else 0,
    classes=classes,
    needs_labels=is_classification,
    exclude=exclude,
  )
  if is_classification and not examples.num_classes:
    raise UserError(
      f'{photos}: classification needs labels: a folder for each class, a CSV file path,label, or TFRecord'
      ' shards with training.model.num_classes set'
    )
  training.model.num_classes = examples.num_classes if is_classification else 0
  if not validation_photos:
    return merged, examples, None
  # Retrieval needs photos with classes, which may be others than those of training.
  is_retrieval = training.validation.metric in _RETRIEVAL
  same_classes = is_classification and not is_retrieval
  validation = training_examples.load(
    validation_photos,
    num_classes=examples.num_classes if same_classes else 0,
    classes=examples.classes if same_classes else (),
    needs_labels=is_classification or is_retrieval,
    exclude=exclude,
  )
  return merged, examples, validation


def _train(
  config: Config,
  examples: Examples,
  validation: Examples | None,
  output: pathlib.Path,
  strategy: Any,
  *,
  writes: bool,
) -> None:
  """Runs one process of a training."""
  from delf_d2r.models.delf import encoder_init, global_init, training, training_data, training_summaries
  from delf_d2r.models.training import checkpoints

  trainer = training.Trainer(config, strategy)
  data = training_data.Batches(config, examples)

  def begin() -> None:
    if config.encoder_start == Config.WHITENING:
      encoder_init.whiten(trainer.model, config, data)
    if config.HasField('global_start'):
      photos = training_data.unchanged(config, examples, config.global_start.photos)
      global_init.start(trainer.model, config, photos)

  def picture(summaries: training_summaries.Summaries, batch: Any, done: int) -> None:
    summaries.attention(trainer.model, trainer.local_part(batch)['images'], done)

  components = training_run.TrainingComponents(
    name=KIND,
    trainer=trainer,
    data=data,
    checkpoints=checkpoints.Checkpoints(
      output,
      trainer,
      keep=config.keep_checkpoints,
      higher_is_better=config.validation.metric != Validation.LOSS,
    ),
    summaries=training_summaries.Summaries(output / training_run.TENSORBOARD) if writes else None,
    metric=_metric(config),
    validate=_validator(config, trainer, validation) if validation else None,
    begin=begin,
    picture=picture,
    retry='training.initial_weights',
  )
  training_run.run(components, output)


def _metric(config: Config) -> str:
  """Returns the name of the value that decides which checkpoint is best."""
  if config.validation.metric in _RETRIEVAL:
    return _RETRIEVAL[config.validation.metric]
  if config.validation.metric == Validation.LOSS:
    return 'loss'
  return 'attention_accuracy' if config.objective == Config.CLASSIFICATION else 'descriptor_accuracy'


def _validator(config: Config, trainer, validation: Examples) -> Callable[[], dict[str, float]]:
  """Returns the function that measures the network in its present state."""
  options = config.validation
  if options.metric not in _RETRIEVAL:
    from delf_d2r.models.delf import training_data

    batches = training_data.for_validation(config, validation)
    return lambda: trainer.evaluate(batches)
  from delf_d2r.models.delf import current_features

  measured = RetrievalValidation(options, validation, seed=config.seed)
  measures: dict[Validation.Metric, Callable[[], float]] = {}
  wanted = {options.metric, *options.also}
  if Validation.RETRIEVAL_MAP in wanted:
    describe = current_features.make_descriptor_fn(
      trainer.model, scales=options.scales, max_features=options.max_features
    )
    measures[Validation.RETRIEVAL_MAP] = lambda: measured(describe)
  if Validation.GLOBAL_RETRIEVAL_MAP in wanted:
    describe_globally = current_features.make_global_descriptor_fn(trainer.model, scales=options.scales)
    measures[Validation.GLOBAL_RETRIEVAL_MAP] = lambda: measured.by_cosines(describe_globally)
  return lambda: {_RETRIEVAL[metric]: measure() for metric, measure in measures.items()}
