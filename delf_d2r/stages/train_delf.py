"""train_delf: labelled photos, or any photos, to a DELF network."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping

from absl import logging

from delf_d2r.data import artefact_writer, files, training_examples
from delf_d2r.data.artefacts import Artefact, Plan
from delf_d2r.data.training_examples import Examples
from delf_d2r.errors import UserError
from delf_d2r.protos import experiment_pb2, training_pb2
from delf_d2r.stages import progress
from delf_d2r.stages.training_validation import RetrievalValidation

KIND = 'delf'
HISTORY = 'history.jsonl'
CLASSES = 'classes.txt'

Config = training_pb2.TrainDelfConfig
Validation = training_pb2.ValidationConfig


def run(
  config: experiment_pb2.ExperimentConfig,
  photos: str | pathlib.Path,
  output: pathlib.Path,
  *,
  validation_photos: str | pathlib.Path | None = None,
  classes: tuple[str, ...] = (),
  redo: bool = False,
) -> Artefact | None:
  """Trains a network; called again on the same directory it goes on from the last checkpoint.

  The directory receives `delf.weights.h5` (the best weights by validation, else the last), `history.jsonl`,
  `checkpoints/`, `tensorboard/` and, where photos have class names, `classes.txt`.

  Args:
    config: its part `training` says how.
    photos: to train on; see `training_examples.load`.
    output: the artefact directory.
    validation_photos: of the same forms, for choosing the best checkpoint; None: no validation.
    classes: names that labels must be among, in order; empty: those that occur.
    redo: replace what another config made.

  Returns:
    The artefact; None in a process that is not the first of several machines.

  Raises:
    UserError: photos, labels or config cannot be used, or the loss is no number any more.
  """
  config, examples, validation = _prepare(config, photos, validation_photos, classes)
  from delf_d2r.models import training

  # Machines must find each other before TensorFlow does anything else.
  strategy = training.make_strategy(config.training)
  if not training.is_chief(strategy):
    _Run(config.training, examples, validation, output, strategy, writes=False).train()
    return None
  inputs = [examples.as_input('photos')]
  if validation:
    inputs.append(validation.as_input('validation photos'))
  with artefact_writer.writing(output, Plan(KIND, config, tuple(inputs)), redo=redo) as writer:
    if writer.finished:
      logging.info('delf: %s is up to date, skipped', output)
      return Artefact.open(output, KIND)
    if examples.classes:
      files.write_atomically(output / CLASSES, ''.join(f'{name}\n' for name in examples.classes))
    _Run(config.training, examples, validation, output, strategy, writes=True).train()
    return writer.finish({'steps': config.training.steps, 'photos': len(examples)})


def _prepare(config, photos, validation_photos, classes):
  """The config with the number of classes filled in, and both sets of photos."""
  merged = experiment_pb2.ExperimentConfig(training=config.training)
  training = merged.training
  is_classification = training.objective == Config.CLASSIFICATION
  examples = training_examples.load(
    photos,
    num_classes=training.model.num_classes if is_classification else 0,
    classes=classes,
    needs_labels=is_classification,
  )
  if is_classification and not examples.num_classes:
    raise UserError(
      f'{photos}: classification needs labels: a folder for each class, a CSV file path,label, or TFRecord'
      ' shards with training.model.num_classes set'
    )
  training.model.num_classes = examples.num_classes if is_classification else 0
  if not validation_photos:
    return merged, examples, None
  # Retrieval asks for photos of one class; the classes may be others than those of training.
  is_retrieval = training.validation.metric == Validation.RETRIEVAL_MAP
  same_classes = is_classification and not is_retrieval
  validation = training_examples.load(
    validation_photos,
    num_classes=examples.num_classes if same_classes else 0,
    classes=examples.classes if same_classes else (),
    needs_labels=is_classification or is_retrieval,
  )
  return merged, examples, validation


class _Run:
  """One process of a training."""

  def __init__(
    self,
    config: Config,
    examples: Examples,
    validation: Examples | None,
    output: pathlib.Path,
    strategy,
    *,
    writes,
  ):
    from delf_d2r.models import checkpoints, training, training_data, training_summaries

    self._config = config
    self._output = output
    self._writes = writes
    self._trainer = training.Trainer(config, strategy)
    self._data = training_data.Batches(config, examples)
    self._metric = _metric(config)
    self._checkpoints = checkpoints.Checkpoints(
      output,
      self._trainer,
      keep=config.keep_checkpoints,
      higher_is_better=config.validation.metric != Validation.LOSS,
    )
    self._summaries = training_summaries.Summaries(output / 'tensorboard') if writes else None
    self._validate = _validator(config, self._trainer, validation) if validation else None

  def train(self) -> None:
    from delf_d2r.models import training

    config = self._config
    done = self._checkpoints.restore()
    if self._writes:
      _cut_history(self._output / HISTORY, done)
    if done:
      logging.info('delf: going on, %d of %d steps are done', done, config.steps)
    else:
      self._begin()
    batches = self._trainer.batches(self._data, done)
    with progress.bar(total=config.steps, what='training', unit='steps', done=done) as bar:
      for step in range(done, config.steps):
        batch = next(batches)
        try:
          values = self._trainer.step(batch, step)
        except training.NotFinite as error:
          raise self._stopped(error) from None
        bar.set_postfix_str(f'loss {values["loss"]:.3g}', refresh=False)
        bar.update()
        self._after(step + 1, batch, values)
    if self._writes:
      self._checkpoints.finish()

  def _begin(self) -> None:
    from delf_d2r.models import encoder_start

    if self._config.encoder_start == Config.WHITENING:
      encoder_start.whiten(self._trainer.model, self._config, self._data)
    if self._writes and self._validate:
      self._judge(0)

  def _after(self, done: int, batch, values: Mapping[str, float]) -> None:
    config = self._config
    is_last = done == config.steps
    if self._writes and (is_last or _due(done, config.summary_every)):
      self._note(done, values, 'training')
    if self._writes and _due(done, config.pictures_every):
      self._summaries.attention(self._trainer.model, self._trainer.local_images(batch), done)
    # Validation comes first: a checkpoint stands for all that was done up to its step.
    if self._writes and self._validate and (is_last or _due(done, config.validation.every)):
      self._judge(done)
    if self._writes and (is_last or _due(done, config.checkpoint_every)):
      self._checkpoints.save(done)

  def _judge(self, done: int) -> None:
    found = self._validate()
    self._note(done, found, 'validation')
    self._checkpoints.save_if_best(done, found[self._metric])
    logging.info('step %d: %s', done, ', '.join(f'{name} {value:.4g}' for name, value in found.items()))

  def _note(self, done: int, values: Mapping[str, float], group: str) -> None:
    self._summaries.scalars(values, done, group=group)
    with open(self._output / HISTORY, 'a', encoding='utf-8') as file:
      # JSON has no NaN.
      finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
      file.write(json.dumps({'step': done, 'group': group, **finite}) + '\n')

  def _stopped(self, error: UserError) -> UserError:
    good = self._checkpoints.save_last_good() if self._writes else None
    kept = (
      f'The last good checkpoint is kept, its weights in {good}: start from them with'
      ' training.initial_weights and another --output'
      if good
      else 'There was no checkpoint yet'
    )
    return UserError(
      f'{error}. {kept}. Lower training.optimizer.learning_rate or clip_norm, or raise warmup_steps'
    )


def _metric(config: Config) -> str:
  """The name of the value that decides which checkpoint is best."""
  if config.validation.metric == Validation.RETRIEVAL_MAP:
    return 'retrieval_map'
  if config.validation.metric == Validation.LOSS:
    return 'loss'
  return 'attention_accuracy' if config.objective == Config.CLASSIFICATION else 'descriptor_accuracy'


def _validator(config: Config, trainer, validation: Examples) -> Callable[[], dict[str, float]]:
  """A function that measures the network as it is."""
  options = config.validation
  if options.metric != Validation.RETRIEVAL_MAP:
    from delf_d2r.models import training_data

    batches = training_data.for_validation(config, validation)
    return lambda: trainer.evaluate(batches)
  from delf_d2r.models import current_features

  measure = RetrievalValidation(options, validation, seed=config.seed)
  describe = current_features.describer(
    trainer.model, scales=options.scales, max_features=options.max_features
  )
  return lambda: {'retrieval_map': measure(describe)}


def _due(done: int, every: int) -> bool:
  return every > 0 and done % every == 0


def _cut_history(path: pathlib.Path, done: int) -> None:
  """Drops what was noted after the checkpoint that the training goes on from."""
  if path.is_file():
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    kept = [line for line in lines if line.endswith('\n') and json.loads(line)['step'] <= done]
    files.write_atomically(path, ''.join(kept))
