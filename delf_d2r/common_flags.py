"""Flags that binaries share, of one name and meaning, and what some of them ask for."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

from absl import flags

from delf_d2r.errors import UserError


class CountParser(flags.IntegerParser):
  """A number of things, at least one: 1000000, 1,000,000, 1_000_000 or 1e6."""

  def __init__(self):
    super().__init__(lower_bound=1)

  def convert(self, argument: int | str) -> int:
    text = str(argument)
    if re.fullmatch(r'\d{1,3}(,\d{3})+', text):
      text = text.replace(',', '')
    with contextlib.suppress(ValueError, OverflowError):
      number = float(text)
      if number == int(number):
        return int(number)
    raise ValueError('expected a whole number, such as 1000000, 1,000,000 or 1e6')


def define_config(stage: str, default: str | None = None) -> None:
  """Flags --config_path and --override."""
  flags.DEFINE_string(
    'config_path',
    default,
    f'Config file (.pbtxt): a whole experiment or the part {stage} alone. configs/... are found wherever the'
    ' package is installed.',
    required=default is None,
  )
  flags.DEFINE_multi_string(
    'override', [], "Change a field of the config, for example 'aggregation.alpha: 2'. Repeatable."
  )


def define_output(what: str, *, required: bool = True) -> None:
  """Flags --output and --redo."""
  flags.DEFINE_string('output', None, f'Directory of {what}; made if missing.', required=required)
  flags.DEFINE_bool(
    'redo', False, 'Replace what another config or other inputs made there, instead of refusing.'
  )


def define_images() -> None:
  """Flags --images, --ground_truth and --query_images: a data set."""
  flags.DEFINE_string('images', None, 'Folder of photos, subfolders included.', required=True)
  flags.DEFINE_string(
    'ground_truth', None, "Queries and their right answers: .json, or Revisited's gnd_*.pkl or .mat."
  )
  flags.DEFINE_string('query_images', None, 'Folder of the query photos; that of --images by default.')


def define_workers(*, skips_photos: bool = True) -> None:
  """Flags --workers and, of a stage that goes on without photos that it cannot read, --strict."""
  flags.DEFINE_integer('workers', None, 'Processes; one for each core by default.', lower_bound=1)
  if skips_photos:
    flags.DEFINE_bool('strict', False, 'Stop at the first photo that cannot be decoded, instead of going on.')


def define_sorting() -> None:
  """Flag --sorting_gb of what builds an index."""
  from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET

  flags.DEFINE_float(
    'sorting_gb',
    DEFAULT_MEMORY_BUDGET / 1e9,
    'Memory for sorting the index: of all processes together, with --cluster of each worker. With less it'
    ' takes longer, and the index is the same.',
    lower_bound=0.05,
  )


def sorting_bytes() -> int:
  """What `define_sorting`'s flag says."""
  return round(1e9 * flags.FLAGS.sorting_gb)


def define_cluster(*, skips_photos: bool = True) -> None:
  """Flags --cluster, --cpus_per_worker and --gpus_per_worker, beside those of `define_workers`."""
  flags.DEFINE_string(
    'cluster',
    None,
    'Work on a Ray cluster instead of in processes of this machine: HOST:PORT of its head; auto, for the one'
    ' that this machine belongs to; or local, for one of this machine alone that ends with the command.'
    ' --workers then is their number on all machines, by default as many as there is room for. Photos, models'
    ' and artefacts must have the same paths everywhere.'
    + skips_photos
    * ' A photo that kills three workers is left out.',
  )
  flags.DEFINE_float(
    'cpus_per_worker', 1, 'With --cluster: CPUs that each worker has for itself.', lower_bound=0.1
  )
  flags.DEFINE_float(
    'gpus_per_worker',
    0,
    'With --cluster: GPUs of each worker that runs a network, for example 0.25 for four workers on one GPU.',
    lower_bound=0,
  )


