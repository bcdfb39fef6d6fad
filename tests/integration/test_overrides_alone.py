"""Commands with --override and without --config_path, which change the defaults; and with neither."""

import pathlib
import subprocess
import sys

import pytest
from PIL import Image
from support.synthetic_photos import texture

from delf_d2r.data.artefacts.artefact import Artefact

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Each command that reads a part of a config, with the flags that it requires.
STAGES = {
  'detect_boxes': ('images', 'output'),
  'extract_features': ('images', 'output'),
  'train_codebook': ('features', 'output'),
  'aggregate_features': ('features', 'codebook', 'output'),
  'build_index': ('descriptors', 'codebook', 'output'),
  'train_delf': ('photos', 'output'),
  'train_detector': ('records', 'output'),
}


def d2r(command, *overrides, **flags):
  arguments = [f'--{name}={value}' for name, value in flags.items()]
  return subprocess.run(
    [
      sys.executable,
      str(REPOSITORY / 'tools' / f'{command}.py'),
      *arguments,
      *map('--override={}'.format, overrides),
    ],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )


@pytest.fixture
def photos(tmp_path):
  folder = tmp_path / 'photos'
  folder.mkdir()
  for seed in range(3):
    Image.fromarray(texture(seed=seed)).save(folder / f'{seed}.png')
  return folder


def test_detect_boxes(tmp_path, photos):
  out = tmp_path / 'boxes'
  done = d2r(
    'detect_boxes', 'regions { source: UNIFORM uniform { boxes_per_side: 2 } }', images=photos, output=out
  )
  assert done.returncode == 0, done.stderr
  found = Artefact.open(out, 'boxes')
  assert found.config.regions.uniform.boxes_per_side == [2]
  assert found.counts['images'] == 3


@pytest.mark.slow
def test_from_photos_to_an_index(tmp_path, photos):
  out = {name: tmp_path / name for name in ('features', 'codebook', 'descriptors', 'index')}
  steps = [
    ('extract_features', 'extraction.extractor: ROOT_SIFT', {'images': photos, 'output': out['features']}),
    ('train_codebook', 'codebook.num_words: 8', {'features': out['features'], 'output': out['codebook']}),
    (
      'aggregate_features',
      'aggregation.num_assignments: 2',
      {'features': out['features'], 'codebook': out['codebook'], 'output': out['descriptors']},
    ),
    (
      'build_index',
      'aggregation { num_assignments: 2 alpha: 2 }',
      {'descriptors': out['descriptors'], 'codebook': out['codebook'], 'output': out['index']},
    ),
  ]
  for command, override, flags in steps:
    done = d2r(command, override, **flags)
    assert done.returncode == 0, done.stderr
  assert Artefact.open(out['index'], 'index').config.aggregation.alpha == 2


@pytest.mark.slow
@pytest.mark.parametrize('command', STAGES)
def test_neither_config_nor_override(tmp_path, command):
  flags = {name: tmp_path / name for name in STAGES[command]}
  done = d2r(command, **flags)
  assert done.returncode != 0
  assert 'neither --config_path nor --override is given' in done.stderr
  assert 'Traceback' not in done.stderr
