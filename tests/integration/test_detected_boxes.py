"""A run with detected boxes, a control run with random boxes, and searches in their indexes."""

import pathlib
import subprocess
import sys

import pytest
from numpy.testing import assert_allclose
from support.detection_models import write_tf2

from delf_d2r import config
from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.engine import SearchEngine
from delf_d2r.experiments import comparison, experiment

pytestmark = pytest.mark.slow

CONFIG = """
name: "%s"
regions { source: %s }
extraction {
  max_features: 150 max_image_size: 320 max_crop_size: 320
  root_sift { contrast_threshold: 0.02 }
}
codebook { num_words: 256 iterations: 5 }
aggregation { kernel: ASMK_STAR regions: REGIONAL_AGGREGATION }
"""


@pytest.fixture(scope='module')
def load(tmp_path_factory):
  def load_source(source, *overrides):
    path = tmp_path_factory.mktemp('config') / 'c.pbtxt'
    path.write_text(CONFIG % (source.lower(), source))
    return config.load(path, experiment.STAGES, overrides=overrides)

  return load_source


def test_detected_beside_random_boxes(load, dataset, benchmark, tmp_path):
  model = write_tf2(tmp_path / 'model')
  options = ('regions.min_area: 0.01', 'regions.max_boxes: 1')
  detected = load('DETECTOR', f'regions.detector.model_path: "{model}"', *options)
  random = load('RANDOM', f'regions.random.like: "{tmp_path / "out" / "detector" / "boxes"}"')
  outcome = comparison.run(
    [detected, random],
    dataset,
    tmp_path / 'out',
    ground_truth=benchmark.ground_truth_path,
    boxes_path=benchmark.boxes_path,
    options=experiment.Options(workers=1),
  )
  assert [row.name for row in outcome.rows] == ['detector', 'random']
  aps = [row.mean_average_precision['medium'] for row in outcome.rows]
  assert_allclose(outcome.gains['detector']['medium'].interval.mean, aps[1] - aps[0], atol=1e-12)
  assert 'random over' in comparison.table_text(outcome)
  boxes = [
    [records.decode_boxes(record)[1].coordinates for record in Artefact.open(folder, 'boxes').records()]
    for folder in (tmp_path / 'out' / 'detector' / 'boxes', tmp_path / 'out' / 'random' / 'boxes')
  ]
  assert sum(map(len, boxes[0])) > 0
  for found, other in zip(*boxes, strict=True):
    assert_allclose(found[:, 2:] - found[:, :2], other[:, 2:] - other[:, :2], atol=1e-6)

  # The index can be searched without the detector's model, since queries need no detector.
  (tmp_path / 'model').rename(tmp_path / 'gone')
  engine = SearchEngine.load(tmp_path / 'out' / 'detector')
  name = dataset.images.names[0]
  best = engine.search(dataset.images.path(name), top_k=1).results[0]
  assert best.name == name
  assert_allclose(best.boxes, boxes[0][0])


def detect_boxes(*arguments) -> subprocess.CompletedProcess:
  tool = pathlib.Path(__file__).resolve().parents[2] / 'tools' / 'detect_boxes.py'
  done = subprocess.run(
    [sys.executable, str(tool), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return done


def test_binary_writes_and_reads_the_research_codes_files(benchmark, dataset, tmp_path):
  model = write_tf2(tmp_path / 'model')
  (tmp_path / 'detector.pbtxt').write_text(f'source: DETECTOR detector {{ model_path: "{model}" }}')
  (tmp_path / 'file.pbtxt').write_text('source: FILE')
  images = f'--images={benchmark.images_dir}'
  done = detect_boxes(
    f'--config_path={tmp_path / "detector.pbtxt"}',
    images,
    f'--output={tmp_path / "boxes"}',
    f'--legacy_output={tmp_path / "legacy"}',
    '--workers=1',
  )
  assert f'{len(dataset.images)} .boxes files in {tmp_path / "legacy"}' in done.stderr
  # Two lines besides the progress bar: messages of TensorFlow would hide them.
  lines = [line for line in done.stderr.splitlines() if line and '%|' not in line]
  assert len(lines) == 2, done.stderr
  detect_boxes(
    f'--config_path={tmp_path / "file.pbtxt"}',
    images,
    f'--output={tmp_path / "again"}',
    f'--boxes_file={tmp_path / "legacy"}',
  )
  detected, again = (Artefact.open(tmp_path / name, 'boxes') for name in ('boxes', 'again'))
  assert detected.counts['boxes'] > 0
  assert list(again.records()) == list(detected.records())
