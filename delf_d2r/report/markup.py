"""HTML that is balanced and escaped by construction."""

import html
import re
from collections.abc import Iterable

# What HTML cannot carry: C0 and C1 controls but tab and line ends, lone surrogates (file names that are
# not UTF-8 arrive with them) and the two non-characters of the basic plane.
_UNPRINTABLE = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
_VOID = frozenset({'br', 'hr', 'img', 'input', 'link', 'meta', 'use', 'path', 'rect', 'line', 'image'})
_SELF_CLOSED = frozenset({'use', 'path', 'rect', 'line', 'image'})


class Markup(str):
  """Text that is HTML already and is not escaped again."""

  __slots__ = ()


Child = str | int | Iterable | None  # what an element may hold


def text(value) -> Markup:
  """`value` as HTML text or attribute value; characters that HTML cannot carry become U+FFFD."""
  return Markup(html.escape(_UNPRINTABLE.sub('\ufffd', str(value))))


def fragment(*children: Child) -> Markup:
  """The children in a row: `Markup` as it is, None left out, iterables spread, all else escaped."""
  parts = []
  for child in children:
    if child is None:
      continue
    if isinstance(child, Markup):
      parts.append(child)
    elif isinstance(child, Iterable) and not isinstance(child, str):
      parts.append(fragment(*child))
    else:
      parts.append(text(child))
  return Markup(''.join(parts))


def tag(name: str, /, *children: Child, **attributes) -> Markup:
  """The element `name`.

  Attribute names lose a closing underscore and their other underscores become hyphens (`class_`,
  `aria_label`). False and None leave an attribute out, True writes it bare.
  """
  written = [name]
  for key, value in attributes.items():
    if value is None or value is False:
      continue
    key = key.rstrip('_').replace('_', '-')
    written.append(key if value is True else f'{key}="{text(value)}"')
  opening = ' '.join(written)
  if name in _VOID:
    if children:
      raise ValueError(f'<{name}> takes no children, found {len(children)}')
    return Markup(f'<{opening}/>' if name in _SELF_CLOSED else f'<{opening}>')
  return Markup(f'<{opening}>{fragment(*children)}</{name}>')
