"""A whole run of Detect-to-Retrieve: every stage in the order of the data flow.

    boxes/ features/ codebook/ descriptors/ index/ query_features/ rankings/ metrics/ report/index.html
    other/ fused/ fused_metrics/   with a part `fusion` in the config (second_search.py)
    reranked/ reranked_metrics/    with a part `verification`; with junk: SKIP_EACH also reranked_hard/
    expanded/ expanded_metrics/    with a part `expansion`
    distractors/ with_distractors/ with distractors (distractors.py)

A stage is skipped if its artefact exists already and is valid, so that a run resumes where it was stopped.
"""

import pathlib
from collections.abc import Mapping

from delf_d2r.config.rules import runs
from delf_d2r.data import files
from delf_d2r.data.artefacts import background_files, codebook_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import ConfigError, UserError
from delf_d2r.experiments import scoring
from delf_d2r.experiments.run_options import Options
from delf_d2r.experiments.scoring import Outcome, summary
from delf_d2r.fuser import background_place, require_planned_fits
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.codebook_pb2 import CodebookConfig
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.stages import aggregate_features, build_index, detect_boxes, extract_features, train_codebook
from delf_d2r.stages.shared.compatibility import require_same_extractor

__all__ = ['STAGES', 'Options', 'Outcome', 'extract_index_features', 'run', 'summary']

STAGES = ('regions', 'extraction', 'codebook', 'aggregation', 'search', 'evaluation', 'report')


def run(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  output: pathlib.Path,
  *,
  ground_truth: str | pathlib.Path | None = None,
  boxes_path: str | pathlib.Path | None = None,
  given: Mapping[str, Artefact] | None = None,
  options: Options | None = None,
) -> Outcome:
  """Runs every stage.

  Args:
    config: a resolved config with all stages.
    dataset: photos and, if there is ground truth, queries.
    output: the folder of the artefacts.
    ground_truth: the file that the queries of `dataset` come from.
    boxes_path: boxes for regions.source FILE or RANDOM.
    given: artefacts to use instead of making them: boxes, features, codebook, descriptors, index,
      query_features; of the other search of a fusion, other_features and other_query_features.
    options: how to run.

  Raises:
    UserError: an input is one that a stage cannot work with.
  """
  options = options or Options()
  given = dict(given or {})
  # Checked now rather than after hours of extraction.
  for problem in runs.problems(config):
    raise ConfigError(problem.text)
  if not {'codebook', 'descriptors', 'index'} & given.keys():
    train_codebook.require_shipped_fits(config.codebook, config.extraction)
  train_codebook.require_shipped_fits(config.fusion.codebook, config.fusion.extraction)
  if 'codebook' in given:
    require_same_extractor(
      config.extraction,
      'the config',
      given['codebook'].config.extraction,
      given['codebook'].path,
      remedy='Use a codebook of this extractor, or let the run train one',
    )
  if config.fusion.normalization == FusionConfig.BACKGROUND:
    require_planned_fits(config.fusion, config.aggregation)
    _require_codebook_of_background(config, given.get('codebook'))
  redo = options.redo
  output = pathlib.Path(output)
  with files.user_errors('cannot write', output):
    output.mkdir(parents=True, exist_ok=True)

  made = extract_index_features(config, dataset, output, boxes_path=boxes_path, given=given, options=options)
  features = made['features']
  codebook = given.get('codebook') or train_codebook.run(config, features, output / 'codebook', redo=redo)
  descriptors = given.get('descriptors') or aggregate_features.run(
    config, features, codebook, output / 'descriptors', **options.extracting
  )
  index = given.get('index') or build_index.run(
    config, descriptors, codebook, output / 'index', **options.building
  )
  made |= {'codebook': codebook, 'descriptors': descriptors, 'index': index}
  made |= {kind: given[kind] for kind in ('other_features', 'other_query_features') if kind in given}
  if dataset.queries:
    made['query_features'] = given.get('query_features') or extract_features.run_queries(
      config, dataset.queries, output / 'query_features', **options.extracting
    )
  return scoring.search_and_evaluate(
    config, dataset, made, output, ground_truth=ground_truth, options=options
  )


def _require_codebook_of_background(
  config: experiment_pb2.ExperimentConfig, codebook: Artefact | None
) -> None:
  """Raises UserError if the background model of the fusion cannot be of the visual words of the run.

  Args:
    config: with fusion.normalization: BACKGROUND.
    codebook: the one to use instead of making one.
  """
  place = background_place(config.fusion)
  if codebook is not None:
    found, expected = codebook_files.digest(codebook.path), background_files.load(place).codebook
    if found == expected:
      return
    problem = f'{place}: the background model is of the codebook {expected}, but {codebook.path} is {found}'
  elif config.fusion.background_path or config.codebook.source == CodebookConfig.SHIPPED:
    return
  else:
    source = CodebookConfig.Source.Name(config.codebook.source)
    problem = f"{place}: the background model is of the package's codebook, but codebook.source is {source}"
  raise UserError(
    f"{problem}. Use the codebook of the model ('codebook {{ source: SHIPPED }}' is that of the package); or"
    ' train a model for this one by d2r train_background and name it by fusion.background_path; or take a'
    ' config without fusion, such as configs/experiments/d2r_rasmk_star_masks.pbtxt'
  )


def extract_index_features(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  output: pathlib.Path,
  *,
  boxes_path: str | pathlib.Path | None,
  given: Mapping[str, Artefact],
  options: Options,
) -> dict[str, Artefact]:
  """Returns `features` of the index images, and `boxes` unless the features were given.

  Arguments and errors are those of `run`.
  """
  if 'features' in given:
    return {'features': given['features']}
  boxes = given.get('boxes') or detect_boxes.run(
    config, dataset, output / 'boxes', boxes_path=boxes_path, **options.extracting
  )
  features = extract_features.run(config, dataset, output / 'features', boxes=boxes, **options.extracting)
  return {'boxes': boxes, 'features': features}
