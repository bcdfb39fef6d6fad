"""A training from its first to its last step, for any network: history, checkpoints, validation."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from absl import logging
from google.protobuf import text_format

from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import UserError
from delf_d2r.runtime import progress
from delf_d2r.stages.shared import training_curves

if TYPE_CHECKING:
  from delf_d2r.models.delf.training_summaries import Summaries
  from delf_d2r.models.training.batches import BaseBatches
  from delf_d2r.models.training.checkpoints import Checkpoints
  from delf_d2r.models.training.distributed_training import BaseTrainer

HISTORY = 'history.jsonl'
TENSORBOARD = 'tensorboard'


@dataclasses.dataclass(frozen=True)
class TrainingComponents:
  """The parts of a training.

  Attributes:
    name: of the network, for messages.
    trainer: its config has `steps`, `checkpoint_every`, `summary_every`, `pictures_every` and
      `validation.every`.
    data: its batches.
    checkpoints: of the trainer.
    summaries: for TensorBoard; None in a process that writes nothing.
    metric: the name of the value that decides which checkpoint is best.
    validate: measures the network in its present state; None: no validation.
    begin: called before the first step.
    picture: called with the summaries, a batch and the number of steps done, to write pictures.
    retry: the flag or field that starts another training from a file of weights.
  """

  name: str
  trainer: 'BaseTrainer'
  data: 'BaseBatches[Any, Any]'
  checkpoints: 'Checkpoints'
  summaries: 'Summaries | None'
  metric: str
  validate: Callable[[], dict[str, float]] | None
  begin: Callable[[], None]
  picture: Callable[['Summaries', Any, int], None]
  retry: str


def run(components: TrainingComponents, output: pathlib.Path) -> None:
  """Trains to the end, from the last checkpoint if there is one.

  Raises:
    UserError: a photo or label cannot be used, or the loss is no number any more.
  """
  _Run(components, output).train()


class _Run:
  """One process of a training."""

  def __init__(self, components: TrainingComponents, output: pathlib.Path):
    self._components = components
    self._output = output
    self._config = components.trainer.config
    self._writes = components.summaries is not None

  def train(self) -> None:
    from delf_d2r.models.training import distributed_training

    components, config = self._components, self._config
    done = components.checkpoints.restore()
    if self._writes:
      _cut_history(self._output / HISTORY, done)
    if done:
      logging.info('%s: going on, %d of %d steps are done', components.name, done, config.steps)
    else:
      components.begin()
      if self._writes:
        self._validate(0)
    batches = components.trainer.batches(components.data, done)
    with progress.bar(total=config.steps, what='training', unit='steps', done=done) as bar:
      for step in range(done, config.steps):
        batch = next(batches)
        try:
          values = components.trainer.step(batch, step)
        except distributed_training.NotFinite as error:
          raise self._stopped(error) from None
        bar.set_postfix_str(f'loss {values["loss"]:.3g}', refresh=False)
        bar.update()
        self._after(step + 1, batch, values)
    if self._writes:
      components.checkpoints.finish()
      training_curves.write(self._output / HISTORY, self._output)

  def _after(self, done: int, batch: Any, values: Mapping[str, float]) -> None:
    """Writes what is due after so many steps."""
    components, config = self._components, self._config
    if components.summaries is None:
      return
    is_last = done == config.steps
    if is_last or _is_due(done, config.summary_every):
      self._note(components.summaries, done, values, 'training')
    if _is_due(done, config.pictures_every):
      components.picture(components.summaries, batch, done)
    # Validation comes first, because a checkpoint includes everything that was done up to its step.
    if is_last or _is_due(done, config.validation.every):
      self._validate(done)
    if is_last or _is_due(done, config.checkpoint_every):
      components.checkpoints.save(done)

  def _validate(self, done: int) -> None:
    """Measures the network, if there is a validation, and keeps its weights if they are the best so far."""
    components = self._components
    if components.validate is None or components.summaries is None:
      return
    found = components.validate()
    self._note(components.summaries, done, found, 'validation')
    components.checkpoints.save_if_best(done, found[components.metric])
    logging.info('step %d: %s', done, ', '.join(f'{name} {value:.4g}' for name, value in found.items()))

  def _note(self, summaries: 'Summaries', done: int, values: Mapping[str, float], group: str) -> None:
    summaries.scalars(values, done, group=group)
    with open(self._output / HISTORY, 'a', encoding='utf-8') as file:
      # JSON has no NaN.
      finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
      file.write(json.dumps({'step': done, 'group': group, **finite}) + '\n')

  def _stopped(self, error: UserError) -> UserError:
    """Returns the error of a training whose loss is no number any more."""
    components = self._components
    good = components.checkpoints.save_last_good() if self._writes else None
    kept = (
      f'The last good checkpoint is kept, its weights in {good}: start from them with {components.retry} and'
      ' another --output'
      if good
      else 'There was no checkpoint yet'
    )
    part = components.retry.rpartition('.')[0]
    return UserError(
      f'{error}. {kept}. Lower {part}.optimizer.learning_rate or clip_norm, or raise warmup_steps'
    )


def card_facts(trained: Artefact, config: Any, *, until: float = math.inf) -> dict[str, Any]:
  """Returns the facts of a training for the model card of its network.

  Args:
    trained: the artefact of the training.
    config: of the training.
    until: the last step that counts for the metrics.

  Returns:
    Config, data, counts, last metrics, curves and seed.
  """
  return {
    'training': text_format.MessageToString(config),
    'data': {
      item.role: f'{pathlib.Path(item.path).name} ({item.fingerprint})' for item in trained.manifest.inputs
    },
    'counts': dict(trained.counts),
    'metrics': last_metrics(trained.path / HISTORY, until=until),
    'curves': training_curves.summary(trained.path / HISTORY),
    'seed': config.seed,
  }


def last_metrics(history: pathlib.Path, *, until: float = math.inf) -> dict[str, str]:
  """Returns the last values of each group of a history up to a step, as text."""
  found: dict[str, str] = {}
  if history.is_file():
    for line in history.read_text(encoding='utf-8').splitlines():
      values = json.loads(line)
      step, group = values.pop('step'), values.pop('group')
      if step > until:
        break
      found[group] = ', '.join(f'{name} {value}' for name, value in {'step': step, **values}.items())
  return found


def _is_due(done: int, every: int) -> bool:
  return every > 0 and done % every == 0


def _cut_history(path: pathlib.Path, done: int) -> None:
  """Removes the lines of steps after the checkpoint that the training goes on from."""
  if path.is_file():
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    kept = [line for line in lines if line.endswith('\n') and json.loads(line)['step'] <= done]
    files.write_atomically(path, ''.join(kept))
