"""The commands that run what was planned within a memory."""

import math
import shlex
from collections.abc import Iterable

from delf_d2r.protos.regions_pb2 import RegionsConfig


def flag(name: str, value: str) -> str:
  """`--name=value` for a shell."""
  return f'--{name}={shlex.quote(value)}'


def run_command(
  config_flags: Iterable[str],
  regions: RegionsConfig,
  *,
  workers: int,
  sorting: float | None = None,
  descriptors: int | None = None,
) -> str:
  """The command of the whole run; PHOTOS, BOXES and OUT stand for the user's.

  Args:
    config_flags: flags that choose the config.
    regions: its part.
    workers: processes.
    sorting: bytes for sorting the index; None: the default.
    descriptors: what the codebook is trained on at most; None: as in the config.
  """
  parts = ['d2r run_experiment', *config_flags]
  if descriptors is not None:
    parts.append(flag('override', f'codebook.max_descriptors: {descriptors}'))
  parts.append('--images=PHOTOS')
  if _lacks_boxes(regions):
    parts.append('--boxes_file=BOXES')
  parts += ['--output=OUT', f'--workers={workers}']
  if sorting is not None:
    parts.append(f'--sorting_gb={math.floor(sorting / 1e7) / 100:g}')
  return ' '.join(parts)


def _lacks_boxes(regions: RegionsConfig) -> bool:
  """Whether boxes come from a file that the config does not name."""
  path = {RegionsConfig.FILE: regions.file_path, RegionsConfig.RANDOM: regions.random.like}
  return not path.get(regions.source, 'none is needed')


def split_command(shards: int) -> str:
  """The command that splits the index of `run_command`."""
  return f'd2r split_index --index=OUT/index --output=SPLIT --shards={shards}   # a machine for each'
