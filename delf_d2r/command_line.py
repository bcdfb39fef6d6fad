"""What all binaries share: flags of one name and meaning, help, and errors that a user can read.

`d2r X ...` runs the binary `tools/X.py`; so does `python tools/X.py ...` in a checkout.
"""

import importlib
import logging as python_logging
import pkgutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from delf_d2r.errors import UserError
from delf_d2r.version import VERSION

# In the order of the data flow, which is the order in which `d2r` lists them.
COMMANDS = (
  'plan',
  'run_experiment',
  'search_index',
  'serve',
  'serve_shard',
  'annotate',
  'train_delf',
  'export_delf',
  'train_detector',
  'export_detector',
  'make_detection_records',
  'make_detection_scenes',
  'detect_boxes',
  'extract_features',
  'train_pca',
  'train_whitening',
  'train_codebook',
  'aggregate_features',
  'build_index',
  'split_index',
  'fuse_rankings',
  'rerank_results',
  'expand_queries',
  'evaluate_retrieval',
  'make_report',
  'compare',
  'convert',
  'threshold_curve',
  'doctor',
  'datasets',
  'reproduce',
  'make_mini_benchmark',
  'demo',
)


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
  """The workers (stages.parallel.Pool) that `define_cluster`'s flags ask for; None without --cluster."""
  if flags.FLAGS.cluster is None:
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
  """Trains by a strategy of the config here, or where `define_training_cluster`'s flags say."""
  if flags.FLAGS.cluster is None:
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


def define_warm() -> None:
  """Flag --warm."""
  flags.DEFINE_bool(
    'warm',
    False,
    'Read the whole index in a row first, so that no search waits for the disk; for an index that fits into'
    ' memory.',
  )


def takes_arguments(main: Callable) -> Callable:
  """Marks a binary's main that takes arguments beside its flags: it finds them after the command's name."""
  main.takes_arguments = True
  return main


def run(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> None:
  """Runs a binary's main: help on request, messages without tracebacks for what a user can mend."""
  arguments = list(sys.argv if arguments is None else arguments)
  if any(argument in ('--help', '-help', '-h', '-?', '--helpshort') for argument in arguments[1:]):
    print(_help(main, arguments[0]))
    sys.exit(0)
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().setFormatter(_Formatter())
  app.run(lambda rest: _guarded(main, rest), argv=arguments)


def _guarded(main: Callable[[Sequence[str]], None], rest: Sequence[str]) -> None:
  try:
    if len(rest) > 1 and not getattr(main, 'takes_arguments', False):
      raise UserError(f'unexpected argument {rest[1]!r}; flags are written --name=value. See --help')
    main(rest)
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)
  except KeyboardInterrupt:
    print('stopped; run the same command again to go on', file=sys.stderr)
    sys.exit(130)
  except BrokenPipeError:
    # The reader of our output (head, less) has left.
    sys.stderr.close()
    sys.exit(0)


class _Formatter(python_logging.Formatter):
  """`12:34:56 message`; the level only where it is no plain information."""

  def format(self, record: python_logging.LogRecord) -> str:
    level = '' if record.levelno <= python_logging.INFO else f'{record.levelname.lower()}: '
    return f'{self.formatTime(record, "%H:%M:%S")} {level}{record.getMessage()}'


# What absl appends to the help of flags that say so themselves.
_REPEATABLE = '; repeat this option to specify a list of values'


def _help(main: Callable, command: str) -> str:
  """The binary's docstring and its own flags; absl's --helpfull has all others."""
  name = command.removesuffix('.py').rsplit('/', 1)[-1]
  lines = [(sys.modules[main.__module__].__doc__ or '').strip(), '', f'Flags of {name}:']
  for module, module_flags in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith('absl.'):
      continue
    for flag in module_flags:
      lines += ['', f'  --{flag.name}{_value_help(flag)}', *_wrapped(flag.help)]
  return '\n'.join([*lines, '', 'Also: --helpfull for flags of logging and debugging.'])


def _value_help(flag: flags.Flag) -> str:
  if flag.boolean:
    return f' (default: {"on" if flag.default else "off"}; --no{flag.name} for off)'
  if not flag.allow_override and flag.default is None:
    return ''
  return '' if flag.default in (None, []) else f' (default: {flag.default})'


def _wrapped(text: str) -> list[str]:
  text = ' '.join(text.split()).removesuffix(_REPEATABLE)
  return textwrap.wrap(text, 96, initial_indent='      ', subsequent_indent='      ')


def main() -> None:
  """The command `d2r`."""
  arguments = sys.argv[1:]
  command = arguments[0] if arguments else '--help'
  if command == '--version':
    print(f'delf_d2r {VERSION}')
  elif command in ('--help', '-h', 'help'):
    print(_overview())
  elif command not in COMMANDS:
    print(f'error: no command {command!r}. There are: {", ".join(COMMANDS)}', file=sys.stderr)
    sys.exit(2)
  else:
    module = importlib.import_module(f'delf_d2r.tools.{command}')
    run(module.main, [f'd2r {command}', *arguments[1:]])


def _overview() -> str:
  lines = [
    'Detect-to-Retrieve: find the photos of a folder that show the same landmark or object.',
    '',
    'Usage: d2r COMMAND --flag=value ...    (d2r COMMAND --help explains each)',
    '',
  ]
  known = {module.name for module in pkgutil.iter_modules(importlib.import_module('delf_d2r.tools').__path__)}
  for command in COMMANDS:
    if command in known:
      lines.append(f'  {command:<22} {_first_line(command)}')
  return '\n'.join(lines)


def _first_line(command: str) -> str:
  """The first line of a binary's docstring, without importing it and all that it needs."""
  source = importlib.util.find_spec(f'delf_d2r.tools.{command}').origin
  with open(source, encoding='utf-8') as file:
    return file.readline().strip().removeprefix('r').strip('"').rstrip('.')
