"""Rules of `protos/fusion.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import check_range
from delf_d2r.errors import Problem
from delf_d2r.protos import fusion_pb2


def problems(config: fusion_pb2.FusionConfig) -> Iterator[Problem]:
  """Yields the problems of a FusionConfig, except those of its other search."""
  yield from check_range(config, 'weight', 0, 1e6)
