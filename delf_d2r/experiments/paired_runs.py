"""Runs on one data set compared with the first of them query by query: a table, a page, a JSON document."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np

import delf_d2r.config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.artefact import MANIFEST, RUN_CONFIG, Artefact, Input, read_manifest
from delf_d2r.data.ground_truth import ground_truth as ground_truths
from delf_d2r.data.ground_truth import resolved
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.evaluation import metrics_files, paired_comparison
from delf_d2r.evaluation.paired_comparison import PairedComparison
from delf_d2r.evaluation.protocol import Metrics
from delf_d2r.report import make_report, paired_page, reported_run
from delf_d2r.report.paired_page import PairedView, RunView
from delf_d2r.stages import evaluate_retrieval

PAGE = 'compare.html'
DOCUMENT = 'compare.json'
VERSION = 1


@dataclasses.dataclass(frozen=True)
class ScoredRun:
  """One run with its metrics.

  Attributes:
    name: the path that the user gave.
    metrics: of its queries.
    ground_truth: the ground truth of the metrics.
    page: the report of these metrics, or None if there is none.
  """

  name: str
  metrics: Metrics
  ground_truth: Input
  page: pathlib.Path | None = None


def open_run(path: str | pathlib.Path, *, ground_truth: str | pathlib.Path | None = None) -> ScoredRun:
  """Reads the metrics of a run.

  Args:
    path: a directory of run_experiment, evaluate_retrieval, search_index or rerank_results. Of
      run_experiment, the last rankings count: expanded, else verified, else fused, else those of the index.
    ground_truth: evaluates rankings without metrics; without effect on directories that have metrics.

  Raises:
    UserError: there is no such directory, or it has neither metrics nor a ground truth.
  """
  path = pathlib.Path(path)
  name = os.path.normpath(path)
  if not (path / MANIFEST).is_file():
    kind = _last_metrics(path)
    return _of_metrics(name, Artefact.open(path / kind, 'metrics'), path)
  if read_manifest(path / MANIFEST).kind == 'rankings':
    return _of_rankings(name, Artefact.open(path, 'rankings'), ground_truth)
  metrics = Artefact.open(path, 'metrics')
  run = path.resolve().parent
  is_reported = (run / RUN_CONFIG).is_file() and _last_metrics(run) == path.resolve().name
  return _of_metrics(name, metrics, run if is_reported else None)


def _last_metrics(run: pathlib.Path) -> str:
  """Returns the kind of metrics that the report of an experiment shows.

  Metrics of other kinds may be left over from another config.
  """
  if not (run / RUN_CONFIG).is_file():
    raise UserError(
      f'{run}: no run there ({RUN_CONFIG} is missing). Give a directory that run_experiment,'
      ' evaluate_retrieval or search_index made'
    )
  config = configs.load(run / RUN_CONFIG)
  return reported_run.last_kinds(config)[1]


def _of_metrics(name: str, metrics: Artefact, run: pathlib.Path | None) -> ScoredRun:
  ground_truth = metrics.input('ground_truth')
  if ground_truth is None:
    raise ArtefactError(f'{metrics.path}: the manifest names no ground truth. Run evaluate_retrieval again')
  page = run / 'report' / make_report.PAGE if run else None
  return ScoredRun(
    name,
    metrics_files.read_per_query(metrics.path / evaluate_retrieval.PER_QUERY),
    ground_truth,
    page if page and page.is_file() else None,
  )


def _of_rankings(name: str, rankings: Artefact, ground_truth: str | pathlib.Path | None) -> ScoredRun:
  if ground_truth is None:
    raise UserError(
      f'{name}: rankings without metrics. Give --ground_truth, or a directory of evaluate_retrieval'
    )
  stored = ranking_files.load(rankings.path)
  queries = resolved.resolved_queries(rankings, stored, ground_truths.load(ground_truth))
  return ScoredRun(name, evaluate_retrieval.score(stored, queries), resolved.ground_truth_input(ground_truth))


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Every run after the first compared with the first, by protocol.

  Attributes:
    level: confidence level of the intervals.
    baseline: the first run.
    others: each other run with its comparisons by protocol.
  """

  level: float
  baseline: ScoredRun
  others: tuple[tuple[ScoredRun, Mapping[str, PairedComparison]], ...]


