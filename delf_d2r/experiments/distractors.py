"""A run among distractors: the same queries, and an index that holds other photos beside those of the run.

No artefact of the run is changed or computed again. The distractors have artefacts of their own, aggregated
with the codebook of the run, and the query features of the run are searched for in the larger index.

    distractors/boxes/ distractors/features/ distractors/descriptors/
    with_distractors/index/ rankings/ metrics/ report/index.html    and the other stages after build_index
"""

import pathlib
from collections.abc import Mapping

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos import distractor_list
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.experiments import experiment, scoring
from delf_d2r.experiments.second_search import DISTRACTORS, JOINED
from delf_d2r.protos import experiment_pb2
from delf_d2r.stages import aggregate_features, build_index

_PREFIX = 'distractor_'


def run(
  config: experiment_pb2.ExperimentConfig,
  base: experiment.Outcome,
  photos: ImageList,
  output: pathlib.Path,
  *,
  ground_truth: str | pathlib.Path | None = None,
  boxes_path: str | pathlib.Path | None = None,
  given: Mapping[str, Artefact] | None = None,
  options: experiment.Options | None = None,
) -> experiment.Outcome:
  """Extracts and aggregates the distractors, and searches and evaluates among them.

  Args:
    config: of the run.
    base: the outcome of the run.
    photos: the distractors; none of them is a photo of the run (distractor_list.load).
    output: the folder of the run.
    ground_truth: the file that the run's queries come from.
    boxes_path: boxes of the distractors, for regions.source FILE or RANDOM.
    given: artefacts to use instead of making them: distractor_boxes, distractor_features,
      distractor_descriptors, joined_index.
    options: how to run.

  Returns:
    The outcome among the distractors. Its artefacts are those of the run, with the `index`, `rankings` and
    `metrics` among distractors instead of its own, and those of the distractors under the names of `given`.

  Raises:
    UserError: a distractor is a photo of the run or has the name of one, or an input is one that a stage
      cannot work with.
  """
  options = options or experiment.Options()
  given = dict(given or {})
  dataset = base.reported.dataset
  distractor_list.require_disjoint(photos, dataset)
  own = output / DISTRACTORS
  found = experiment.extract_index_features(
    config,
    Dataset(photos),
    own,
    boxes_path=boxes_path,
    given={
      kind.removeprefix(_PREFIX): artefact for kind, artefact in given.items() if kind.startswith(_PREFIX)
    },
    options=options,
  )
  made = dict(base.artefacts) | {f'{_PREFIX}{kind}': artefact for kind, artefact in found.items()}
  made['distractor_descriptors'] = given.get('distractor_descriptors') or aggregate_features.run(
    config, made['distractor_features'], made['codebook'], own / 'descriptors', **options.extracting
  )
  made['index'] = given.get('joined_index') or build_index.run(
    config,
    made['descriptors'],
    made['codebook'],
    output / JOINED / 'index',
    distractors=made['distractor_descriptors'],
    **options.building,
  )
  return scoring.search_and_evaluate(
    config,
    dataset,
    made | {'joined_index': made['index']},
    output / JOINED,
    ground_truth=ground_truth,
    options=options,
    distractors=photos,
  )
