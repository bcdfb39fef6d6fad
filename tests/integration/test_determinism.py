"""The demo twice, on one worker and on two: the same bytes of boxes, features, indexes, rankings and metrics.

All its experiments, on fewer and smaller photos. The default networks run for the boxes of the detector, for
the features of photos, boxes and queries, and for the other search. Experiments with other boxes, or none,
differ from these only in their boxes, so theirs are RootSIFT features alone: each stage with a network starts
TensorFlow once for each worker, which takes longer than the photos. Runs that were killed and went on are in
test_faults.py.
"""

import subprocess
import sys
import textwrap

import pytest
from support.run_files import contents

pytestmark = pytest.mark.slow

pytest.importorskip('tensorflow')


# In a process of its own, since TensorFlow keeps its number of threads.
SCRIPT = textwrap.dedent("""
  import pathlib, sys
  from delf_d2r import config
  from delf_d2r.data.scenes import mini_benchmark
  from delf_d2r.data.photos.dataset import Dataset
  from delf_d2r.experiments import comparison, demo, experiment
  from delf_d2r.protos.extraction_pb2 import ExtractionConfig

  NETWORKS = ('d2r_regional_search', 'd2r_rasmk_star', 'default')

  if __name__ == '__main__':
    output = pathlib.Path('demo')
    made = mini_benchmark.generate(output / 'photos', seed=3, scenes_per_object=1, num_distractors=0)
    configs = [
      config.load(f'configs/experiments/mini/{name}.pbtxt', experiment.STAGES, overrides=[
        'extraction { max_features: 60 max_image_size: 240 max_crop_size: 160 min_image_size: 0 }',
        'extraction { min_crop_size: 0 images_per_shard: 5 delf { image_scales: [1.0] } }',
        'regions.max_boxes: 2',
        *([] if name == 'default' else ['codebook { num_words: 128 iterations: 3 }']),
        *(['regions.random.like: "demo/d2r_regional_search/boxes"'] if 'random' in name else []),
      ])
      for name in demo.EXPERIMENTS
    ]
    for config in configs:
      if config.name not in NETWORKS:
        config.extraction.extractor = ExtractionConfig.ROOT_SIFT
        config.extraction.ClearField('delf')
    comparison.run(
      configs,
      Dataset.load(made.images_dir, ground_truth=made.ground_truth_path, query_images=made.queries_dir),
      output,
      ground_truth=made.ground_truth_path,
      boxes_path=made.boxes_path,
      options=experiment.Options(workers=int(sys.argv[1])),
    )
""")


def test_the_demo_twice(tmp_path):
  found = []
  for workers in (1, 2):
    (tmp_path / str(workers)).mkdir()
    (tmp_path / 'script.py').write_text(SCRIPT)
    subprocess.run(
      [sys.executable, tmp_path / 'script.py', str(workers)],
      cwd=tmp_path / str(workers),
      capture_output=True,
      timeout=900,
      check=True,
    )
    found.append(contents(tmp_path / str(workers) / 'demo'))
  one, two = found
  assert one.keys() == two.keys()
  assert [name for name in one if one[name] != two[name]] == []
  kinds = {name.split('/')[1] for name in one if name.endswith('manifest.pbtxt')}
  assert kinds >= {'boxes', 'features', 'codebook', 'descriptors', 'index', 'rankings', 'metrics', 'fused'}
