"""demo: the systems of the paper on a small benchmark that is made of real photos."""

import pathlib
from collections.abc import Sequence

from delf_d2r import config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.experiments import comparison, experiment
from delf_d2r.runtime import progress

# The configs in configs/experiments/mini, in the order in which they run.
EXPERIMENTS = (
  'asmk_star',
  'asmk_star_unnormalized',
  'rasmk_star_uniform',
  'rasmk_star_true_boxes',
  'd2r_regional_search',
  'rasmk_star_random_boxes',
  'd2r_rasmk_star',
  'default',
)


def run(
  output: pathlib.Path,
  *,
  seed: int = 0,
  overrides: Sequence[str] = (),
  options: experiment.Options | None = None,
) -> comparison.Comparison:
  """Makes the miniature benchmark, runs all experiments on it and compares them.

  Args:
    output: the folder of photos, artefacts and report.
    seed: the seed of the benchmark.
    overrides: changes of fields of all configs.
    options: how to run.

  Raises:
    UserError: a config or the output cannot be used.
  """
  made = mini_benchmark.generate(output / 'photos', seed=seed, progress=progress.callback('scenes'))
  # The random boxes are as many and as large as the detected ones, which an earlier experiment has made.
  imitated = f'regions.random.like: "{output / "d2r_regional_search" / "boxes"}"'
  return comparison.run(
    [
      config.load(
        f'configs/experiments/mini/{name}.pbtxt',
        experiment.STAGES,
        overrides=[*([imitated] if 'random' in name else []), *overrides],
      )
      for name in EXPERIMENTS
    ],
    Dataset.load(made.images_dir, ground_truth=made.ground_truth_path, query_images=made.queries_dir),
    output,
    ground_truth=made.ground_truth_path,
    boxes_path=made.boxes_path,
    options=options,
  )
