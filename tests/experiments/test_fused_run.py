"""A run with fusion: what its summary, its report, comparisons and curves say, and what is refused early."""

import pathlib

import pytest

from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.artefact import RUN_CONFIG
from delf_d2r.errors import UserError
from delf_d2r.experiments import comparison, experiment, threshold_curve
from delf_d2r.protos.experiment_pb2 import ExperimentConfig
from delf_d2r.report import make_report, reported_run
from delf_d2r.stages import extract_features

pytestmark = pytest.mark.slow

FUSION = (
  'fusion { extraction { root_sift { upright: true } max_features: 60 max_image_size: 160'
  ' max_crop_size: 128 } codebook { num_words: 64 } aggregation { } }'
)
# As in the default experiment.
BACKGROUND = (
  'aggregation.normalize: true',
  'fusion { normalization: BACKGROUND codebook { source: ORIGIN num_words: 1 } }',
  'fusion.aggregation { kernel: VLAD }',
  'fusion.extraction { extractor: GLOBAL global_descriptor { shipped_model: true image_scales: 1 } }',
)


@pytest.fixture(scope='module')
def fused(run, finished):
  given = {kind: finished.artefacts[kind] for kind in ('boxes', 'features', 'codebook', 'query_features')}
  return run(FUSION, given=given)


@pytest.mark.parametrize(
  'parts, expected',
  [
    ('', ('rankings', 'metrics')),
    ('fusion { }', ('fused', 'fused_metrics')),
    ('fusion { } verification { }', ('reranked', 'reranked_metrics')),
    ('verification { } expansion { }', ('expanded', 'expanded_metrics')),
  ],
)
def test_the_last_rankings_and_metrics(parts, expected):
  config = ExperimentConfig()
  for part in parts.replace('{ }', '').split():
    getattr(config, part).SetInParent()
  assert reported_run.last_kinds(config) == expected


def test_both_indexes_count(fused):
  first, other = (fused.artefacts[kind].counts['index_bytes'] for kind in ('index', 'other_index'))
  num_images = fused.artefacts['index'].counts['images']
  row = comparison.row_of(fused)
  assert row.index_bytes == (first + other) / num_images > first / num_images
  timings = [
    ranking_files.load(fused.artefacts[kind].path).timing.search
    for kind in ('fused', 'rankings', 'other_rankings')
  ]
  assert timings[0] == pytest.approx([a + b for a, b in zip(*timings[1:], strict=True)], abs=2e-3)
  summary = experiment.summary(fused)
  assert f'size of the other index: {other:,} bytes, {other / num_images:,.0f} an image' in summary


def test_a_report_that_is_made_again_is_the_report_of_the_run(fused, dataset, tmp_path):
  folder = fused.artefacts['index'].path.parent
  opened = reported_run.Run.open(folder, dataset)
  assert opened.rankings.path == folder / 'fused'
  assert opened.metrics.path == folder / 'fused_metrics'
  assert opened.other_index.path == folder / 'other' / 'index'
  assert make_report.facts(opened) == make_report.facts(fused.reported)
  # Without queries, and before the run is whole.
  alone = reported_run.Run.open(folder, type(dataset)(dataset.images))
  assert (alone.rankings, alone.metrics) == (None, None)
  assert alone.other_index.path == folder / 'other' / 'index'


def test_a_run_without_config_has_its_first_rankings(finished_dir, dataset, tmp_path):
  for item in finished_dir.iterdir():
    if item.name != RUN_CONFIG:
      (tmp_path / item.name).symlink_to(item)
  opened = reported_run.Run.open(tmp_path, dataset)
  assert (opened.rankings.path.name, opened.other_index) == ('rankings', None)


@pytest.mark.parametrize('regions, extractions', [('WHOLE_IMAGE', 1), ('REGIONAL_AGGREGATION', 2)])
def test_the_points_of_a_curve_share_what_does_not_depend_on_boxes(
  load, dataset, benchmark, tmp_path, monkeypatch, regions, extractions
):
  found: dict[str, list[pathlib.Path]] = {'run': [], 'run_queries': []}
  for name, paths in found.items():
    original = getattr(extract_features, name)
    monkeypatch.setattr(
      extract_features,
      name,
      lambda *args, original=original, paths=paths, **options: (
        paths.append(args[2]) or original(*args, **options)
      ),
    )
  curve = threshold_curve.run(
    # What is counted here does not depend on the size of photos.
    load(
      FUSION,
      f'fusion.aggregation.regions: {regions}',
      'extraction { max_image_size: 160 max_crop_size: 128 } report { max_queries: 1 matches: 0 }',
    ),
    [0.2, 0.8],
    dataset,
    tmp_path,
    ground_truth=benchmark.ground_truth_path,
    options=experiment.Options(workers=1),
  )
  assert len(curve.points) == 2
  others = [path for path in found['run'] if path.parent.name == 'other']
  assert len(others) == extractions
  assert len(found['run_queries']) == 2
  # Each point is a whole run.
  for name in ('min_score_0.2', 'min_score_0.8'):
    assert reported_run.Run.open(tmp_path / name, dataset).rankings.path == tmp_path / name / 'fused'


def test_searches_that_the_background_model_is_not_of_are_refused_before_the_run(
  load, dataset, finished, tmp_path
):
  config = load(*BACKGROUND)
  with pytest.raises(UserError, match=r"is of the package's codebook, but codebook.source is K_MEANS"):
    experiment.run(config, dataset, tmp_path / 'out', options=experiment.Options(workers=1))
  given = {'codebook': finished.artefacts['codebook']}
  with pytest.raises(UserError, match=r'background model is of the codebook \w+, but .*codebook is \w+'):
    experiment.run(config, dataset, tmp_path / 'out', given=given, options=experiment.Options(workers=1))
  other = load(*BACKGROUND, 'aggregation.alpha: 2')
  with pytest.raises(UserError, match=r'model is of aggregation.alpha 3\.0, that of the config is 2\.0'):
    experiment.run(other, dataset, tmp_path / 'out', options=experiment.Options(workers=1))
  assert not (tmp_path / 'out').exists()
