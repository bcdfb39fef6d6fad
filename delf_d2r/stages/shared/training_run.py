"""A training from its first to its last step, whatever is trained: history, checkpoints, validation."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping

from absl import logging
from google.protobuf import text_format

from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import UserError
from delf_d2r.runtime import progress

HISTORY = 'history.jsonl'
TENSORBOARD = 'tensorboard'


@dataclasses.dataclass(frozen=True)
class Parts:
  """What is trained, and with what.

  Attributes:
    name: of the thing, for messages.
    trainer: a BaseTrainer; its config has `steps`, `checkpoint_every`, `summary_every`, `pictures_every` and
      `validation.every`.
    data: its Batches.
    checkpoints: Checkpoints of the trainer.
    summaries: for TensorBoard; None in a process that writes nothing.
    metric: the value that decides which checkpoint is best.
    validate: measures the network as it is; None: no validation.
    begin: called before the first step.
    picture: called with a batch and the number of steps done, for TensorBoard.
    retry: the flag or field that starts another training from a file of weights.
  """

  name: str
  trainer: object
  data: object
  checkpoints: object
  summaries: object | None
  metric: str
  validate: Callable[[], dict[str, float]] | None
  begin: Callable[[], None]
  picture: Callable[[object, int], None]
  retry: str


def run(parts: Parts, output: pathlib.Path) -> None:
  """Trains to the end, from the last checkpoint if there is one.

  Raises:
    UserError: a photo or label cannot be used, or the loss is no number any more.
  """
  _Run(parts, output).train()


class _Run:
  """One process of a training."""

  def __init__(self, parts: Parts, output: pathlib.Path):
    self._parts = parts
    self._output = output
    self._config = parts.trainer.config
    self._writes = parts.summaries is not None

  def train(self) -> None:
    from delf_d2r.models.training import distributed_training

    parts, config = self._parts, self._config
    done = parts.checkpoints.restore()
    if self._writes:
      _cut_history(self._output / HISTORY, done)
    if done:
      logging.info('%s: going on, %d of %d steps are done', parts.name, done, config.steps)
    else:
      parts.begin()
      if self._writes and parts.validate:
        self._judge(0)
    batches = parts.trainer.batches(parts.data, done)
    with progress.bar(total=config.steps, what='training', unit='steps', done=done) as bar:
      for step in range(done, config.steps):
        batch = next(batches)
        try:
          values = parts.trainer.step(batch, step)
        except distributed_training.NotFinite as error:
          raise self._stopped(error) from None
        bar.set_postfix_str(f'loss {values["loss"]:.3g}', refresh=False)
        bar.update()
        self._after(step + 1, batch, values)
    if self._writes:
      parts.checkpoints.finish()

  def _after(self, done: int, batch, values: Mapping[str, float]) -> None:
    if not self._writes:
      return
    parts, config = self._parts, self._config
    is_last = done == config.steps
    if is_last or _due(done, config.summary_every):
      self._note(done, values, 'training')
    if _due(done, config.pictures_every):
      parts.picture(batch, done)
    # Validation comes first: a checkpoint stands for all that was done up to its step.
    if parts.validate and (is_last or _due(done, config.validation.every)):
      self._judge(done)
    if is_last or _due(done, config.checkpoint_every):
      parts.checkpoints.save(done)

  def _judge(self, done: int) -> None:
    found = self._parts.validate()
    self._note(done, found, 'validation')
    self._parts.checkpoints.save_if_best(done, found[self._parts.metric])
    logging.info('step %d: %s', done, ', '.join(f'{name} {value:.4g}' for name, value in found.items()))

  def _note(self, done: int, values: Mapping[str, float], group: str) -> None:
    self._parts.summaries.scalars(values, done, group=group)
    with open(self._output / HISTORY, 'a', encoding='utf-8') as file:
      # JSON has no NaN.
      finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
      file.write(json.dumps({'step': done, 'group': group, **finite}) + '\n')

  def _stopped(self, error: UserError) -> UserError:
    good = self._parts.checkpoints.save_last_good() if self._writes else None
    kept = (
      f'The last good checkpoint is kept, its weights in {good}: start from them with {self._parts.retry} and'
      ' another --output'
      if good
      else 'There was no checkpoint yet'
    )
    part = self._parts.retry.rpartition('.')[0]
    return UserError(
      f'{error}. {kept}. Lower {part}.optimizer.learning_rate or clip_norm, or raise warmup_steps'
    )


def card_facts(trained: Artefact, config, *, until: float = math.inf) -> dict:
  """What the model card says of a training: its config, data, counts, last metrics up to a step, and seed."""
  return {
    'training': text_format.MessageToString(config),
    'data': {
      item.role: f'{pathlib.Path(item.path).name} ({item.fingerprint})' for item in trained.manifest.inputs
    },
    'counts': dict(trained.counts),
    'metrics': last_metrics(trained.path / HISTORY, until=until),
    'seed': config.seed,
  }


def last_metrics(history: pathlib.Path, *, until: float = math.inf) -> dict[str, str]:
  """The last values of each group of a history up to a step, as text."""
  found = {}
  if history.is_file():
    for line in history.read_text(encoding='utf-8').splitlines():
      values = json.loads(line)
      step, group = values.pop('step'), values.pop('group')
      if step > until:
        break
      found[group] = ', '.join(f'{name} {value}' for name, value in {'step': step, **values}.items())
  return found


def _due(done: int, every: int) -> bool:
  return every > 0 and done % every == 0


def _cut_history(path: pathlib.Path, done: int) -> None:
  """Drops what was noted after the checkpoint that the training goes on from."""
  if path.is_file():
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    kept = [line for line in lines if line.endswith('\n') and json.loads(line)['step'] <= done]
    files.write_atomically(path, ''.join(kept))
