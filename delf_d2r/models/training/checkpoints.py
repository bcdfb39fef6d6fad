"""Checkpoints of a training: the latest few to resume from, and the weights of the best."""

import json
import pathlib

import tensorflow as tf

from delf_d2r.data import files
from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import log_suppression
from delf_d2r.models.training.distributed_training import BaseTrainer

LATEST = 'checkpoints'
BEST = 'best.json'
WEIGHTS = 'delf.weights.h5'


class Checkpoints:
  """The state of a trainer on disk: weights, optimisers and the number of steps done.

  Attributes:
    path: the folder.
    best: `step`, `value` and `file` of the best weights so far, or None.
  """

  def __init__(
    self,
    path: pathlib.Path,
    trainer: BaseTrainer,
    *,
    keep: int,
    higher_is_better: bool,
    weights: str = WEIGHTS,
  ):
    """Keeps checkpoints in the folder `path`, and the weights to use in the end in its file `weights`."""
    self.path = path
    self._weights = weights
    self._trainer = trainer
    self._higher_is_better = higher_is_better
    self._step = tf.Variable(0, trainable=False, dtype=tf.int64)
    state = tf.train.Checkpoint(
      model=trainer.model,
      **{f'optimizer_{number}': optimizer for number, optimizer in enumerate(trainer.optimizers)},
      step=self._step,
    )
    self._manager = tf.train.CheckpointManager(state, str(path / LATEST), max_to_keep=keep)
    self.best = _read_best(path / BEST)

  def restore(self) -> int:
    """Takes the trainer back to the latest checkpoint; returns the steps done, 0 without a checkpoint.

    Raises:
      UserError: the checkpoint is damaged or of another model.
    """
    latest = self._manager.latest_checkpoint
    if latest is None:
      return 0
    try:
      self._manager.checkpoint.restore(latest).assert_existing_objects_matched()
    except Exception as error:  # ValueError for shapes, AssertionError for names, OpError for damage.
      raise UserError(
        f'{latest}: not a checkpoint of this model: {_first_line(error)}. It was made with another config, or'
        ' is damaged. Choose another --output, or delete the directory'
      ) from error
    return int(self._step)

  def save(self, step: int) -> None:
    """Writes a checkpoint after `step` steps and drops the oldest beyond the number to keep."""
    self._step.assign(step)
    with log_suppression.warnings_only():
      self._manager.save(checkpoint_number=step)

  def save_if_best(self, step: int, value: float) -> bool:
    """Keeps the weights if `value` is the best so far; NaN never is."""
    if value != value or (self.best and not self._is_better(value, self.best['value'])):
      return False
    previous = self.best
    file = f'best-{step:08d}{self._suffix}'
    _save_weights(self._trainer, self.path / file)
    self.best = {'step': step, 'value': value, 'file': file}
    # This file names the weights, so that a kill in between leaves the previous pair whole.
    files.write_atomically(self.path / BEST, json.dumps(self.best))
    if previous and previous['file'] != file:
      (self.path / previous['file']).unlink(missing_ok=True)
    return True

  def finish(self) -> pathlib.Path:
    """Saves the best weights, or else the present ones, as the file `weights`."""
    target = self.path / self._weights
    if self.best:
      with files.atomic_replace(target) as temporary:
        temporary.write_bytes((self.path / self.best['file']).read_bytes())
    else:
      _save_weights(self._trainer, target)
    return target

  def save_last_good(self) -> pathlib.Path | None:
    """Saves the weights of the latest checkpoint to start another training from; None if there is none."""
    if not self.restore():
      return None
    target = self.path / f'last_good{self._suffix}'
    _save_weights(self._trainer, target)
    return target

  @property
  def _suffix(self) -> str:
    """The ending of all files of weights, which Keras looks at."""
    return self._weights[self._weights.index('.') :]

  def _is_better(self, value: float, than: float) -> bool:
    return value > than if self._higher_is_better else value < than


def _save_weights(trainer: BaseTrainer, target: pathlib.Path) -> None:
  temporary = target.with_name(f'.{target.name}')
  trainer.model.save(temporary)
  with files.atomic_replace(target) as place:
    temporary.replace(place)


def _read_best(path: pathlib.Path) -> dict | None:
  if not path.is_file():
    return None
  best = json.loads(path.read_text(encoding='utf-8'))
  return best if (path.parent / best['file']).is_file() else None


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
