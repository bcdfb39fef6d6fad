"""Rules of `protos/whitening.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import check_range
from delf_d2r.errors import Problem
from delf_d2r.protos import whitening_pb2


def problems(config: whitening_pb2.WhiteningConfig) -> Iterator[Problem]:
  """Yields the problems of a WhiteningConfig."""
  yield from check_range(config, 'shrinkage', 0, 1e6)
