"""Metrics on disk.

`metrics.json` holds the means of each protocol and `per_query.json` the values of each query, both as
fractions in full precision, with `null` where there is no value. `metrics.txt` is the file of the
tensorflow/models DELF code: the means in per cent with two decimals (docs/reference.md 4.6).
"""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from delf_d2r.data.files import parse_json, write_atomically
from delf_d2r.errors import UserError
from delf_d2r.evaluation.protocol import Metrics, ProtocolMetrics, QueryMetrics

T = TypeVar('T')

VERSION = 1
AFTER_VERIFICATION = '_after_gv'


_SECTION = re.compile(
  r'(\S+)\n  mAP=(\S+)\n  mP@k\[([^\]]*)\] \[([^\]]*)\]\n  mR@k\[([^\]]*)\] \[([^\]]*)\]\n'
)


@dataclasses.dataclass(frozen=True)
class Summary:
  """The means of one protocol, as fractions.

  Attributes:
    ks: the ranks of precision and recall at k.
    mean_average_precision: mAP; NaN if no query has positives.
    mean_precision, mean_recall: mP@k and mR@k, one for each of `ks`.
    num_queries: number of queries with positives; None if the file does not have it (`metrics.txt`).
    num_missing: number of positives that the rankings do not hold; None likewise.
  """

  ks: tuple[int, ...]
  mean_average_precision: float
  mean_precision: tuple[float, ...]
  mean_recall: tuple[float, ...]
  num_queries: int | None = None
  num_missing: int | None = None

  @classmethod
  def of(cls, metrics: Metrics, protocol: str) -> 'Summary':
    """Returns the means of `metrics` under `easy`, `medium` or `hard`."""
    values = metrics.protocols[protocol]
    return cls(
      metrics.ks,
      values.mean_average_precision,
      tuple(values.mean_precision.tolist()),
      tuple(values.mean_recall.tolist()),
      values.num_queries,
      values.num_missing,
    )


def write_metrics_json(path: str | os.PathLike, metrics: Metrics) -> None:
  """Writes the means of all protocols."""
  summaries = {protocol: Summary.of(metrics, protocol) for protocol in metrics.protocols}
  write_atomically(pathlib.Path(path), format_json(summaries))


def format_json(summaries: Mapping[str, Summary]) -> str:
  """Returns the text of `metrics.json`.

  Args:
    summaries: means by protocol, or by section of a `metrics.txt`.

  Raises:
    ValueError: the means are of different ks.
  """
  ks = {summary.ks for summary in summaries.values()}
  if len(ks) != 1:
    raise ValueError(f'expected one list of ks in all sections, found {sorted(ks)}')
  protocols = {
    protocol: {
      'mAP': _null_for_nan(summary.mean_average_precision),
      'mP@k': _null_for_nan(summary.mean_precision),
      'mR@k': _null_for_nan(summary.mean_recall),
      'num_queries': summary.num_queries,
      'num_missing_positives': summary.num_missing,
    }
    for protocol, summary in summaries.items()
  }
  return _json({'version': VERSION, 'ks': ks.pop(), 'protocols': protocols})


def read_metrics_json(path: str | os.PathLike) -> dict[str, Summary]:
  """Reads the means of each protocol from a file of `write_metrics_json`.

  Raises:
    UserError: the file cannot be read, is damaged or is of another version.
  """

  def parse(document: dict) -> dict[str, Summary]:
    return {
      protocol: Summary(
        tuple(document['ks']),
        _nan_for_null(values['mAP']),
        _nan_for_null(values['mP@k']),
        _nan_for_null(values['mR@k']),
        values['num_queries'],
        values['num_missing_positives'],
      )
      for protocol, values in document['protocols'].items()
    }

  return _read_json(path, parse)


def write_per_query(path: str | os.PathLike, metrics: Metrics) -> None:
  """Writes the values of each query; `read_per_query` returns the same metrics."""
  queries = []
  for i, name in enumerate(metrics.query_names):
    entry: dict[str, Any] = {'query': name}
    for protocol, values in metrics.protocols.items():
      query = values.queries[i]
      entry[protocol] = {
        'AP': _null_for_nan(query.average_precision),
        'P@k': _null_for_nan(query.precision),
        'R@k': _null_for_nan(query.recall),
        'num_positives': query.num_positives,
        'num_missing_positives': query.num_missing,
      }
    queries.append(entry)
  document = {'version': VERSION, 'ks': metrics.ks, 'protocols': list(metrics.protocols), 'queries': queries}
  write_atomically(pathlib.Path(path), _json(document))


