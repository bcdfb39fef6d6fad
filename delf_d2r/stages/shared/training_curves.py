"""The curves of a training as a table and a picture, from its history."""

import json
import pathlib
from collections.abc import Mapping

import numpy as np

from delf_d2r.data import files

CSV, PICTURE = 'curves.csv', 'curves.svg'
# A panel of the picture, in pixels.
_WIDTH, _HEIGHT, _MARGIN, _COLUMNS = 320, 180, 34, 3

Curve = list[tuple[int, float]]


def read(history: pathlib.Path) -> dict[str, Curve]:
  """Returns the points (step, value) of each `group name` of a history.jsonl, in the order of the file."""
  curves: dict[str, Curve] = {}
  for line in history.read_text(encoding='utf-8').splitlines() if history.is_file() else ():
    values = json.loads(line)
    step, group = values.pop('step'), values.pop('group')
    for name, value in values.items():
      if value is not None:
        curves.setdefault(f'{group} {name}', []).append((step, value))
  return curves


def write(history: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes `curves.csv`, a row for each step that was noted, and `curves.svg`, a panel for each curve."""
  curves = read(history)
  files.write_atomically(folder / CSV, _table(curves))
  files.write_atomically(folder / PICTURE, _picture(curves))


def summary(history: pathlib.Path, *, points: int = 12) -> dict[str, str]:
  """Returns the values of at most `points` steps, evenly chosen among those with a validation, if any has."""
  curves = read(history)
  validated = [name for name in curves if name.startswith('validation ')]
  steps = sorted({step for name in validated or curves for step, _ in curves[name]})
  chosen = np.unique(np.linspace(0, len(steps) - 1, min(points, len(steps))).astype(int)).tolist()
  rows: dict[str, str] = {}
  for number in chosen:
    step = steps[number]
    values = {name: dict(curve)[step] for name, curve in curves.items() if step in dict(curve)}
    rows[f'step {step}'] = ', '.join(f'{name} {value:.4g}' for name, value in values.items())
  return rows


def _table(curves: Mapping[str, Curve]) -> str:
  rows: dict[int, dict[str, float]] = {}
  for name, curve in curves.items():
    for step, value in curve:
      rows.setdefault(step, {})[name] = value
  lines = [','.join(['step', *curves])]
  for step in sorted(rows):
    values = (rows[step].get(name) for name in curves)
    lines.append(','.join([str(step), *('' if value is None else repr(value) for value in values)]))
  return ''.join(f'{line}\n' for line in lines)


def _picture(curves: Mapping[str, Curve]) -> str:
  # Values of validation first: they decide.
  names = sorted(curves, key=lambda name: not name.startswith('validation '))
  rows = -(-len(names) // _COLUMNS)
  size = f'width="{_COLUMNS * _WIDTH}" height="{rows * _HEIGHT}"'
  parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">']
  parts.append('<rect width="100%" height="100%" fill="white"/>')
  for number, name in enumerate(names):
    row, column = divmod(number, _COLUMNS)
    panel = _panel(name, curves[name])
    parts.append(f'<g transform="translate({column * _WIDTH} {row * _HEIGHT})">{panel}</g>')
  return '\n'.join([*parts, '</svg>', ''])


def _panel(name: str, curve: Curve) -> str:
  steps, values = np.array(curve, np.float64).T
  across = (steps - steps.min()) / (np.ptp(steps) or 1) * (_WIDTH - 2 * _MARGIN) + _MARGIN
  up = _HEIGHT - _MARGIN - (values - values.min()) / (np.ptp(values) or 1) * (_HEIGHT - 2 * _MARGIN)
  points = ' '.join(f'{x:.1f},{y:.1f}' for x, y in zip(across, up, strict=True))
  bottom, right = _HEIGHT - _MARGIN, _WIDTH - _MARGIN
  return (
    f'<text x="{_MARGIN}" y="16" font-weight="bold">{name}</text>'
    f'<path d="M{_MARGIN} {_MARGIN} V{bottom} H{right}" fill="none" stroke="#999"/>'
    f'<text x="{_MARGIN}" y="{_MARGIN - 4}" fill="#666">{values.max():.4g}</text>'
    f'<text x="{_MARGIN}" y="{bottom + 12}" fill="#666">{values.min():.4g}</text>'
    f'<text x="{right}" y="{bottom + 12}" text-anchor="end" fill="#666">step {steps.max():.0f}</text>'
    f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>'
  )
