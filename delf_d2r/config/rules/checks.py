"""The checks that many rules share."""

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import Message

from delf_d2r.errors import Problem

# Inclusive bounds of fields by their names: (low,) or (low, high).
Ranges = Mapping[str, tuple[float, ...]]


def is_changed(config: Message, field: str) -> bool:
  """Tells whether a field is set to another value than its default, which resolved configs write out."""
  descriptor = config.DESCRIPTOR.fields_by_name[field]
  if not config.HasField(field):
    return False
  return not descriptor.has_default_value or getattr(config, field) != descriptor.default_value


def check_range(config: Message, field: str, low: float, high: float | None = None) -> Iterator[Problem]:
  """Yields a problem if a field is not in [low, high]; without `high`, if it is below `low`."""
  value = getattr(config, field)
  # Written so that NaN is out of range.
  if not (value >= low and (high is None or value <= high)):
    wanted = f'at least {low:g}' if high is None else f'in [{low:g}, {high:g}]'
    yield Problem(field, f'{field} is {value:g}; it must be {wanted}')


def check_ranges(config: Message, ranges: Ranges) -> Iterator[Problem]:
  """Yields a problem for each field that is out of its range."""
  for field, bounds in ranges.items():
    yield from check_range(config, field, *bounds)


def check_part_ranges(config: Message, ranges: Mapping[str, Ranges]) -> Iterator[Problem]:
  """Yields a problem for each `config.part.field` that is out of the range `ranges[part][field]`."""
  for part, part_ranges in ranges.items():
    yield from prefixed(part, check_ranges(getattr(config, part), part_ranges), f'{part}.')


def prefixed(part: str, problems: Iterator[Problem], text: str = '') -> Iterator[Problem]:
  """Yields the problems of a part with field names relative to the whole; `text` begins their texts."""
  for problem in problems:
    yield Problem(f'{part}.{problem.field}', f'{text}{problem.text}')


def without_effect(field: str, wanted: str, found: str) -> Problem:
  """Returns the problem of a field that has an effect only with another setting, `wanted`."""
  return Problem(field, f'{field} has an effect only with {wanted}, found {found}. Remove it or change that')


def either(names: Sequence[str]) -> str:
  """Returns `A, B or C`."""
  return ' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))