def read_per_query(path: str | os.PathLike) -> Metrics:
  """Reads the metrics from a file of `write_per_query`.

  Raises:
    UserError: the file cannot be read, is damaged or is of another version.
  """

  def parse_query(values: dict) -> QueryMetrics:
    return QueryMetrics(
      _nan_for_null(values['AP']),
      np.array(_nan_for_null(values['P@k']), np.float64),
      np.array(_nan_for_null(values['R@k']), np.float64),
      values['num_positives'],
      values['num_missing_positives'],
    )

  def parse(document: dict) -> Metrics:
    ks, queries = tuple(document['ks']), document['queries']
    protocols = {
      protocol: ProtocolMetrics(ks, tuple(parse_query(entry[protocol]) for entry in queries))
      for protocol in document['protocols']
    }
    return Metrics(ks, tuple(entry['query'] for entry in queries), protocols)

  return _read_json(path, parse)


def _null_for_nan(value):
  """Returns a value for JSON, which has no NaN: None instead of NaN, lists instead of arrays."""
  if np.ndim(value):
    return [_null_for_nan(element) for element in value]
  return None if math.isnan(value) else float(value)


def _nan_for_null(value):
  if isinstance(value, list):
    return tuple(_nan_for_null(element) for element in value)
  return float('nan') if value is None else float(value)


def _json(document: dict) -> str:
  # ASCII with escapes can hold any file name, even one whose bytes are not UTF-8.
  return json.dumps(document, allow_nan=False, indent=1) + '\n'


def _read_json(path: str | os.PathLike, parse: Callable[[dict], T]) -> T:
  text = _read_text(path)
  try:
    document = parse_json(text)
    if document['version'] != VERSION:
      raise ValueError(f'expected version {VERSION}, found {document["version"]!r}')
    return parse(document)
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    reason = f'no {error}' if isinstance(error, KeyError) else error
    raise UserError(
      f'{path}: damaged, not metrics as they were written ({reason}); evaluate again'
    ) from error


def _read_text(path: str | os.PathLike) -> str:
  """Returns the text of a file; raises UserError if it cannot be read."""
  try:
    return pathlib.Path(path).read_text(encoding='utf-8')
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); evaluate again') from error
  except UnicodeDecodeError as error:
    raise UserError(f'{path}: not UTF-8 at byte {error.start}; evaluate again') from error


def write_metrics_txt(
  path: str | os.PathLike,
  metrics: Metrics,
  *,
  after_verification: Metrics | None = None,
  protocols: Sequence[str] = ('medium', 'hard'),
) -> None:
  """Writes the `metrics.txt` of the tensorflow/models DELF code, character for character.

  Args:
    path: of the file.
    metrics: of the rankings by aggregated descriptors.
    after_verification: of the same rankings after spatial verification; their sections end in `_after_gv`.
    protocols: to write; the DELF code writes medium and hard.
  """
  sections = {protocol: Summary.of(metrics, protocol) for protocol in protocols}
  if after_verification is not None:
    for protocol in protocols:
      sections[protocol + AFTER_VERIFICATION] = Summary.of(after_verification, protocol)
  write_atomically(pathlib.Path(path), format_metrics_txt(sections))


def format_metrics_txt(sections: Mapping[str, Summary]) -> str:
  """Returns the text of `metrics.txt`, with the sections sorted by key."""
  # The defaults of NumPy, whatever the caller has set; lines are never wrapped.
  with np.printoptions(
    precision=8,
    threshold=10**6,
    linewidth=10**6,
    suppress=False,
    sign='-',
    floatmode='maxprec',
    nanstr='nan',
    formatter=None,
    legacy=False,
  ):
    return ''.join(
      f'{key}\n'
      f'  mAP={_percent(summary.mean_average_precision)}\n'
      f'  mP@k{np.array(summary.ks)} {_percent(summary.mean_precision)}\n'
      f'  mR@k{np.array(summary.ks)} {_percent(summary.mean_recall)}\n'
      for key, summary in sorted(sections.items())
    )


def read_metrics_txt(path: str | os.PathLike) -> dict[str, Summary]:
  """Reads the sections of a `metrics.txt`, as fractions (of percentages with two decimals).

  Spaces within the brackets may be those of any version of NumPy.

  Raises:
    UserError: the file cannot be read, is not of that form, or repeats a section.
  """
  text = _read_text(path)
  sections: dict[str, Summary] = {}
  position = 0
  while position < len(text):
    section = _SECTION.match(text, position)
    try:
      if section is None:
        raise ValueError('expected a key, mAP=, mP@k[..] [..] and mR@k[..] [..]')
      key, summary = _parse_section(*section.groups())
      if key in sections:
        raise ValueError(f'section {key} occurs twice')
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
  return key, Summary(ranks, float(mean_ap) / 100, values[0], values[1])


def _percent(fractions: float | Sequence[float]) -> np.ndarray | np.float64:
  return np.around(np.asarray(fractions, np.float64) * 100, decimals=2)[()]
