"""The default extractor gives the same bytes on any number of workers.

Of RootSIFT, test_run_experiment.py compares whole runs on one worker and on two, test_faults.py those with
verification and expansion that were killed and went on; what follows the features is the same for all.
"""

import subprocess
import sys
import textwrap

import pytest
from fuzzing import material
from integration_files import contents

pytest.importorskip('tensorflow')

# In a process of its own: TensorFlow keeps the threads that it starts with.
SCRIPT = textwrap.dedent("""
  import pathlib, sys
  from delf_d2r import config
  from delf_d2r.data.dataset import Dataset
  from delf_d2r.stages import extract

  if __name__ == '__main__':
    folder = pathlib.Path(sys.argv[1])
    loaded = config.load_or_default(None, ['extraction'], overrides=[
      'extraction { extractor: ROOT_SIFT_AND_DELF max_features: 60 images_per_shard: 1 }',
      'extraction.delf.image_scales: [1.0]',
    ])
    photos = Dataset.load(folder / 'photos')
    for workers in (1, 2):
      extract.run(loaded, photos, folder / str(workers), boxes=None, workers=workers)
""")


def test_one_worker_and_two(tmp_path):
  (tmp_path / 'photos').mkdir()
  for number in range(3):
    material.photo(number, 200).save(tmp_path / 'photos' / f'{number}.jpg', quality=90)
  (tmp_path / 'script.py').write_text(SCRIPT)
  subprocess.run(
    [sys.executable, tmp_path / 'script.py', tmp_path], capture_output=True, timeout=300, check=True
  )
  one, two = contents(tmp_path / '1'), contents(tmp_path / '2')
  assert one.keys() == two.keys()
  assert [name for name in one if one[name] != two[name]] == []
  assert len([name for name in one if name.endswith('.tfrecord')]) == 3
