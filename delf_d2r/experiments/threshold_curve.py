"""The trade-off of the paper: more boxes for each image raise mAP and make the index larger.

Boxes are detected and features extracted once, with the lowest threshold. Each threshold then keeps a subset
of them. All thresholds share the codebook, the query features and, with fusion, the other search's features,
unless these are of boxes, too.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from delf_d2r.data import csv_rows, files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import UserError
from delf_d2r.evaluation.protocol import PROTOCOLS
from delf_d2r.experiments import comparison, experiment, second_search
from delf_d2r.protos import experiment_pb2
from delf_d2r.report import make_report, trade_off_page
from delf_d2r.report.trade_off_page import TradeOffPoint, TradeOffView
from delf_d2r.stages import detect_boxes, extract_features, limit_regions

TABLE = 'threshold_curve.csv'


@dataclasses.dataclass(frozen=True)
class Curve:
  """A point for each threshold in ascending order, and the page with the charts."""

  points: tuple[TradeOffPoint, ...]
  page: pathlib.Path


def run(
  config: experiment_pb2.ExperimentConfig,
  thresholds: Sequence[float],
  dataset: Dataset,
  output: pathlib.Path,
  *,
  ground_truth: str | pathlib.Path,
  boxes_path: str | pathlib.Path | None = None,
  codebook: Artefact | None = None,
  options: experiment.Options | None = None,
) -> Curve:
  """Runs the experiment at every threshold, each in a folder of its own below `output`.

  Args:
    config: a resolved config; its `regions.min_score` is replaced by each of `thresholds`.
    thresholds: scores in [0, 1], at least one.
    dataset: photos and queries.
    output: folder of all artefacts, of the page and of `threshold_curve.csv`.
    ground_truth: the file that the queries come from.
    boxes_path: boxes for regions.source FILE or RANDOM.
    codebook: a codebook trained on other photos; None: one is trained on these.
    options: how to run.

  Raises:
    UserError: there are no queries or no thresholds, or an input is one that a stage cannot work with.
  """
  thresholds = sorted(set(thresholds))
  if not thresholds or not (thresholds[0] >= 0 and thresholds[-1] <= 1):
    raise UserError(f'thresholds are {thresholds}; give one or more scores in [0, 1]')
  if dataset.queries is None:
    raise UserError('a curve over thresholds needs queries: give --ground_truth')
  options = options or experiment.Options()
  lowest = _with_threshold(config, thresholds[0])
  boxes = detect_boxes.run(lowest, dataset, output / 'boxes', boxes_path=boxes_path, **options.extracting)
  features = extract_features.run(lowest, dataset, output / 'features', boxes=boxes, **options.extracting)
  given = {'codebook': codebook} if codebook else {}
  shared = ['codebook', 'query_features']
  if config.HasField('fusion'):
    shared.append('other_query_features')
    if not second_search.depends_on_boxes(config):
      shared.append('other_features')
  points = []
  for threshold in thresholds:
    limited = _with_threshold(config, threshold)
    place = output / limited.name
    given['features'] = limit_regions.run(limited, features, boxes, place / 'features', redo=options.redo)
    outcome = experiment.run(limited, dataset, place, ground_truth=ground_truth, given=given, options=options)
    given |= {kind: outcome.artefacts[kind] for kind in shared}
    points.append(_point(threshold, outcome, given['features'].counts))
  view = TradeOffView(
    title=f'Score threshold of the boxes: {config.name}',
    subtitle=f'{len(dataset.images)} index images, {len(dataset.queries)} queries, Revisited protocol',
    points=tuple(points),
  )
  files.write_output(output / TABLE, _table(points))
  return Curve(view.points, make_report.write(trade_off_page.render(view), output / 'report'))


def _with_threshold(
  config: experiment_pb2.ExperimentConfig, threshold: float
) -> experiment_pb2.ExperimentConfig:
  changed = experiment_pb2.ExperimentConfig()
  changed.CopyFrom(config)
  changed.regions.min_score = threshold
  changed.name = f'min_score_{threshold:g}'
  return changed


def _point(threshold: float, outcome: experiment.Outcome, features: Mapping[str, int]) -> TradeOffPoint:
  row = comparison.row_of(outcome)
  return TradeOffPoint(
    threshold=threshold,
    boxes=features['regions'] / features['images'] - 1,
    postings=row.postings,
    index_bytes=row.index_bytes,
    mean_average_precision=row.mean_average_precision,
  )


def _table(points: Sequence[TradeOffPoint]) -> str:
  names = [f'map_{protocol}' for protocol in PROTOCOLS]
  rows: list[list[object]] = [
    ['min_score', 'boxes_per_image', 'postings_per_image', 'index_bytes_per_image', *names]
  ]
  for point in points:
    scores = [point.mean_average_precision[protocol] for protocol in PROTOCOLS]
    rows.append([point.threshold, point.boxes, point.postings, point.index_bytes, *scores])
  return csv_rows.format_rows(rows)
