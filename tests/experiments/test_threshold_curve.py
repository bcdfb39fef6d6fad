"""The curve over the score threshold: one extraction, and for each threshold the numbers of a single run."""

import csv

import pytest

from delf_d2r import config as configs
from delf_d2r.data.boxes import csv_file
from delf_d2r.errors import UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import experiment, threshold_curve
from delf_d2r.stages import extract_features

pytestmark = pytest.mark.slow

ONE = experiment.Options(workers=1)


@pytest.fixture(scope='module')
def scored_boxes(dataset, benchmark, tmp_path_factory):
  """The true boxes and, with a lower score, the left half of every image."""
  path = tmp_path_factory.mktemp('boxes') / 'boxes.csv'
  true = csv_file.read_boxes(benchmark.boxes_path, dataset.images.names)
  with open(path, 'w', encoding='utf-8') as file:
    print('image,ymin,xmin,ymax,xmax,score', file=file)
    for name in dataset.images.names:
      print(f'{name},0,0,1,0.5,0.5', file=file)
      for box in true[name].coordinates if name in true else ():
        print(name, *box, 0.75, sep=',', file=file)
  return path


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp('config') / 'c.pbtxt'
  path.write_text("""
    name: "curve" regions { source: FILE }
    extraction {
      max_features: 150 max_image_size: 256 max_crop_size: 192
      root_sift { contrast_threshold: 0.02 }
    }
    codebook { num_words: 256 iterations: 5 }
    aggregation { kernel: ASMK_STAR regions: REGIONAL_AGGREGATION }
    report { results_per_query: 4 matches: 2 }
  """)
  return configs.load(path, experiment.STAGES)


def test_curve(config, dataset, benchmark, scored_boxes, tmp_path, monkeypatch):
  runs = []
  run = extract_features.run
  monkeypatch.setattr(
    extract_features, 'run', lambda *args, **options: runs.append(1) or run(*args, **options)
  )
  options = {'ground_truth': benchmark.ground_truth_path, 'boxes_path': scored_boxes, 'options': ONE}
  curve = threshold_curve.run(config, [0.9, 0.5, 0.75], dataset, tmp_path / 'out', **options)
  assert len(runs) == 1
  assert [point.threshold for point in curve.points] == [0.5, 0.75, 0.9]
  boxes = [point.boxes for point in curve.points]
  assert boxes[0] == boxes[1] + 1
  assert boxes[2] == 0
  sizes = [point.index_bytes for point in curve.points]
  assert sizes[0] > sizes[1] > sizes[2]
  with open(tmp_path / 'out' / threshold_curve.TABLE, encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert [float(row['boxes_per_image']) for row in rows] == boxes
  assert 'threshold 0.75' in curve.page.read_text()

  # The numbers of a single run.
  config.regions.min_score = 0.75
  alone = experiment.run(config, dataset, tmp_path / 'alone', **options)
  metrics = metrics_files.read_metrics_json(alone.artefacts['metrics'].path / 'metrics.json')
  for protocol, value in curve.points[1].mean_average_precision.items():
    assert value == metrics[protocol].mean_average_precision


def test_what_is_refused(config, dataset, tmp_path):
  for thresholds in ([], [0.5, 1.5], [-0.1]):
    with pytest.raises(UserError, match=r'give one or more scores in \[0, 1\]'):
      threshold_curve.run(config, thresholds, dataset, tmp_path, ground_truth='x')
  with pytest.raises(UserError, match='needs queries: give --ground_truth'):
    threshold_curve.run(config, [0.5], type(dataset)(dataset.images), tmp_path, ground_truth='x')
