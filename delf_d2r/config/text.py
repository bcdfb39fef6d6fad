"""The text of configs: dotted overrides, and the place where a text sets a field."""

import pathlib
import re
from collections.abc import Sequence


def nested(override: str) -> str:
  """`a.b.c: value` as `a { b { c: value } }`; plain text format as it is."""
  text = override.strip()
  dotted = re.match(r'^([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)\s*(:?)\s*(.*)$', text, re.DOTALL)
  if not dotted:
    return text
  *parents, leaf = dotted[1].split('.')
  opening = ''.join(f'{parent} {{ ' for parent in parents)
  # On a line of their own, so that a comment after the value does not swallow the brackets.
  closing = '\n' + '}' * len(parents)
  return f'{opening}{leaf}{dotted[2]} {dotted[3]}{closing}'


def place(field: str, path: pathlib.Path, text: str, overrides: Sequence[str]) -> str:
  """Where a field was set: the override or `file:line`; else the message around it, or the file alone."""
  for override in reversed(overrides):
    if field in _lines(nested(override)):
      return f'--override {override!r}'
  lines = _lines(text)
  parts = field.split('.')
  for end in range(len(parts), 0, -1):
    # A file of one stage alone does not name the stage.
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
  """The line of each field that a text sets, by its dotted path: protobuf's parser does not tell."""
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
