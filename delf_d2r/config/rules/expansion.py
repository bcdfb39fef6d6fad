"""Rules of `protos/expansion.proto`."""

from collections.abc import Iterator

from delf_d2r.config.rules.checks import check_range
from delf_d2r.errors import Problem
from delf_d2r.protos import expansion_pb2


def problems(config: expansion_pb2.QueryExpansionConfig) -> Iterator[Problem]:
  """Yields the problems of a QueryExpansionConfig."""
  yield from check_range(config, 'num_images', 1)
  yield from check_range(config, 'min_inliers', 1)
  yield from check_range(config, 'weight_alpha', 0, 100)
  yield from check_range(config, 'min_images_per_word', 1)
