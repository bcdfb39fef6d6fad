"""RootSIFT and DELF in one index, from photos to a score."""

import pytest

pytest.importorskip('tensorflow')

from delf_d2r import config
from delf_d2r.data.artefacts import ranking_files
from delf_d2r.engine import SearchEngine
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import experiment

pytestmark = pytest.mark.slow


def test_objects_are_found_and_a_photo_is_answered(tmp_path, config_path, benchmark, dataset):
  text = config_path.read_text().replace('regions { source: UNIFORM uniform { boxes_per_side: [2] } }', '')
  (tmp_path / 'joined.pbtxt').write_text(text.replace('REGIONAL_AGGREGATION', 'WHOLE_IMAGE'))
  loaded = config.load(
    tmp_path / 'joined.pbtxt',
    experiment.STAGES,
    overrides=['extraction { extractor: ROOT_SIFT_AND_DELF delf { image_scales: [0.5, 1.0] } }'],
  )
  outcome = experiment.run(
    loaded,
    dataset,
    tmp_path / 'out',
    ground_truth=benchmark.ground_truth_path,
    options=experiment.Options(workers=1),
  )
  metrics = metrics_files.read_metrics_json(outcome.artefacts['metrics'].path / 'metrics.json')
  assert metrics['medium'].mean_average_precision > 0.4
  assert len(ranking_files.load(outcome.artefacts['rankings'].path).rankings) == 12
  engine = SearchEngine.load(tmp_path / 'out')
  name = engine.index.image_names[0]
  assert engine.search(benchmark.images_dir / name, top_k=3).results[0].name == name
