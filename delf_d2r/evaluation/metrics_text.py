"""`metrics.txt`, the research code's file of metrics: percent, two decimals (docs/reference.md 4.6)."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from delf_d2r.data.files import write_atomically
from delf_d2r.errors import UserError
from delf_d2r.evaluation.metrics_files import Summary, read_text
from delf_d2r.evaluation.protocol import Metrics

AFTER_VERIFICATION = '_after_gv'

# What NumPy prints by default, whatever the caller has set; lines are never wrapped.
_PRINT_OPTIONS = {
  'precision': 8,
  'threshold': 10**6,
  'linewidth': 10**6,
  'suppress': False,
  'sign': '-',
  'floatmode': 'maxprec',
  'nanstr': 'nan',
  'formatter': None,
  'legacy': False,
}
_SECTION = re.compile(
  r'(\S+)\n  mAP=(\S+)\n  mP@k\[([^\]]*)\] \[([^\]]*)\]\n  mR@k\[([^\]]*)\] \[([^\]]*)\]\n'
)


def write_metrics_txt(
  path: str | os.PathLike,
  metrics: Metrics,
  *,
  after_verification: Metrics | None = None,
  protocols: Sequence[str] = ('medium', 'hard'),
) -> None:
  """Writes the research code's `metrics.txt`, character for character.

  Args:
    path: of the file.
    metrics: of the rankings by aggregated descriptors.
    after_verification: of the same rankings after spatial verification; written with `_after_gv`.
    protocols: to write; the research code writes medium and hard.
  """
  sections = {protocol: Summary.of(metrics, protocol) for protocol in protocols}
  if after_verification is not None:
    for protocol in protocols:
      sections[protocol + AFTER_VERIFICATION] = Summary.of(after_verification, protocol)
  write_atomically(pathlib.Path(path), format_metrics_txt(sections))


def format_metrics_txt(sections: Mapping[str, Summary]) -> str:
  """The text of `metrics.txt`, sections sorted by key."""
  with np.printoptions(**_PRINT_OPTIONS):
    return ''.join(
      f'{key}\n'
      f'  mAP={_percent(summary.mean_average_precision)}\n'
      f'  mP@k{np.array(summary.ks)} {_percent(summary.mean_precision)}\n'
      f'  mR@k{np.array(summary.ks)} {_percent(summary.mean_recall)}\n'
      for key, summary in sorted(sections.items())
    )


def read_metrics_txt(path: str | os.PathLike) -> dict[str, Summary]:
  """The sections of a `metrics.txt`, as fractions (of percents with two decimals).

  Spaces within the brackets are as NumPy of any version prints them.

  Raises:
    UserError: the file cannot be read, not of that form, or repeats a section.
  """
  text = read_text(path)
  sections: dict[str, Summary] = {}
  position = 0
  while position < len(text):
    section = _SECTION.match(text, position)
    try:
      if section is None:
        raise ValueError('expected a key, mAP=, mP@k[..] [..] and mR@k[..] [..]')
      key, summary = _parse_section(*section.groups())
      if key in sections:
        raise ValueError(f'{key} stands twice')
    except ValueError as error:
      line = text.count('\n', 0, position) + 1
      raise UserError(f'{path}, line {line}: {error}; is it a metrics.txt, whole and unedited?') from error
    sections[key] = summary
    position = section.end()
  return sections


def _parse_section(
  key: str, mean_ap: str, ks: str, precision: str, recall_ks: str, recall: str
) -> tuple[str, Summary]:
  ranks = tuple(map(int, ks.split()))
  values = [tuple(float(value) / 100 for value in texts.split()) for texts in (precision, recall)]
  if recall_ks.split() != ks.split() or any(len(value) != len(ranks) for value in values):
    raise ValueError(
      f'{key}: expected the same ks and one value for each, found {ks.split()} with {len(values[0])} and'
      f' {recall_ks.split()} with {len(values[1])}'
    )
  return key, Summary(ranks, float(mean_ap) / 100, *values)


def _percent(fractions: float | Sequence[float]) -> np.ndarray | np.float64:
  return np.around(np.asarray(fractions, np.float64) * 100, decimals=2)[()]
