"""Files of a folder of photos that are no photos: told by the summary, the report and the doctor."""

import os

import pytest
from PIL import Image
from support.synthetic_photos import texture

from delf_d2r import config as configs
from delf_d2r.doctor import inspect
from delf_d2r.experiments.run_experiment import run_experiment
from delf_d2r.experiments.run_options import Options

pytestmark = pytest.mark.slow


def config():
  text = (
    'regions { source: UNIFORM uniform { boxes_per_side: [2] } }',
    'extraction { max_features: 60 max_image_size: 200 max_crop_size: 200 }',
    'codebook { num_words: 16 iterations: 2 }',
  )
  return configs.load_or_default(None, ['regions', 'extraction', 'codebook'], overrides=text)


@pytest.fixture
def photos(tmp_path):
  folder = tmp_path / 'photos'
  (folder / 'sub').mkdir(parents=True)
  for number, name in enumerate(('a.jpg', 'b.heic', 'c.avif', 'sub/d', 'sub/e_thumb.png')):
    form = {'.heic': 'HEIF', '.avif': 'AVIF', '.png': 'PNG'}.get(os.path.splitext(name)[1], 'JPEG')
    Image.fromarray(texture(160, 200, seed=number)).save(folder / name, form)
  (folder / 'notes.txt').write_text('no photo')
  (folder / 'readme').write_text('no photo')
  os.mkfifo(folder / 'pipe.jpg')
  return folder


def test_files_that_are_left_out_are_told_everywhere(photos, tmp_path):
  told = []
  outcome = run_experiment(
    photos, tmp_path / 'run', config(), exclude=['*_thumb.*'], options=Options(workers=1), report=told.append
  )
  assert outcome.artefacts['index'].counts['images'] == 4
  (line,) = [line for line in told[0].splitlines() if line.startswith('files left out: ')]
  kinds = '1 (no extension), 1 .txt, 1 FIFO, 1 excluded by *_thumb.*'
  assert line == f'files left out: {kinds}'
  assert kinds in outcome.page.read_text(encoding='utf-8')
  # The doctor does not know what was excluded: the photo is one that the run lacks.
  notes = [finding.problem for finding in inspect.diagnose(tmp_path / 'run').findings]
  assert any('3 files or folders' in note and '1 (no extension), 1 .txt, 1 FIFO' in note for note in notes)
  assert any('1 photos of' in note and 'sub/e_thumb.png' in note for note in notes)
