"""HTML that is balanced and escaped by construction."""

import html
import re
from collections.abc import Iterable

# Characters that HTML cannot hold: C0 and C1 controls except tab and line ends, lone surrogates (in names of
# files that are not UTF-8) and the two non-characters of the basic plane.
_UNPRINTABLE = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
_VOID = frozenset({'br', 'hr', 'img', 'input', 'link', 'meta', 'use', 'path', 'rect', 'line', 'image'})
_SELF_CLOSED = frozenset({'use', 'path', 'rect', 'line', 'image'})


class Markup(str):
  """Text that is already HTML and is not escaped again."""

  __slots__ = ()


Child = str | int | Iterable | None  # Content of an element.


def text(value) -> Markup:
  """Returns `value` as HTML text or attribute value; characters that HTML cannot hold become U+FFFD."""
  return Markup(html.escape(_UNPRINTABLE.sub('\ufffd', str(value))))


def fragment(*children: Child) -> Markup:
  """Returns the children joined: `Markup` unchanged, None omitted, iterables flattened, all else escaped."""
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
  """Returns the element `name`.

  Attribute names lose a trailing underscore and their other underscores become hyphens (`class_`,
  `aria_label`). False and None omit an attribute, True writes it without a value.

  Raises:
    ValueError: a void element has children.
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
