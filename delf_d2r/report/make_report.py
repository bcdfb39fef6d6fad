"""make_report: an index, rankings and metrics as one HTML file that opens in any browser."""

import math
import pathlib
from collections.abc import Mapping

import numpy as np

import delf_d2r.config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.ground_truth.ground_truth import QueryGroundTruth
from delf_d2r.data.photos import images, photo_listing
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.evaluation.protocol import Metrics
from delf_d2r.report import experiment_page, match_views, scores
from delf_d2r.report.reported_run import Labels, Run, ranked_queries
from delf_d2r.report.views import ExperimentView, QueryView, ResultView, TableView
from delf_d2r.stages import evaluate_retrieval
from delf_d2r.structures import Ranking

PAGE = 'index.html'


def run(
  run: Run,
  output: pathlib.Path,
  *,
  results_per_query: int = 12,
  max_queries: int = 100,
  matches: int = 18,
) -> pathlib.Path:
  """Writes the report of one experiment.

  Args:
    run: the artefacts of the experiment.
    output: a folder; the page in it is replaced.
    results_per_query: number of results shown for each query.
    max_queries: number of queries shown, the worst first; 0: all.
    matches: number of pairs of a query and a result that can be opened to see why they match; 0: none.

  Returns:
    The page.

  Raises:
    UserError: an artefact is damaged or the output cannot be written.
  """
  explained = match_views.of_run(run, matches)
  view = ExperimentView(
    title=run.name,
    subtitle=f'{run.index.counts["images"]:,} index images, {len(run.dataset.queries or ())} queries',
    tables=(metrics_table(_metrics(run.metrics)),) if run.metrics else (),
    queries=tuple(query_views(run, results_per_query=results_per_query, max_queries=max_queries)),
    config_text=configs.to_text((run.metrics or run.index).config),
    facts=facts(run),
    notes=(*notes(run), *explained.notes),
    match_groups=explained.groups,
  )
  return write(experiment_page.render(view), output)


def _metrics(metrics: Artefact) -> Metrics:
  return metrics_files.read_per_query(metrics.path / evaluate_retrieval.PER_QUERY)


def write(page: str, output: pathlib.Path) -> pathlib.Path:
  """Writes a page into a folder, which is made if missing."""
  with files.user_errors('cannot write', output):
    output.mkdir(parents=True, exist_ok=True)
    files.write_output_if_changed(output / PAGE, page)
  return output / PAGE


def metrics_table(metrics: Metrics) -> TableView:
  """Returns a table of mAP, mP@k and mR@k of each protocol, in per cent."""
  rows = []
  for name, values in metrics.protocols.items():
    numbers = [values.mean_average_precision, *_each(values.mean_precision), *_each(values.mean_recall)]
    rows.append((name, values.num_queries, *map(percent, numbers[: 1 + 2 * len(metrics.ks)])))
  columns = ['protocol', 'queries', 'mAP', *(f'mP@{k}' for k in metrics.ks), *(f'mR@{k}' for k in metrics.ks)]
  return TableView(tuple(columns), tuple(rows), 'Revisited protocol, per cent.')


def percent(fraction: float) -> str | None:
  """Returns a fraction in per cent with two decimals; None, which is shown as a dash, for NaN."""
  return None if math.isnan(fraction) else f'{100 * fraction:.2f}'


def _each(values: np.ndarray) -> list[float]:
  return np.atleast_1d(values).tolist()


def _worst(metrics: Metrics, max_queries: int) -> list[int]:
  """Returns the positions of the queries to show: all, or those of lowest medium AP, in ascending order."""
  aps = metrics.protocols['medium'].average_precisions
  order = np.argsort(aps, kind='stable')  # NaN, a query without positives, comes last.
  return sorted(order[: max_queries or None].tolist())


