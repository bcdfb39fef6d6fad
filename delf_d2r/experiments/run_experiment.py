"""Runs a whole experiment from paths: the function behind `d2r run_experiment`."""

import pathlib
from collections.abc import Callable, Sequence

from delf_d2r import config as configs
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact
from delf_d2r.data.photos import distractor_list
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.experiments import distractors as distractor_runs
from delf_d2r.experiments import experiment
from delf_d2r.experiments.run_options import Options
from delf_d2r.experiments.scoring import Outcome
from delf_d2r.protos.experiment_pb2 import ExperimentConfig
from delf_d2r.protos.regions_pb2 import RegionsConfig
from delf_d2r.runtime import worker_pool
from delf_d2r.stages import detect_boxes, extract_features

DEFAULT_CONFIG = 'configs/experiments/default.pbtxt'

Path = str | pathlib.Path


def run_experiment(
  images: Path,
  output: Path,
  config: Path | ExperimentConfig = DEFAULT_CONFIG,
  *,
  ground_truth: Path | None = None,
  overrides: Sequence[str] = (),
  query_images: Path | None = None,
  boxes_file: Path | None = None,
  codebook: Path | None = None,
  distractors: Path | None = None,
  distractors_boxes_file: Path | None = None,
  exclude: Sequence[str] = (),
  options: Options | None = None,
  report: Callable[[str], None] = lambda text: None,
) -> Outcome:
  """Runs every stage, from a folder of photos to an index and, with ground truth, to metrics and a report.

  Stages whose artefacts exist and are still valid are skipped, so that the same call continues a run that was
  stopped. Afterwards `SearchEngine.load(output)` answers photos.

  Args:
    images: the folder of the index photos, subfolders included.
    output: the folder of all artefacts; it is made if missing.
    config: a config file (.pbtxt) with all stages, or what `load_config` returns. `configs/...` are found
      wherever the package is installed.
    ground_truth: queries and their right answers: .json, or the .pkl or .mat of Revisited Oxford and Paris.
      None builds the index only.
    overrides: changes of fields of the config file, such as 'aggregation.alpha: 2'.
    query_images: the folder of the query photos; by default `images`.
    boxes_file: boxes for `regions.source` FILE or RANDOM: a CSV file, or an artefact of `detect_boxes`.
    codebook: an artefact of `train_codebook` to use instead of training a codebook.
    distractors: a folder of photos that no ground truth names, to search among in a second evaluation in
      `output/with_distractors`.
    distractors_boxes_file: like `boxes_file`, for the distractors.
    exclude: globs of files and folders among the photos to leave out, see `ImageList.from_folder`.
    options: how to run, without effect on the results.
    report: called with a summary of the run, for example `print`; with distractors again at the end.

  Returns:
    The artefacts and the report of the run; with distractors those of the second evaluation.

  Raises:
    UserError: an input or the config cannot be used; the message says why.
  """
  options = options or Options()
  output = pathlib.Path(output)
  if isinstance(config, ExperimentConfig):
    if overrides:
      raise ValueError(f'overrides: expected none beside a loaded config, found {list(overrides)}')
    loaded = ExperimentConfig()
    loaded.CopyFrom(config)
    for stage in experiment.STAGES:
      getattr(loaded, stage).SetInParent()
    loaded = configs.resolve(loaded)
  else:
    loaded = configs.load(config, experiment.STAGES, overrides=overrides)
  _start_workers_ahead(loaded, output, options)
  dataset = Dataset.load(
    images,
    ground_truth=ground_truth,
    query_images=query_images,
    exclude=exclude,
    strict=options.strict,
  )
  more = distractor_list.load(distractors, exclude=exclude, strict=options.strict) if distractors else None
  if more:
    # Checked now rather than after hours of extraction.
    distractor_list.require_disjoint(more, dataset)
  outcome = experiment.run(
    loaded,
    dataset,
    output,
    ground_truth=ground_truth,
    boxes_path=boxes_file,
    given={'codebook': Artefact.open(codebook, 'codebook')} if codebook else None,
    options=options,
  )
  report(f'{experiment.summary(outcome)}\nreport: {outcome.page}')
  if more:
    outcome = distractor_runs.run(
      loaded,
      outcome,
      more,
      output,
      ground_truth=ground_truth,
      boxes_path=distractors_boxes_file,
      options=options,
    )
    report(f'\namong {len(more):,} distractors\n{experiment.summary(outcome)}\nreport: {outcome.page}')
  return outcome


def _start_workers_ahead(config: ExperimentConfig, output: pathlib.Path, options: Options) -> None:
  """Lets the workers of the first stages import what they need while the photos are listed."""
  is_alone = options.workers == 1 or (options.workers is None and worker_pool.available_cores() == 1)
  if is_alone or options.cluster is not None or (output / 'features' / MANIFEST).is_file():
    return
  stages = [module.__name__ for module in (detect_boxes, extract_features)]
  detects = config.regions.source == RegionsConfig.DETECTOR
  worker_pool.start_ahead([*stages, *(detect_boxes.NETWORK_MODULES if detects else ())])