def compare(runs: Sequence[ScoredRun], *, seed: int = 0, level: float = 0.95) -> Comparison:
  """Compares every run with the first.

  Args:
    runs: two or more.
    seed: of the bootstrap.
    level: confidence level of the intervals.

  Raises:
    UserError: there are fewer than two runs, or one has other queries or another ground truth than the first.
  """
  if len(runs) < 2:
    raise UserError(f'found {len(runs)} runs; give two or more, the first is what the others are compared to')
  baseline, *others = runs
  found = []
  for run in others:
    if run.ground_truth.fingerprint != baseline.ground_truth.fingerprint:
      theirs, ours = (f'{r.ground_truth.fingerprint} ({r.ground_truth.path})' for r in (run, baseline))
      raise UserError(
        f'{baseline.name} is scored by ground truth {ours}, {run.name} by {theirs}. Evaluate both with the'
        ' same file: d2r evaluate_retrieval'
      )
    try:
      found.append((run, paired_comparison.compare(baseline.metrics, run.metrics, seed=seed, level=level)))
    except ValueError as error:
      raise UserError(f'{baseline.name} (first) and {run.name} (second): {error}') from None
  return Comparison(level, baseline, tuple(found))


def table(comparison: Comparison) -> str:
  """Returns plain text for a terminal: by protocol, each run with its largest gain and loss."""
  baseline, others = comparison.baseline, comparison.others
  width = max(len(run.name) for run in (baseline, *(run for run, _ in others)))
  lines = []
  for protocol in others[0][1]:
    found = others[0][1][protocol]
    head = f'{protocol} ({len(found.queries)} queries)'
    lines.append(f'{head:<{width + 2}}   mAP  difference  {"interval":<16}  won  lost  tied')
    lines.append(f'  {baseline.name:<{width}} {_mean(found.baseline)}')
    for run, comparisons in others:
      found = comparisons[protocol]
      difference, interval = paired_page.interval_texts(found)
      counts = f'{len(found.won):>3}  {len(found.lost):>4}  {len(found.tied):>4}'
      lines.append(f'  {run.name:<{width}} {_mean(found.other)}  {difference:>10}  {interval:<16}  {counts}')
      for what, positions in (('gain', found.won), ('loss', found.lost)):
        if positions:
          query, value = found.queries[positions[0]], found.differences[positions[0]]
          lines.append(f'    largest {what}: {query} {paired_page.signed(value)}')
  lines.append(f'Per cent; bootstrap interval of {100 * comparison.level:g} %, * where it excludes 0.')
  return '\n'.join(lines)


def _mean(values: np.ndarray) -> str:
  return f'{100 * values.mean():>5.1f}' if len(values) else f'{"-":>5}'


def write(comparison: Comparison, output: pathlib.Path) -> pathlib.Path:
  """Writes `compare.html` and `compare.json` into a folder, which is made if missing; returns the page.

  Links from the page into the runs' reports are relative, so they hold as long as the folders move together.

  Raises:
    UserError: the folder cannot be written.
  """
  view = PairedView(
    'Runs compared query by query',
    f'{len(comparison.baseline.metrics.query_names)} queries; the baseline is {comparison.baseline.name}',
    _view(comparison.baseline, {}, output),
    tuple(_view(run, comparisons, output) for run, comparisons in comparison.others),
  )
  with files.user_errors('cannot write', output):
    output.mkdir(parents=True, exist_ok=True)
    files.write_output(output / DOCUMENT, json.dumps(_document(comparison), indent=1) + '\n')
    files.write_output(output / PAGE, paired_page.render(view))
  return output / PAGE


def _view(run: ScoredRun, comparisons: Mapping[str, PairedComparison], output: pathlib.Path) -> RunView:
  links = {}
  if run.page:
    place = quote(os.path.relpath(run.page.resolve(), output.resolve()))
    anchors = paired_page.query_anchors(run.page.read_text(encoding='utf-8'))
    links = {query: f'{place}#{anchor}' for query, anchor in anchors.items()}
  return RunView(run.name, comparisons, links)


def _document(comparison: Comparison) -> dict:
  return {
    'version': VERSION,
    'baseline': comparison.baseline.name,
    'ground_truth': comparison.baseline.ground_truth.fingerprint,
    'runs': [
      {
        'name': run.name,
        'protocols': {protocol: _protocol_document(found) for protocol, found in comparisons.items()},
      }
      for run, comparisons in comparison.others
    ],
  }


def _protocol_document(found: PairedComparison) -> dict:
  """Returns a comparison for JSON, as fractions; null where no query has positives."""
  interval = found.interval
  values = {'difference': interval.mean, 'low': interval.low, 'high': interval.high}
  names = {
    side: [found.queries[position] for position in getattr(found, side)] for side in ('won', 'lost', 'tied')
  }
  return {
    'num_queries': len(found.queries),
    'level': interval.level,
    **{name: None if np.isnan(value) else value for name, value in values.items()},
    'is_significant': found.is_significant,
    **names,
    'queries': [
      {'query': query, 'baseline': baseline, 'run': other}
      for query, baseline, other in zip(
        found.queries, found.baseline.tolist(), found.other.tolist(), strict=True
      )
    ],
  }
