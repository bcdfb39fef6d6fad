"""Class names: reads them from a list and converts labels to class numbers."""

import pathlib
from collections.abc import Sequence

import numpy as np

from delf_d2r.errors import UserError


def read(path: str | pathlib.Path) -> tuple[str, ...]:
  """Reads class names from a text file, one a line.

  Raises:
    UserError: the file cannot be read, is empty or names a class twice.
  """
  try:
    text = pathlib.Path(path).read_bytes().decode('utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path}: cannot be read as a list of classes ({error})') from None
  # `splitlines` would also cut names at letters that end a line in Unicode.
  names = text.removesuffix('\n').split('\n') if text else []
  if all(name.endswith('\r') for name in names[:-1]):
    names = [name.removesuffix('\r') for name in names]
  if not names or len(set(names)) < len(names):
    what = 'names no class' if not names else f'names {max(names, key=names.count)!r} twice'
    raise UserError(f'{path}: {what}; expected distinct class names, one a line')
  return tuple(names)


def to_numbers(
  labels: Sequence[str], photos: Sequence[str], classes: Sequence[str], source: pathlib.Path
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Converts the labels of photos to class numbers.

  Args:
    labels: n names of classes.
    photos: the n names of the photos, for messages.
    classes: names of all classes by number; empty: the sorted names that occur.
    source: the folder or file of the labels; begins error messages.

  Returns:
    int64 [n] class numbers, and the names of the classes by number.

  Raises:
    UserError: a label is not among `classes`, or has a line break.
  """
  names = tuple(classes) or tuple(sorted(set(labels)))
  numbers = {name: number for number, name in enumerate(names)}
  broken = [name for name in names if '\n' in name]
  if broken:
    raise UserError(
      f'{source}: the class {broken[0]!r} has a line break, but a list has one class a line; rename it'
    )
  unknown = sorted(set(labels) - numbers.keys())
  if unknown:
    photo = next(photo for photo, label in zip(photos, labels, strict=True) if label == unknown[0])
    raise UserError(
      f'{source}: {len(unknown)} unknown classes, for example {unknown[0]!r} of {photo}; there are'
      f' {len(names)}: {", ".join(names[:5])}{", ..." if len(names) > 5 else ""}. Correct the labels or'
      ' the list of classes'
    )
  return np.array([numbers[label] for label in labels], np.int64), names