def cluster() -> Any:
  """The workers (stages.parallel.Pool) that `define_cluster`'s flags ask for; None without --cluster.

  Raises:
    UserError: there is no cluster at the address, or flags of one are given without --cluster.
  """
  if flags.FLAGS.cluster is None:
    _refuse_without_cluster('cpus_per_worker', 'gpus_per_worker')
    return None
  from delf_d2r.distributed import cluster as clusters

  return clusters.pool(
    flags.FLAGS.cluster,
    workers=flags.FLAGS.workers,
    cpus_per_worker=flags.FLAGS.cpus_per_worker,
    gpus_per_worker=flags.FLAGS.gpus_per_worker,
  )


def define_training_cluster() -> None:
  """Flags --cluster, --workers, --cpus_per_worker and --gpus_per_worker of a training."""
  flags.DEFINE_string(
    'cluster',
    None,
    'Train in several processes of a Ray cluster: HOST:PORT of its head; auto, for the one that this machine'
    ' belongs to; or local, for one of this machine alone. The config must have strategy: MULTI_WORKER, and'
    ' files the same paths everywhere. When a process dies the training goes on from its last checkpoint.',
  )
  flags.DEFINE_integer('workers', 1, 'With --cluster: training processes.', lower_bound=1)
  flags.DEFINE_float('cpus_per_worker', 1, 'With --cluster: CPUs of each process.', lower_bound=0.1)
  flags.DEFINE_float('gpus_per_worker', 0, 'With --cluster: GPUs of each process.', lower_bound=0)


def run_training(train: Callable[[], Any], strategy: int) -> None:
  """Trains by a strategy of the config here, or where `define_training_cluster`'s flags say.

  Raises:
    UserError: as `cluster`, or as `train`.
  """
  if flags.FLAGS.cluster is None:
    _refuse_without_cluster('workers', 'cpus_per_worker', 'gpus_per_worker')
    train()
    return
  from delf_d2r.distributed import cluster as clusters
  from delf_d2r.protos import training_pb2

  name = training_pb2.TrainDelfConfig.Strategy.Name(strategy)
  if name != 'MULTI_WORKER':
    raise UserError(f'--cluster needs strategy: MULTI_WORKER in the config of the training, found {name}')

  clusters.train(
    train,
    flags.FLAGS.cluster,
    workers=flags.FLAGS.workers,
    cpus_per_worker=flags.FLAGS.cpus_per_worker,
    gpus_per_worker=flags.FLAGS.gpus_per_worker,
  )


def _refuse_without_cluster(*names: str) -> None:
  given = [f'--{name}' for name in names if flags.FLAGS[name].present]
  if given:
    raise UserError(
      f'{" and ".join(given)}: only with --cluster. Give that, too (--cluster=local: this machine alone), or'
      ' leave this out'
    )


def define_artefact(name: str, maker: str) -> None:
  """A required flag for the artefact directory that another binary made."""
  flags.DEFINE_string(name, None, f'Directory that {maker} made.', required=True)


def define_moved_photos() -> None:
  """Flag --images of what opens an index."""
  flags.DEFINE_multi_string(
    'images',
    [],
    'Folder of the indexed photos, if it has moved: names are relative to it. Those given take the place'
    ' of all that the index was made from; of distractors give the folder that theirs lies in. Repeatable.',
  )


def define_address(port: int) -> None:
  """Defines --host and --port of a server."""
  flags.DEFINE_string('host', '127.0.0.1', 'Address to bind to. 0.0.0.0 lets other machines in.')
  flags.DEFINE_integer('port', port, 'Port; 0 takes a free one.', lower_bound=0, upper_bound=65535)


def define_warm() -> None:
  """Flag --warm."""
  flags.DEFINE_bool(
    'warm',
    False,
    'Read the whole index in a row first, so that no search waits for the disk; for an index that fits into'
    ' memory.',
  )
