"""What a rule says, and the forms that many rules have."""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Problem:
  """A field with a value that cannot be used, and what to do about it."""

  field: str
  text: str


def is_changed(config, field: str) -> bool:
  """Whether a field is set to something else than its default, which resolved configs write out."""
  descriptor = config.DESCRIPTOR.fields_by_name[field]
  if not config.HasField(field):
    return False
  return not descriptor.has_default_value or getattr(config, field) != descriptor.default_value


def in_range(config, field: str, low: float, high: float | None = None) -> Iterator[Problem]:
  """Yields a problem if a field is not in [low, high]; without `high`, if it is below `low`."""
  value = getattr(config, field)
  # Written so that NaN is out of range.
  if not (value >= low and (high is None or value <= high)):
    wanted = f'at least {low:g}' if high is None else f'in [{low:g}, {high:g}]'
    yield Problem(field, f'{field} is {value:g}; it must be {wanted}')


def ranges_of_parts(config, table: dict[str, dict[str, tuple]]) -> Iterator[Problem]:
  """Checks `config.part.field` against `table[part][field]`, inclusive bounds."""
  for part, rules in table.items():
    for field, bounds in rules.items():
      for problem in in_range(getattr(config, part), field, *bounds):
        yield Problem(f'{part}.{problem.field}', f'{part}.{problem.text}')


def belongs_to(field: str, wanted: str, found: str) -> Problem:
  """The problem of a field that plays no role as others are set."""
  return Problem(field, f'{field} has an effect only with {wanted}, found {found}. Remove it or change that')
