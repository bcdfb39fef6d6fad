"""The text of configs: expands dotted overrides and finds the line where a text sets a field."""

import pathlib
import re
from collections.abc import Sequence


def expand_override(override: str) -> str:
  """Expands `a.b.c: value` to `a { b { c: value } }`; returns plain text format unchanged."""
  text = override.strip()
  dotted = re.match(r'^([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)\s*(:?)\s*(.*)$', text, re.DOTALL)
  if not dotted:
    return text
  *parents, leaf = dotted[1].split('.')
  opening = ''.join(f'{parent} {{ ' for parent in parents)
  # The brackets get a line of their own, so that a comment after the value does not hide them.
  closing = '\n' + '}' * len(parents)
  return f'{opening}{leaf}{dotted[2]} {dotted[3]}{closing}'


def locate_field(field: str, path: pathlib.Path, text: str, overrides: Sequence[str]) -> str:
  """Returns where a field is set: the override or `file:line`.

  A field that is set nowhere is located at the message around it; if that is missing, too, at the file.

  Args:
    field: dotted name of the field in ExperimentConfig.
    path: the config file.
    text: the content of the file.
    overrides: pieces of text merged over the file, the last one has precedence.
  """
  for override in reversed(overrides):
    if field in _lines(expand_override(override)):
      return f'--override {override!r}'
  lines = _lines(text)
  parts = field.split('.')
  for end in range(len(parts), 0, -1):
    # A config file of a single stage does not name the stage.
    for start in (0, 1):
      line = lines.get('.'.join(parts[start:end]))
      if line:
        return f'{path}:{line}'
  return str(path)


_TOKEN = re.compile(
  r"""\#.* | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | (?P<close>[}>])
  | (?P<field>[A-Za-z_]\w*) \s* (?: (?P<open>:?\s*[{<]) | : )""",
  re.VERBOSE,
)


def _lines(text: str) -> dict[str, int]:
  """Returns the line of each field that a text sets, by dotted name; the parser of protobuf does not tell."""
  lines: dict[str, int] = {}
  parents: list[str] = []
  for token in _TOKEN.finditer(text):
    if token['field']:
      lines['.'.join([*parents, token['field']])] = text.count('\n', 0, token.start()) + 1
      if token['open']:
        parents.append(token['field'])
    elif token['close'] and parents:
      parents.pop()
  return lines
