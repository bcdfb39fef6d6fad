"""Compares experiments on all development sets at once: what a default has to win.

  python tests/benchmarks/benchmark_defaults.py --output=DIR
  python tests/benchmarks/benchmark_defaults.py --table=ablation --output=DIR
  python tests/benchmarks/benchmark_defaults.py --sets=clutter,mini --rows=earlier,gem --every=9 --output=DIR

Sets: those of development_sets.py (landmarks and places leave-one-out, DVD covers both ways, clutter) and the
mini benchmark of several seeds, whose average precisions are means of the seeds for each object. Every set is
scored by the Medium protocol. Boxes drawn by hand exist for one landmark of places, which has a column of its
own.

Rows are in TABLES: a config, its overrides, and the rows that it is compared with. All K_MEANS codebooks are
trained on photos that no set has: 300 facades and an eighth of the `train` photos of places. Rows share
boxes, features, codebooks and descriptors where their configs agree (development_features.py). A run that was
killed goes on where it stopped, and one that is repeated with more rows or sets makes only what is new. After
each set, DIR/TABLE.md and DIR/TABLE.json are written (TABLE is default or ablation): mAP, paired differences
with 95 % bootstrap intervals by query (of mini by object), and costs. For a quick look, --every=N takes every
N-th query, and --thin=N every N-th landmark or object with all photos of it, and every N-th other photo.

Detectors that saw the covers must not find them again: --detector, given twice, names two detectors. The
first one gets the covers 1 to 30, the second one the others, and each every second facade; that is for the
DVD and clutter sets. --first_landmarks names the landmarks that the first one gets, so that the second one
gets the other landmarks. They stand for the detector of the package; `PATH=MODEL` is one for the rows whose
config names PATH, and `earlier=MODEL` one for the earlier default with --earlier_models. A single --detector
gets all photos.

The earlier default is what it was only with the models of its day. Once others ship, there are two ways:

  git archive c378b19 delf_d2r/models/default delf_d2r/models/default_detector | tar x -C OLD
  python tests/benchmarks/benchmark_defaults.py --earlier_models=OLD/delf_d2r/models --output=DIR

or --earlier=default.json, which takes rows from the result of an earlier run.

Costs: CPU time of detection and extraction in one thread, mean of 30 landmark photos; bytes of the index for
each photo, on clutter; MiB of the networks and of a shipped codebook; median milliseconds of a query from its
features to its ranking. Times say little while other programs use the processor; DIR/costs keeps them, and
is deleted to measure again.

All rows on all sets take some 2 to 3 hours of CPU time and 15 GB of disk, the ablation 10 GB more.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402
from benchmarks import benchmark_regions, default_costs, default_table  # noqa: E402
from benchmarks import development_sets as development  # noqa: E402
from benchmarks.default_table import Results, RowResult, SetScore  # noqa: E402
from benchmarks.development_features import FeatureCache, digest  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.data import files  # noqa: E402
from delf_d2r.data.artefacts import artefact_writer, ranking_files, records, shard_ledger  # noqa: E402
from delf_d2r.data.artefacts.artefact import COMPARISON_FIELDS, Artefact, Plan  # noqa: E402
from delf_d2r.data.ground_truth import ground_truth  # noqa: E402
from delf_d2r.data.ground_truth.ground_truth import GroundTruth  # noqa: E402
from delf_d2r.data.photos.dataset import Dataset, Queries  # noqa: E402
from delf_d2r.data.photos.image_list import ImageList  # noqa: E402
from delf_d2r.data.scenes import mini_benchmark  # noqa: E402
from delf_d2r.engine import fused_search  # noqa: E402
from delf_d2r.errors import UserError  # noqa: E402
from delf_d2r.evaluation import metrics_files  # noqa: E402
from delf_d2r.experiments import experiment, run_experiment  # noqa: E402
from delf_d2r.extractors import photo_boxes  # noqa: E402
from delf_d2r.protos.aggregation_pb2 import AggregationConfig  # noqa: E402
from delf_d2r.protos.codebook_pb2 import CodebookConfig  # noqa: E402
from delf_d2r.protos.experiment_pb2 import ExperimentConfig  # noqa: E402
from delf_d2r.protos.regions_pb2 import DetectorConfig, RegionsConfig  # noqa: E402
from delf_d2r.stages import (  # noqa: E402
  aggregate_features,
  detect_boxes,
  evaluate_retrieval,
  train_codebook,
)
from delf_d2r.stages.shared import sharded  # noqa: E402
from delf_d2r.structures import Boxes  # noqa: E402

PROTOCOL = 'medium'
SETS = (*development.SETS, 'mini')
# Queries of a set that have a column of their own: the landmark of places with boxes drawn by hand.
BOXED = {'porto_serralves': ('places', 'places/dev/porto_serralves/')}
# 6 of them are subtracted (default_costs.py).
COST_PHOTOS = 36


@dataclasses.dataclass(frozen=True)
class Row:
  """An experiment.

  Attributes:
    name: of the row.
    config_path: of the experiment.
    overrides: changes of its config.
    no_boxes: the row of the same experiment without boxes, at the same normalisation; '': none.
    random: the row with random boxes of the same number and sizes; '': none.
    true: the row with true boxes; '': none.
    without: parts of the config that the row does without.
  """

  name: str
  config_path: str
  overrides: tuple[str, ...] = ()
  no_boxes: str = ''
  random: str = ''
  true: str = ''
  without: tuple[str, ...] = ()

  @property
  def controls(self) -> dict[str, str]:
    """The rows that this one is compared with, by what they are."""
    found = {'no boxes': self.no_boxes, 'random boxes': self.random, 'true boxes': self.true}
    return {what: name for what, name in found.items() if name}


EARLIER = 'tests/benchmarks/earlier_default.pbtxt'
# In the folder of its models.
EARLIER_DETECTOR = 'default_detector'
DEFAULT = run_experiment.DEFAULT_CONFIG
# What only regional aggregation has, taken back.
_PLAIN = ('aggregation.region_masks: false', 'aggregation.whole_image_weight: 1')
NO_BOXES = ('regions.source: NONE', 'aggregation.regions: WHOLE_IMAGE', *_PLAIN)
UNIFORM = ('regions.source: UNIFORM', 'regions.uniform { boxes_per_side: 2 }')
RANDOM = ('regions.source: RANDOM', 'regions.random { seed: 0 }')
# Without a file, the true boxes of the set. The limits are for detectors.
TRUE = ('regions.source: FILE', 'regions.min_score: 0')
POOLED = ('aggregation.regions: REGIONAL_AGGREGATION', *_PLAIN)
DIVIDED = (*POOLED, 'aggregation.normalize: true')
UNDIVIDED = ('aggregation.normalize: false',)
MASKS = ('aggregation.regions: REGIONAL_AGGREGATION', 'aggregation.region_masks: true')
SEARCH = ('aggregation.regions: REGIONAL_SEARCH', *_PLAIN)
# That of configs/experiments/joined_gem_fused.pbtxt on that day.
GEM_FUSED = """fusion {
  weight: 0.5
  extraction {
    extractor: GLOBAL
    max_image_size: 800 min_image_size: 640 max_crop_size: 800 min_crop_size: 640
    global_descriptor { endpoint: "head" }
  }
  codebook { source: ORIGIN num_words: 1 }
  aggregation { kernel: VLAD }
}"""


def _earlier(name: str, *overrides: str, **controls: str) -> Row:
  return Row(f'earlier_{name}', EARLIER, overrides, **controls)


def _ablation() -> Iterator[Row]:
  """Yields the ways to use boxes for each source of boxes, for the local features of the default."""
  ways = {'regional_search': SEARCH, 'rasmk_star': DIVIDED, 'masks': MASKS}
  without = ('fusion', 'verification', 'expansion')
  yield Row('none_asmk_star', DEFAULT, NO_BOXES, without=without)
  for source, regions in {'uniform': UNIFORM, 'random': RANDOM, 'detector': (), 'true': TRUE}.items():
    for way, aggregation in ways.items():
      control = f'random_{way}' if source in ('uniform', 'detector') else ''
      yield Row(
        f'{source}_{way}',
        DEFAULT,
        (*regions, *aggregation),
        no_boxes='none_asmk_star',
        random=control,
        true='' if source == 'true' else f'true_{way}',
        without=without,
      )


TABLES = {
  'default': (
    Row(
      'earlier',
      EARLIER,
      no_boxes='earlier_no_boxes_undivided',
      random='earlier_random_undivided',
      true='earlier_true_undivided',
    ),
    _earlier('divided', *DIVIDED, no_boxes='earlier_no_boxes', random='earlier_random', true='earlier_true'),
    _earlier('no_boxes', *NO_BOXES),
    _earlier('no_boxes_undivided', *NO_BOXES, *UNDIVIDED),
    _earlier('random', *RANDOM, *DIVIDED, no_boxes='earlier_no_boxes', true='earlier_true'),
    _earlier('random_undivided', *RANDOM, no_boxes='earlier_no_boxes_undivided'),
    _earlier(
      'masks', *MASKS, no_boxes='earlier_no_boxes', random='earlier_random_masks', true='earlier_true_masks'
    ),
    _earlier('random_masks', *RANDOM, *MASKS, no_boxes='earlier_no_boxes'),
    _earlier('regional_search', *SEARCH, no_boxes='earlier_no_boxes'),
    _earlier('true', *TRUE, *DIVIDED, no_boxes='earlier_no_boxes'),
    _earlier('true_undivided', *TRUE, no_boxes='earlier_no_boxes_undivided'),
    _earlier('true_masks', *TRUE, *MASKS, no_boxes='earlier_no_boxes'),
    Row('gem', 'configs/experiments/gem_efficientnet_lite0.pbtxt'),
    Row('joined_gem_fused', EARLIER, (*NO_BOXES, GEM_FUSED), no_boxes='earlier_no_boxes'),
    Row('default', DEFAULT, no_boxes='default_no_boxes', random='default_random', true='default_true'),
    Row('default_no_boxes', DEFAULT, NO_BOXES),
    Row('default_random', DEFAULT, RANDOM, no_boxes='default_no_boxes'),
    Row('default_true', DEFAULT, TRUE, no_boxes='default_no_boxes'),
  ),
  'ablation': tuple(_ablation()),
}


@dataclasses.dataclass(frozen=True)
class SearchSet:
  """A set to search in.

  Attributes:
    name: of the set.
    column: its column in the table; sets of one column have the same queries, whose values are averaged.
    photos: the index images.
    queries: the queries.
    truth: the file of the ground truth.
    query_photos: lists of photos with the whole photos of all queries; (): queries have boxes of their own.
    true_boxes: a CSV file of true boxes; None: there are none.
    boxed: the beginning of the names of the queries whose objects have true boxes.
    halves: for each photo, the number of the detector, of two, that has not seen it; None: all detectors may.
  """

  name: str
  column: str
  photos: ImageList
  queries: Queries
  truth: pathlib.Path
  query_photos: tuple[ImageList, ...] = ()
  true_boxes: pathlib.Path | None = None
  boxed: str = ''
  halves: tuple[int, ...] | None = None


class Benchmark:
  """Runs rows on sets. Everything is in one folder, and is made once.

  Attributes:
    configs: of each row that can be run.
    problems: why a row or a result is missing.
    scores: of each row by set, as far as they have been run.
  """

  def __init__(
    self,
    rows: Sequence[Row],
    folder: pathlib.Path,
    codebook_photos: ImageList,
    *,
    workers: int,
    detectors: Mapping[str, Sequence[str]] | None = None,
    overrides: Sequence[str] = (),
    earlier_models: pathlib.Path | None = None,
    words: int = 0,
  ):
    """Loads the configs.

    Args:
      rows: the rows.
      folder: of all that is made.
      codebook_photos: photos to train codebooks on.
      workers: processes.
      detectors: by the path of a detector in configs ('' = that of the package), one detector to use instead,
        or two, of which each finds boxes in the photos that it has not seen.
      overrides: changes of the configs of all rows.
      earlier_models: a folder with `default` and `default_detector`, for the rows of the earlier default.
      words: number of visual words, for a quick look; 0: those of the configs.
    """
    self.rows = {row.name: row for row in rows}
    self.scores: dict[str, dict[str, SetScore]] = {row.name: {} for row in rows}
    self.problems: list[str] = []
    self.configs: dict[str, ExperimentConfig] = {}
    self._folder = folder
    self._codebook_photos = codebook_photos
    self._detectors = detectors or {}
    self._options = experiment.Options(workers=workers, redo=True)
    self._cache = FeatureCache(folder / 'features', workers=workers)
    self._boxes: dict[tuple[str, str], Artefact | None] = {}
    for row in rows:
      try:
        self.configs[row.name] = load_row(row, overrides, earlier_models=earlier_models, words=words)
      except UserError as error:
        self._note(f'{row.name}: {error}')

  def run(self, sets: Sequence[SearchSet], finished=lambda search_set: None) -> None:
    """Runs all rows on all sets.

    Args:
      sets: the sets.
      finished: called with each set when its rows are finished.
    """
    for search_set in sets:
      # A photo that is searched in one set and a query of another is extracted with its boxes at once.
      shown = [photos.names for photos in search_set.query_photos]
      for other in (search_set, *(other for other in sets if other.photos.names in shown)):
        self._prepare(other)
      for name in self._rows_of(search_set):
        started = time.perf_counter()
        try:
          score = self._score(name, search_set)
        except UserError as error:
          self._note(f'{name} on {search_set.name}: {error}')
          continue
        self.scores[name][search_set.name] = score
        mean = np.mean(list(score.average_precisions.values()))
        _say(f'{search_set.name}: {name}: mAP {100 * mean:.1f} ({time.perf_counter() - started:.0f} s)')
      finished(search_set)

  def inputs(self, name: str, search_set: SearchSet) -> tuple[Artefact, Artefact]:
    """Returns the features of the index images of a row with its boxes, and those of the queries."""
    self._prepare(search_set)
    config = self.configs[name]
    features = self._cache.features(config, search_set.photos, self._boxes_of(name, search_set))
    return features, self._cache.query_features(config, search_set.queries, search_set.query_photos)

  def training_inputs(self, name: str) -> tuple[pathlib.Path, Artefact]:
    """Returns the codebook of a row, and features of photos that are not searched."""
    features = self._cache.features(self.configs[name], self._codebook_photos, None)
    return self._codebook(self.configs[name], features).path, features

  def milliseconds(self, name: str, photos: ImageList) -> float | None:
    """Returns the CPU time of a photo, see default_costs.py; None if it cannot be measured."""
    try:
      return default_costs.photo_milliseconds(self.configs[name], photos, self._folder / 'costs')
    except UserError as error:
      self._note(f'{name}: costs: {error}')
      return None

  def model_bytes(self, name: str) -> int:
    return default_costs.model_bytes(self.configs[name])

  def _note(self, problem: str) -> None:
    _say(problem)
    self.problems.append(problem)

  def _rows_of(self, search_set: SearchSet) -> list[str]:
    """Returns the rows that can be run on a set: those with boxes from a file only where there are some."""
    return [
      name
      for name, config in self.configs.items()
      if search_set.true_boxes or not _takes_true_boxes(config.regions)
    ]

  def _prepare(self, search_set: SearchSet) -> None:
    """Extracts the index photos of a set with the boxes of all rows."""
    by_extraction = defaultdict(list)
    for name in self._rows_of(search_set):
      by_extraction[configs.fingerprint(self.configs[name].extraction)].append(name)
    for names in by_extraction.values():
      try:
        boxes = list(filter(None, (self._boxes_of(name, search_set) for name in names)))
        self._cache.prepare(self.configs[names[0]], search_set.photos, boxes)
      except UserError as error:
        self._note(f'{", ".join(names)} on {search_set.name}: {error}')

  def _boxes_of(self, name: str, search_set: SearchSet) -> Artefact | None:
    """Returns the boxes of a row on a set; None: it has none."""
    key = (name, search_set.name)
    if key not in self._boxes:
      self._boxes[key] = self._find_boxes(self.configs[name].regions, search_set)
    return self._boxes[key]

  def _find_boxes(self, regions: RegionsConfig, search_set: SearchSet) -> Artefact | None:
    if regions.source == RegionsConfig.NONE:
      return None
    limited = RegionsConfig()
    limited.CopyFrom(regions)
    source = None
    if regions.source == RegionsConfig.DETECTOR:
      # The same boxes as by detection in one go: the limits of a config follow the detector.
      limited.source = RegionsConfig.FILE
      source = self._candidates(regions, search_set)
    elif regions.source == RegionsConfig.RANDOM:
      source = self._candidates(regions, search_set)
    elif regions.source == RegionsConfig.FILE:
      source = search_set.true_boxes
    limited.ClearField('detector')
    found = source.path if isinstance(source, Artefact) else source
    made_of = source.manifest.fingerprint if isinstance(source, Artefact) else source and source.read_text()
    key = digest(configs.to_text(limited), search_set.photos.fingerprint, made_of)
    return detect_boxes.run(
      ExperimentConfig(regions=limited),
      Dataset(search_set.photos),
      self._folder / 'boxes' / f'{search_set.name}-{key}',
      boxes_path=found,
    )

  def _candidates(self, regions: RegionsConfig, search_set: SearchSet) -> Artefact:
    """Returns all boxes of the detector of a row, or of the detectors that stand for it."""
    own = regions.detector.model_path
    models = list(self._detectors.get(own, [own]))
    halves = search_set.halves
    if len(models) == 1 or halves is None:
      return self._detect(regions, models[0] if len(models) == 1 else own, search_set, search_set.photos)
    parts = []
    for number, model in enumerate(models):
      names = [name for name, half in zip(search_set.photos.names, halves, strict=True) if half == number]
      parts.append(self._detect(regions, model, search_set, search_set.photos.select(names, source=model)))
    return self._joined(parts, search_set)

  def _detect(self, regions: RegionsConfig, model: str, search_set: SearchSet, photos: ImageList) -> Artefact:
    config = ExperimentConfig(regions=RegionsConfig(source=RegionsConfig.DETECTOR, detector=regions.detector))
    config.regions.detector.model_path = model
    config = configs.resolve(config)
    weights = files.fingerprint(pathlib.Path(photo_boxes.model_path(config.regions.detector)))
    key = digest(configs.to_text(config), weights, photos.fingerprint)
    place = self._folder / 'boxes' / f'{search_set.name}-all-{key}'
    return detect_boxes.run(config, Dataset(photos), place, workers=self._options.workers)

  def _joined(self, parts: Sequence[Artefact], search_set: SearchSet) -> Artefact:
    """Returns the boxes of several artefacts of different photos, in the order of the photos of the set."""
    inputs = (search_set.photos.as_input(), *(part.as_input(f'part_{n}') for n, part in enumerate(parts)))
    plan = Plan('boxes', parts[0].config, inputs)
    found = {records.Record(data).name: data for part in parts for data in part.records()}
    place = self._folder / 'boxes' / f'{search_set.name}-all-{plan.fingerprint}'
    with artefact_writer.writing(place, plan) as writer:
      if writer.finished:
        return writer.reuse('boxes')
      names = [name for name in search_set.photos.names if name in found]
      sharded.write_results(
        writer,
        lambda shards: (_outcome(name, found[name]) for name in shard_ledger.items_of(shards, names)),
        total=len(names),
        per_shard=4096,
        what='boxes, joined',
      )
      return writer.finish()

  def _codebook(self, config: ExperimentConfig, features: Artefact) -> Artefact:
    """Returns the codebook of a row, of photos that are not searched, or the one that needs no training."""
    made_of: object = configs.fingerprint(config.extraction)
    is_shipped = config.codebook.source == CodebookConfig.SHIPPED
    if not is_shipped:
      if config.codebook.source == CodebookConfig.K_MEANS:
        features = self._cache.features(config, self._codebook_photos, None)
      made_of = features.manifest.fingerprint
    place = self._folder / 'codebooks' / digest(configs.to_text(config.codebook), made_of)
    # The codebook of the package may be another one meanwhile.
    return train_codebook.run(config, features, place, redo=is_shipped)

  def _score(self, name: str, search_set: SearchSet) -> SetScore:
    config = self.configs[name]
    boxes = self._boxes_of(name, search_set)
    features = self._cache.features(config, search_set.photos, boxes, on_disk=_reads_single_features(config))
    codebook = self._codebook(config, features)
    place = self._folder / 'runs' / search_set.truth.stem / name
    if config.fusion.HasField('extraction'):
      self._link_second_features(config, features, search_set, place / fused_search.SECONDARY)
    outcome = experiment.run(
      config,
      Dataset(search_set.photos, search_set.queries),
      place,
      ground_truth=search_set.truth,
      given={
        'features': features,
        'codebook': codebook,
        'descriptors': self._descriptors(config, features, codebook),
        'query_features': self._cache.query_features(config, search_set.queries, search_set.query_photos),
      },
      options=self._options,
    )
    return _score_of(outcome, boxed=search_set.boxed if _takes_true_boxes(config.regions) else '')

  def _descriptors(self, config: ExperimentConfig, features: Artefact, codebook: Artefact) -> Artefact:
    """Returns the descriptors of a row, which rows share that only compare them differently."""
    made = ExperimentConfig(aggregation=config.aggregation)
    for field in COMPARISON_FIELDS:
      made.aggregation.ClearField(field)
    # A VLAD is normalised when it is made.
    normalize = config.aggregation.normalize if config.aggregation.HasField('normalize') else None
    key = digest(
      configs.to_text(made),
      normalize if config.aggregation.kernel == AggregationConfig.VLAD else '',
      features.manifest.fingerprint,
      codebook.manifest.fingerprint,
    )
    return aggregate_features.run(
      config, features, codebook, self._folder / 'descriptors' / key, workers=self._options.workers
    )

  def _link_second_features(
    self, config: ExperimentConfig, features: Artefact, search_set: SearchSet, place: pathlib.Path
  ) -> None:
    """Puts links to shared folders where a run keeps the features of its second search."""
    second = fused_search.secondary_config(config)
    boxes = features.input('boxes')
    # The condition of second_search.py.
    if boxes and second.aggregation.regions != AggregationConfig.WHOLE_IMAGE:
      found = self._folder / 'features' / f'second-{digest(configs.to_text(second), boxes.fingerprint)}'
      found.mkdir(parents=True, exist_ok=True)
    else:
      found = self._cache.features(second, search_set.photos, None).path
    queries = self._cache.query_features(second, search_set.queries, search_set.query_photos).path
    place.mkdir(parents=True, exist_ok=True)
    for name, target in (('features', found), ('query_features', queries)):
      link = place / name
      if link.is_symlink() and link.resolve() != target.resolve():
        link.unlink()
      if not link.exists():
        link.symlink_to(target.resolve())


def _outcome(name: str, data: bytes) -> sharded.Outcome:
  _, boxes = records.decode_boxes(data)
  return sharded.Outcome(name, data, {'images': 1, 'boxes': len(boxes)})


def _say(text: str) -> None:
  print(f'[{time.strftime("%H:%M:%S")}] {text}', flush=True)


def load_row(
  row: Row, overrides: Sequence[str] = (), *, earlier_models: pathlib.Path | None = None, words: int = 0
) -> ExperimentConfig:
  """Returns the resolved config of a row; the arguments are those of Benchmark."""
  path = ROOT / row.config_path if (ROOT / row.config_path).exists() else row.config_path
  base = configs.load(path, experiment.STAGES)
  for part in row.without:
    base.ClearField(part)
  detector = DetectorConfig()
  detector.CopyFrom(base.regions.detector)
  if earlier_models and row.config_path == EARLIER:
    base.extraction.delf.model_path = str(earlier_models / 'default')
    detector.model_path = str(earlier_models / EARLIER_DETECTOR)
  # Other sources may not have the details of the first one.
  if any(change.startswith('regions.source') for change in row.overrides):
    for part in ('detector', 'uniform', 'random'):
      base.regions.ClearField(part)
  elif base.regions.source == RegionsConfig.DETECTOR:
    base.regions.detector.CopyFrom(detector)
  changes = (
    f'name: "{row.name}"',
    # Of each run, only its numbers are needed.
    'report { results_per_query: 1 max_queries: 1 matches: 0 }',
  )
  with tempfile.TemporaryDirectory() as folder:
    start = pathlib.Path(folder) / f'{row.name}.pbtxt'
    start.write_text(configs.to_text(base), encoding='utf-8')
    found = configs.load(start, experiment.STAGES, overrides=(*row.overrides, *overrides, *changes))
  if found.regions.source == RegionsConfig.RANDOM:
    # Random boxes stand for those of the detector.
    found.regions.detector.CopyFrom(detector)
  for codebook in (found.codebook, *([found.fusion.codebook] if found.HasField('fusion') else [])):
    if words and codebook.source == CodebookConfig.K_MEANS:
      codebook.num_words = words
  return configs.resolve(found)


def _takes_true_boxes(regions: RegionsConfig) -> bool:
  return regions.source == RegionsConfig.FILE and not regions.file_path


def _reads_single_features(config: ExperimentConfig) -> bool:
  verifies = config.HasField('verification') and not config.verification.HasField('extraction')
  return verifies or config.HasField('expansion')


def _score_of(outcome: experiment.Outcome, *, boxed: str) -> SetScore:
  """Returns the numbers of a run, those of the queries whose names begin with `boxed`."""
  metrics, rankings = outcome.reported.metrics, outcome.reported.rankings
  if metrics is None or rankings is None:
    raise ValueError(f'expected a run with queries, found {outcome.reported.name} without')
  found = metrics_files.read_per_query(metrics.path / evaluate_retrieval.PER_QUERY)
  precisions = [query.average_precision for query in found.protocols[PROTOCOL].queries]
  timing = ranking_files.load(rankings.path).timing
  counts = [outcome.artefacts[kind].counts for kind in ('index', 'other_index') if kind in outcome.artefacts]
  return SetScore(
    {
      name: ap
      for name, ap in zip(found.query_names, precisions, strict=True)
      if not np.isnan(ap) and name.startswith(boxed)
    },
    sum(count['index_bytes'] / count['images'] for count in counts),
    counts[0]['postings'] / counts[0]['images'],
    sum(float(np.median(times)) for times in (timing.describe, timing.search, timing.verify) if times),
  )


def development_search_sets(
  names: Sequence[str],
  folder: pathlib.Path,
  *,
  seeds: int = 5,
  every: int = 1,
  thin: int = 1,
  first_landmarks: Sequence[str] = (),
) -> list[SearchSet]:
  """Returns the sets of some columns.

  Args:
    names: some of SETS.
    folder: of the photos and ground truths.
    seeds: of mini.
    every: take every so many-th query.
    thin: take every so many-th object, see development_sets.thinned.
    first_landmarks: the landmarks that the first detector of two has not seen.
  """
  photos = development.link_photos(folder / 'photos')
  found = []
  for name in names:
    if name == 'mini':
      found += [_mini(folder, seed, every, thin) for seed in range(seeds)]
      continue
    truth = development.thinned(development.SETS[name](), thin)
    index = ImageList(photos, truth.index_images)
    shown = tuple(dict.fromkeys(query.image for query in truth.queries))
    options = {
      'query_photos': (ImageList(photos, shown),),
      'true_boxes': _boxes_of_all(name, index, folder),
      'boxed': BOXED['porto_serralves'][1] if name == 'places' else '',
      'halves': _halves(name, index.names, first_landmarks),
    }
    found.append(_search_set(name, name, index, photos, truth, folder, every, thin, **options))
  return found


def _mini(folder: pathlib.Path, seed: int, every: int, thin: int) -> SearchSet:
  made = mini_benchmark.generate(folder / 'mini' / f'seed_{seed}', seed=seed)
  truth = development.thinned(ground_truth.load(made.ground_truth_path), thin)
  index = ImageList(made.images_dir, truth.index_images)
  return _search_set(
    f'mini_{seed}', 'mini', index, made.queries_dir, truth, folder, every, thin, true_boxes=made.boxes_path
  )


def _search_set(
  name: str,
  column: str,
  index: ImageList,
  queries: pathlib.Path,
  truth: GroundTruth,
  folder: pathlib.Path,
  every: int,
  thin: int,
  **options,
) -> SearchSet:
  """Returns a set with some of its queries, after writing its ground truth."""
  asked = dataclasses.replace(truth, queries=truth.queries[::every])
  name += f'_thin_{thin}' if thin > 1 else ''
  path = folder / 'sets' / f'{name}{f"_every_{every}" if every > 1 else ""}.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  ground_truth.save_json(asked, path)
  photos = ImageList(queries, tuple(query.image for query in asked.queries))
  return SearchSet(name, column, index, Queries(photos, asked), path, **options)


def _boxes_of_all(name: str, index: ImageList, folder: pathlib.Path) -> pathlib.Path | None:
  """Writes the true boxes of a set; photos without one get one of the size of another at a random place.

  So every photo has a box, and boxes alone do not tell the right photos.
  """
  drawn = folder / 'sets' / f'{name}_drawn.csv'
  drawn.parent.mkdir(parents=True, exist_ok=True)
  if name == 'clutter':
    drawn = development.boxes_path(index.root)
  elif name == 'places':
    boxes = {photo: Boxes.from_coordinates(found) for photo, found in development.place_boxes('dev').items()}
    benchmark_regions.write_boxes(boxes, drawn)
  else:
    return None
  task = benchmark_regions.Task(Dataset(index), drawn, drawn, None)
  boxes = benchmark_regions.true_boxes(task)
  return benchmark_regions.write_boxes(boxes, folder / 'sets' / f'{name}_true_{len(index)}.csv')


def _halves(name: str, photos: Sequence[str], first_landmarks: Sequence[str]) -> tuple[int, ...] | None:
  """Returns the number of the detector that has not seen each photo; None where all detectors may be used."""
  if name == 'landmarks' and first_landmarks:
    return tuple(int(photo.partition('/')[0] not in first_landmarks) for photo in photos)
  if name not in ('dvd_covers', 'dvd_photos', 'clutter'):
    return None
  middle = len(development.SCENES) // 2
  return tuple(
    n % 2 if '/' not in photo else int(int(pathlib.PurePath(photo).stem) > middle)
    for n, photo in enumerate(photos)
  )


def detectors_of(values: Sequence[str], earlier_models: pathlib.Path | None = None) -> dict[str, list[str]]:
  """Returns the detectors of flags, MODEL or PATH=MODEL, by the path that they stand for."""
  found: dict[str, list[str]] = defaultdict(list)
  for value in values:
    path, _, model = value.rpartition('=')
    found[path].append(model)
  if 'earlier' in found:
    if earlier_models is None:
      raise UserError('--detector: earlier=MODEL stands for a detector of --earlier_models. Give it, too')
    found[str(earlier_models / EARLIER_DETECTOR)] = found.pop('earlier')
  for path, models in found.items():
    if len(models) > 2:
      raise UserError(f'--detector: expected one or two for {path or "the package"!r}, found {len(models)}')
  return found


def _chosen(text: str, known: Sequence[str], flag: str) -> list[str]:
  wanted = text.split(',') if text else list(known)
  for name in wanted:
    if name not in known:
      raise UserError(f'--{flag}: {name} is none of {", ".join(known)}')
  return wanted


def main(flags) -> None:
  table = {row.name: row for row in TABLES[flags.table]}
  rows = [table[name] for name in _chosen(flags.rows, list(table), 'rows')]
  names = _chosen(flags.sets, SETS, 'sets')
  earlier = default_table.read_rows(flags.earlier) if flags.earlier else {}
  flags.output.mkdir(parents=True, exist_ok=True)
  first_landmarks = flags.first_landmarks.split(',') if flags.first_landmarks else []
  sets = development_search_sets(
    names,
    flags.output,
    seeds=flags.seeds,
    every=flags.every,
    thin=flags.thin,
    first_landmarks=first_landmarks,
  )
  photos = flags.output / 'photos'
  detectors = detectors_of(flags.detector, flags.earlier_models)
  trained_on = (*development.codebook_facades(), *development.codebook_places())[:: flags.thin]
  benchmark = Benchmark(
    rows,
    flags.output,
    ImageList(photos, trained_on),
    workers=flags.workers,
    detectors=detectors,
    overrides=flags.override,
    earlier_models=flags.earlier_models,
    words=flags.words,
  )
  costs: dict[str, float | None] = {}

  def write(_=None) -> pathlib.Path:
    found = results(benchmark, sets, costs=costs, others=earlier, base=flags.base or rows[0].name)
    return default_table.write(found, flags.output, flags.table)

  benchmark.run(sets, write)
  if flags.costs:
    sample = ImageList(photos, development.landmarks().index_images[::12][:COST_PHOTOS])
    for name in benchmark.configs:
      costs[name] = benchmark.milliseconds(name, sample)
  path = write()
  print(path.read_text())
  print(path)


def results(
  benchmark: Benchmark,
  sets: Sequence[SearchSet],
  *,
  base: str,
  costs: Mapping[str, float | None] | None = None,
  others: Mapping[str, RowResult] | None = None,
) -> Results:
  """Returns what the rows have reached so far.

  Args:
    benchmark: with its scores.
    sets: the sets.
    base: the row that all are compared with.
    costs: CPU milliseconds of a photo, by row.
    others: rows of another run, which are shown ahead unless they are run here too.
  """
  columns: dict[str, list[str]] = defaultdict(list)
  for search_set in sets:
    columns[search_set.column].append(search_set.name)
  own = {
    name: RowResult(
      scores, benchmark.rows[name].controls, (costs or {}).get(name), benchmark.model_bytes(name)
    )
    for name, scores in benchmark.scores.items()
    if scores
  }
  ahead = {name: row for name, row in (others or {}).items() if name not in own}
  return Results(
    {**ahead, **own},
    base,
    columns,
    {part: found for part, found in BOXED.items() if found[0] in columns},
    'mini',
    [name for column in ('clutter', *columns) for name in columns.get(column, ())],
    benchmark.problems,
  )


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--table', choices=list(TABLES), default='default')
  parser.add_argument('--rows', default='', help='Names of rows, separated by commas; default: all.')
  parser.add_argument('--sets', default='', help=f'Some of {",".join(SETS)}; default: all.')
  parser.add_argument('--base', default='', help='The row that all are compared with; default: the first.')
  parser.add_argument('--seeds', type=int, default=5, help='Number of mini benchmarks.')
  parser.add_argument('--every', type=int, default=1, help='Take every so many-th query.')
  parser.add_argument('--thin', type=int, default=1, help='Take every so many-th object and other photo.')
  parser.add_argument('--words', type=int, default=0, help='Visual words of trained codebooks, for --thin.')
  parser.add_argument('--detector', action='append', default=[], help='MODEL or PATH=MODEL. Repeatable.')
  parser.add_argument('--first_landmarks', default='', help='Landmarks, separated by commas.')
  parser.add_argument('--override', action='append', default=[], help='Change a field of all rows.')
  parser.add_argument('--earlier_models', type=pathlib.Path, help='Models of the earlier default.')
  parser.add_argument('--earlier', type=pathlib.Path, help='The .json of another run, with further rows.')
  parser.add_argument('--costs', action=argparse.BooleanOptionalAction, default=True)
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  main(parser.parse_args())
