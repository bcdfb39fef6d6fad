"""Flags that several commands share, with the same name and meaning, and the objects that they describe."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

from absl import flags

from delf_d2r.errors import UserError


class CountParser(flags.IntegerParser):
  """Parses a number of things, at least one: 1000000, 1,000,000, 1_000_000 or 1e6."""

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


def define_config(stage: str | None, default: str | None = None) -> None:
  """Defines --config_path and --override.

  Args:
    stage: the part of an experiment config that the command reads; None for all of them.
    default: the default config; None for the defaults of the part, with --override.
  """
  contents = 'a whole experiment' + (f' or only the part {stage}' if stage else '')
  flags.DEFINE_string(
    'config_path',
    default,
    f'Config file (.pbtxt): {contents}. configs/... are found wherever the package is installed.'
    + (default is None) * ' Without it, --override changes the defaults.',
  )
  flags.DEFINE_multi_string(
    'override', [], "Change a field of the config, for example 'aggregation.alpha: 2'. Repeatable."
  )


def require_config() -> None:
  """Raises UserError without --config_path and --override: defaults alone are most likely a mistake."""
  if not flags.FLAGS.config_path and not flags.FLAGS.override:
    raise UserError(
      'neither --config_path nor --override is given. Name a config, such as one of configs/experiments, or'
      ' change the defaults by --override'
    )


def load_config(stage: str) -> Any:
  """Returns the ExperimentConfig of --config_path and --override with a part for `stage`.

  Raises:
    UserError: neither flag is given.
    ConfigError: the config is missing, of another kind, or contradicts itself.
  """
  from delf_d2r import config

  require_config()
  return config.load_or_default(flags.FLAGS.config_path, [stage], overrides=flags.FLAGS.override)


def define_output(what: str, *, required: bool = True) -> None:
  """Defines --output, the directory of `what`, and --redo."""
  flags.DEFINE_string('output', None, f'Directory of {what}; made if missing.', required=required)
  flags.DEFINE_bool(
    'redo',
    False,
    'Replace artefacts there that were made with another config or other inputs, instead of refusing.',
  )


def define_images() -> None:
  """Defines --images, --ground_truth and --query_images, a data set."""
  flags.DEFINE_string('images', None, 'Folder of photos, subfolders included.', required=True)
  flags.DEFINE_string(
    'ground_truth', None, "Queries and their right answers: .json, or Revisited's gnd_*.pkl or .mat."
  )
  flags.DEFINE_string('query_images', None, 'Folder of the query photos; by default that of --images.')
  define_exclude()


def define_exclude() -> None:
  """Defines --exclude of the commands that list a folder of photos."""
  from delf_d2r.data.photos.photo_listing import DEFAULT_EXCLUDES

  flags.DEFINE_multi_string(
    'exclude',
    [],
    "Leave out files and folders of photos whose name matches this glob, for example '*_thumb.*'; one with a"
    " slash is compared with the path below the folder of photos, for example 'raw/*'. Always left out are"
    f' {" ".join(DEFAULT_EXCLUDES)}, unless one --exclude is empty. Repeatable.',
  )


def define_workers(*, skips_photos: bool = True) -> None:
  """Defines --workers and, for a stage that skips photos that cannot be decoded, --strict."""
  flags.DEFINE_integer('workers', None, 'Processes; one for each core by default.', lower_bound=1)
  if skips_photos:
    flags.DEFINE_bool(
      'strict',
      False,
      'Stop at the first photo that cannot be decoded, or folder that may not be read, instead of skipping'
      ' it.',
    )


def define_sorting() -> None:
  """Defines --sorting_gb of the commands that build an index."""
  from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET

  flags.DEFINE_float(
    'sorting_gb',
    DEFAULT_MEMORY_BUDGET / 1e9,
    'Memory in GB for sorting the index: of all processes together or, with --cluster, of each worker. With'
    ' less, building takes longer, and the index is the same.',
    lower_bound=0.05,
  )


def sorting_bytes() -> int:
  """Returns the value of --sorting_gb in bytes."""
  return round(1e9 * flags.FLAGS.sorting_gb)


def define_cluster(*, skips_photos: bool = True) -> None:
  """Defines --cluster, --cpus_per_worker and --gpus_per_worker; call `define_workers`, too."""
  flags.DEFINE_string(
    'cluster',
    None,
    'Run on a Ray cluster instead of in processes of this machine: HOST:PORT of its head; auto, for the'
    ' cluster that this machine belongs to; or local, for a cluster of only this machine that ends with'
    ' the command. --workers is then the number of workers on all machines, by default as many as fit.'
    ' Photos, models and artefacts must have the same paths on all machines.'
    + skips_photos
    * ' A photo that kills three workers is skipped.',
  )
  flags.DEFINE_float(
    'cpus_per_worker', 1, 'With --cluster: CPUs that are reserved for each worker.', lower_bound=0.1
  )
  flags.DEFINE_float(
    'gpus_per_worker',
    0,
    'With --cluster: GPUs of each worker that runs a network, for example 0.25 for four workers on one GPU.',
    lower_bound=0,
  )


def cluster() -> Any:
  """Returns the pool of workers (`runtime.worker_pool.Pool`) that the flags describe; None without --cluster.

  Raises:
    UserError: there is no cluster at the address, or flags of a cluster are given without --cluster.
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
  """Defines --cluster, --workers, --cpus_per_worker and --gpus_per_worker of a training."""
  flags.DEFINE_string(
    'cluster',
    None,
    'Train in several processes of a Ray cluster: HOST:PORT of its head; auto, for the cluster that this'
    ' machine belongs to; or local, for a cluster of only this machine. The config must have strategy:'
    ' MULTI_WORKER, and files the same paths on all machines. If a process dies, training continues from'
    ' the last checkpoint.',
  )
  flags.DEFINE_integer('workers', 1, 'With --cluster: training processes.', lower_bound=1)
  flags.DEFINE_float('cpus_per_worker', 1, 'With --cluster: CPUs of each process.', lower_bound=0.1)
  flags.DEFINE_float('gpus_per_worker', 0, 'With --cluster: GPUs of each process.', lower_bound=0)


