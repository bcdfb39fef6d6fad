"""Rules of `protos/codebook.proto`."""

from collections.abc import Iterator

from delf_d2r.config import shipped_codebook
from delf_d2r.config.rules.checks import check_range, prefixed, without_effect
from delf_d2r.errors import Problem
from delf_d2r.protos import codebook_pb2

Config = codebook_pb2.CodebookConfig


def problems(config: Config) -> Iterator[Problem]:
  """Yields the problems of a CodebookConfig."""
  if config.source == Config.SHIPPED:
    yield from _shipped_problems(config)
    return
  yield from check_range(config, 'num_words', 1, 2**24)
  yield from check_range(config, 'iterations', 1, 10_000)
  yield from check_range(config, 'seed', 0)
  yield from check_range(config, 'max_descriptors', 0)
  yield from check_range(config, 'max_descriptors_per_word', 0)
  yield from check_range(config, 'bits', 0, 4096)
  if config.bits > 0 and config.bits % 8:
    nearest = 8 * -(-config.bits // 8)
    yield Problem('bits', f'bits is {config.bits}; it must be a multiple of 8. Set it to {nearest}')
  yield from prefixed('projection', check_range(config.projection, 'seed', 0), 'projection.')
  if config.source == Config.ORIGIN:
    for field in ('bits', 'projection'):
      if config.HasField(field):
        yield without_effect(field, 'visual words of local features', 'source: ORIGIN')
  if config.source == Config.ORIGIN and config.num_words != 1:
    yield Problem(
      'num_words', f'source is ORIGIN, which is one word, but num_words is {config.num_words}. Set it to 1'
    )
  if 0 < config.max_descriptors < config.num_words:
    yield Problem(
      'max_descriptors',
      f'max_descriptors {config.max_descriptors} is less than num_words {config.num_words}; k-means needs at'
      ' least one descriptor for each visual word. Raise the one or lower the other',
    )


def _shipped_problems(config: Config) -> Iterator[Problem]:
  """Yields the problems of a config that names the codebook of the package: fields of other values."""
  shipped = shipped_codebook.load()
  if shipped is None:
    yield Problem(
      'source',
      f'source is SHIPPED, but this installation has no codebook ({shipped_codebook.DIRECTORY} is missing).'
      ' Install the package again, or set source: K_MEANS and num_words',
    )
    return
  if shipped_codebook.is_resolved(config):
    return
  for field, found, expected in shipped_codebook.contradictions(config, shipped.codebook):
    yield Problem(
      field,
      f'{field} is {found}, but source is SHIPPED, and the codebook of the package has {expected}. Remove'
      f' {field}, or set source: K_MEANS to train a codebook',
    )