def query_views(run: Run, *, results_per_query: int, max_queries: int = 100) -> list[QueryView]:
  """Returns the queries of a run with the top of their rankings; an empty list without metrics.

  Args:
    run: the artefacts of the experiment.
    results_per_query: number of results of each query.
    max_queries: number of queries, the worst first; 0: all.

  Raises:
    UserError: an artefact is damaged.
  """
  if run.metrics is None or run.rankings is None:
    return []
  metrics = _metrics(run.metrics)
  engine = SearchEngine.load(run.index.path, one_photo=True)  # It only gives the names and boxes of results.
  timing = ranking_files.load(run.rankings.path).timing
  ranked = ranked_queries(run)
  config = run.rankings.config
  meanings = scores.meanings(config.fusion if config.HasField('fusion') else None)
  views = []
  for position in _worst(metrics, max_queries):
    query = ranked[position]
    aps = {name: values.queries[position].average_precision for name, values in metrics.protocols.items()}
    results: tuple[ResultView, ...] = ()
    seconds = None
    if query.ranking is not None and query.row is not None:
      results = _result_views(run, engine, query.ranking.take(slice(results_per_query)), query.labels)
      seconds = (timing.describe[query.row] + timing.search[query.row]) / 1e3
    views.append(
      QueryView(
        name=query.query.name,
        image_path=query.path,
        box=_query_box(query.query, query.path, run.index.config.extraction.apply_exif_orientation),
        average_precision={name: None if math.isnan(ap) else ap for name, ap in aps.items()},
        results=results,
        seconds=seconds,
        score_meanings=meanings,
      )
    )
  return views


def _query_box(query: QueryGroundTruth, path: pathlib.Path, apply_exif_orientation: bool):
  try:
    return query.box_for(*images.image_size(path, apply_exif_orientation=apply_exif_orientation))
  except UserError:
    # The photo or its box cannot be read, which the run has reported already.
    return query.box


def _result_views(run: Run, engine: SearchEngine, head: Ranking, labels: Labels) -> tuple[ResultView, ...]:
  found = zip(engine.results(head), labels(head.image_ids), strict=True)
  return tuple(
    ResultView.of(result, run.photo_folders.find(result.name), str(label)) for result, label in found
  )


def facts(run: Run) -> dict[str, str]:
  """Returns counts, sizes and times of a run, for the page."""
  counts = run.index.counts
  num_images = max(counts['images'], 1)
  found = {
    'index images': f'{counts["images"]:,}{_of_them_distractors(counts)}',
    'index entries': f'{counts["entries"]:,}',
    'postings': f'{counts["postings"]:,}',
    'index size': f'{counts["index_bytes"]:,} bytes, {counts["index_bytes"] / num_images:,.0f} an image',
  }
  if run.other_index:
    size = run.other_index.counts['index_bytes']
    found['size of the other index'] = f'{size:,} bytes, {size / num_images:,.0f} an image'
  found |= {
    'visual words': f'{run.index.config.codebook.num_words:,}',
    'library': f'delf_d2r {run.index.manifest.library_version}',
  }
  if run.dataset.images.left_out:
    found['files left out'] = photo_listing.describe(run.dataset.images.left_out)
  if run.rankings:
    timing = ranking_files.load(run.rankings.path).timing
    if timing.search:
      found['query time'] = (
        f'{np.median(timing.describe):.1f} ms to describe the features, {np.median(timing.search):.2f} ms to'
        ' search (median)'
      )
  return found


def _of_them_distractors(counts: Mapping[str, int]) -> str:
  distractors = counts.get('distractors', 0)
  return f', {distractors:,} of them distractors' if distractors else ''


def notes(run: Run) -> list[str]:
  """Returns notes for the page: photos that could not be read, and a missing ground truth."""
  found = []
  errors = artefact_writer.read_errors(run.index)
  if errors:
    names = ', '.join(error['name'] for error in errors[:5])
    found.append(f'{len(errors)} photos could not be read and are not in the index: {names}.')
  if not run.dataset.queries:
    found.append('No ground truth was given, so there is nothing to score.')
  return found