def run_training(train: Callable[[], Any], strategy: int) -> None:
  """Trains in this process, or on the cluster that the flags describe.

  Args:
    train: the training.
    strategy: the strategy of its config, of TrainDelfConfig.Strategy.

  Raises:
    UserError: there is no cluster at the address, flags of a cluster are given without --cluster, the
      strategy is not that of a cluster, or the training cannot work with its inputs.
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
      f'{" and ".join(given)}: only with --cluster. Add --cluster (--cluster=local for only this machine), or'
      ' leave this out'
    )


def define_artefact(name: str, maker: str) -> None:
  """Defines a required flag for the artefact directory that another command made."""
  flags.DEFINE_string(name, None, f'Directory that {maker} made.', required=True)


def define_moved_photos() -> None:
  """Defines --images of the commands that open an index."""
  flags.DEFINE_multi_string(
    'images',
    [],
    'Folder of the indexed photos, if it has moved; names of photos are relative to it. The given folders'
    ' replace all that the index was made from; for distractors give the parent of their folder.'
    ' Repeatable.',
  )


def define_address(port: int) -> None:
  """Defines --host, --port and --allowed_hosts of a server."""
  flags.DEFINE_string('host', '127.0.0.1', 'Address to bind to. 0.0.0.0 lets other machines in.')
  flags.DEFINE_list(
    'allowed_hosts',
    [],
    'Further host names that the server answers for, separated by commas, such as that of a proxy in front; *'
    ' for any. By default those of loopback and, with another --host, also that address, the name of this'
    ' machine and every IP address: pages of other sites must not reach the server by a name of their own.',
  )
  flags.DEFINE_integer('port', port, 'Port; 0 takes a free one.', lower_bound=0, upper_bound=65535)


def define_warm() -> None:
  """Defines --warm."""
  flags.DEFINE_bool(
    'warm',
    False,
    'Read the whole index sequentially first, so that no search waits for the disk; for an index that'
    ' fits into memory.',
  )
