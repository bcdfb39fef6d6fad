"""Conversion of single files, folders and boxes, the choice of a conversion, and the command."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import legacy_files, stored_features

from delf_d2r import config as configs
from delf_d2r.conversion import run
from delf_d2r.conversion.run import Options
from delf_d2r.data.artefacts import artefact_writer, records
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.legacy import datum
from delf_d2r.errors import UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.structures import Boxes

METRICS = """hard
  mAP=47.61
  mP@k[ 1  5 10] [84.29 73.71 64.43]
  mR@k[ 1  5 10] [18.84 29.44 36.82]
medium
  mAP=73.3
  mP@k[ 1  5 10] [97.14 94.57 90.14]
  mR@k[ 1  5 10] [10.14 26.2  34.75]
"""


def test_metrics_there_and_back(tmp_path):
  (tmp_path / 'metrics.txt').write_text(METRICS)
  run.run(tmp_path / 'metrics.txt', tmp_path / 'out' / 'metrics.json')
  found = metrics_files.read_metrics_json(tmp_path / 'out' / 'metrics.json')
  assert found['medium'].mean_average_precision == pytest.approx(0.733)
  assert found['hard'].mean_precision == pytest.approx((0.8429, 0.7371, 0.6443))
  run.run(tmp_path / 'out' / 'metrics.json', tmp_path / 'again.txt')
  assert (tmp_path / 'again.txt').read_text() == METRICS


def test_metrics_of_an_artefact(tmp_path):
  plan = Plan('metrics', configs.default('evaluation'), ())
  with artefact_writer.writing(tmp_path / 'metrics', plan) as writer:
    (tmp_path / 'metrics' / 'metrics.txt').write_text(METRICS)
    writer.finish()
  run.run(tmp_path / 'metrics', tmp_path / 'results' / 'metrics.txt')
  assert (tmp_path / 'results' / 'metrics.txt').read_text() == METRICS


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (METRICS[:100], r'metrics\.txt, line 5: .*whole and unedited'),
    ('', r'metrics\.txt: expected one list of ks in all sections, found \[\]'),
  ],
)
def test_metrics_that_are_none(tmp_path, text, message):
  (tmp_path / 'metrics.txt').write_text(text)
  with pytest.raises(UserError, match=message):
    run.run(tmp_path / 'metrics.txt', tmp_path / 'metrics.json')


@pytest.mark.parametrize(
  'array', [legacy_files.unit(4), np.zeros((0, 3), np.float32), np.arange(6, dtype=np.uint32).reshape(2, 3)]
)
def test_tensors_there_and_back(tmp_path, array):
  (tmp_path / 'x.datum').write_bytes(legacy_files.datum(array))
  run.run(tmp_path / 'x.datum', tmp_path / 'x.npy')
  found = np.load(tmp_path / 'x.npy')
  assert found.dtype == array.dtype
  np.testing.assert_array_equal(found, array)
  run.run(tmp_path / 'x.npy', tmp_path / 'y.datum')
  assert (tmp_path / 'y.datum').read_bytes() == legacy_files.datum(array)


def test_folders_of_tensors(tmp_path):
  (tmp_path / 'pca' / 'deep').mkdir(parents=True)
  (tmp_path / 'pca' / 'mean.datum').write_bytes(legacy_files.datum(np.ones(3, np.float32)))
  (tmp_path / 'pca' / 'deep' / 'm.datum').write_bytes(legacy_files.datum(legacy_files.unit(2)))
  run.run(tmp_path / 'pca', tmp_path / 'npy')
  np.testing.assert_array_equal(np.load(tmp_path / 'npy' / 'deep' / 'm.npy'), legacy_files.unit(2))
  run.run(tmp_path / 'npy', tmp_path / 'back')
  for file in ('mean.datum', 'deep/m.datum'):
    assert (tmp_path / 'back' / file).read_bytes() == (tmp_path / 'pca' / file).read_bytes()


@pytest.mark.parametrize(
  ('name', 'data', 'message'),
  [
    ('x.datum', legacy_files.datum(np.ones(3, np.float32))[:-1], r'x\.datum: not readable as a \.datum file'),
    ('x.datum', legacy_files.datum(np.full(3, np.nan, np.float32)), r'x\.datum: .*not finite'),
    ('x.datum', legacy_files.boxes([(0, 0, 1, 1, 0.5)]), r'x\.datum: not readable'),
    ('x.npy', b'this is none', r'x\.npy: cannot be converted to a \.datum file'),
  ],
)
def test_bad_tensors_are_named(tmp_path, name, data, message):
  (tmp_path / name).write_bytes(data)
  other = '.npy' if name.endswith('datum') else '.datum'
  with pytest.raises(UserError, match=message):
    run.run(tmp_path / name, tmp_path / f'y{other}')


def test_tensors_that_a_datum_cannot_hold(tmp_path):
  np.save(tmp_path / 'x.npy', np.arange(3))
  with pytest.raises(UserError, match=r'x\.npy: cannot be converted .* found int64'):
    run.run(tmp_path / 'x.npy', tmp_path / 'x.datum')


def test_boxes_there_and_back(tmp_path):
  legacy_files.photos(tmp_path / 'photos', {'a.jpg': (20, 30), 'b.jpg': (20, 30)})
  (tmp_path / 'boxes').mkdir()
  rows = [(0.1, 0.2, 0.9, 0.8, 0.75), (0.0, 0.0, 1.0, 0.5, 0.25)]
  (tmp_path / 'boxes' / 'a.boxes').write_bytes(legacy_files.boxes(rows))
  (tmp_path / 'boxes' / 'b.boxes').write_bytes(b'')
  run.run(tmp_path / 'boxes', tmp_path / 'out', Options(images=str(tmp_path / 'photos')))
  found = dict(map(records.decode_boxes, Artefact.open(tmp_path / 'out', 'boxes').records()))
  assert_allclose(found['a.jpg'].coordinates, [row[:4] for row in rows])
  run.run(tmp_path / 'out', tmp_path / 'back')
  for name in ('a.boxes', 'b.boxes'):
    assert (tmp_path / 'back' / name).read_bytes() == (tmp_path / 'boxes' / name).read_bytes()
  with pytest.raises(
    UserError, match=r"holds boxes, which cannot be converted to 'npz'; possible: --to=research$"
  ):
    run.run(tmp_path / 'out', tmp_path / 'npz', Options(to='npz'))


def test_what_is_not_known(tmp_path):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'a.xyz').write_text('a')
  for source, message in (
    ('absent', 'no such file, folder or checkpoint'),
    ('folder', r'no artefact, no checkpoint and no \.delf'),
    ('a.xyz', r"no conversion from '\.xyz' to '\.npy' files; known: \.datum to \.npy"),
  ):
    with pytest.raises(UserError, match=message):
      run.run(tmp_path / source, tmp_path / 'out.npy')
  (tmp_path / 'folder' / 'a.delf').write_bytes(b'')
  with pytest.raises(UserError, match='needs --images: a folder of photos'):
    run.run(tmp_path / 'folder', tmp_path / 'out')
  legacy_files.photos(tmp_path / 'photos', {'a.jpg': (20, 30)})
  with pytest.raises(UserError, match='needs --config_path: the delf_config'):
    run.run(tmp_path / 'folder', tmp_path / 'out', Options(images=str(tmp_path / 'photos')))


def test_a_run_is_no_folder_of_files(tmp_path):
  run_dir = tmp_path / 'run'
  for place, kind, file in (
    ('codebook', 'codebook', 'codebook.npy'),
    ('rankings', 'rankings', 'best_regions.npy'),
    ('index', 'index', 'boxes.npy'),
    ('with_distractors/metrics', 'metrics', 'x.npy'),
  ):
    with artefact_writer.writing(run_dir / place, Plan(kind, configs.default('search'), ())) as writer:
      np.save(run_dir / place / file, np.ones(3, np.float32))
      writer.finish()
  (run_dir / 'config.pbtxt').write_text('')
  with pytest.raises(UserError, match=r'run: a run, .* one of codebook, rankings, with_distractors/metrics$'):
    run.run(run_dir, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_what_is_unfinished_is_no_folder_of_files(tmp_path):
  with artefact_writer.writing(tmp_path / 'codebook', Plan('codebook', configs.default('codebook'), ())):
    np.save(tmp_path / 'codebook' / 'codebook.npy', np.ones((2, 3), np.float32))
  with pytest.raises(UserError, match='no finished artefact there'):
    run.run(tmp_path / 'codebook', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_names_that_only_extensions_tell_apart(tmp_path):
  plan = Plan('boxes', configs.default('regions'), ())
  with artefact_writer.writing(tmp_path / 'boxes', plan) as writer:
    for shard in writer.ledger.missing(3, 3):
      with writer.ledger.write(shard) as file:
        for name in ('0.jpg', 'a.JPG', 'a.jpg'):
          file.add(records.encode_boxes(name, Boxes.empty()), images=1)
    writer.finish()
  message = r"out/a: would be the file of 'a\.JPG' and of 'a\.jpg'"
  with pytest.raises(UserError, match=message):
    run.run(tmp_path / 'boxes', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_the_command(tmp_path):
  (tmp_path / 'metrics.txt').write_text(METRICS)
  script = 'import sys; from delf_d2r import command_line; sys.argv[0] = "d2r"; command_line.main()'
  command = [sys.executable, '-c', script, 'convert', f'--input={tmp_path / "metrics.txt"}']
  done = subprocess.run(
    [*command, f'--output={tmp_path / "m.json"}'], capture_output=True, text=True, check=False
  )
  assert (done.returncode, done.stderr) == (0, '')
  done = subprocess.run(
    [*command, f'--output={tmp_path / "m.json"}'], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0
  assert f'convert: {tmp_path / "m.json"} is up to date, skipped' in done.stderr
  (tmp_path / 'm.json').write_text('{}')
  done = subprocess.run(
    [*command, f'--output={tmp_path / "m.json"}'], capture_output=True, text=True, check=False
  )
  assert done.returncode == 1
  assert 'm.json: exists with other contents (2 bytes there' in done.stderr


def test_what_is_there_already_is_up_to_date(tmp_path, caplog):
  caplog.set_level(logging.INFO, logger='absl')
  (tmp_path / 'folder').mkdir()
  for name in ('a.npy', 'b.npy'):
    np.save(tmp_path / 'folder' / name, np.arange(3, dtype=np.float32))
  features = stored_features.write_features(tmp_path / 'features', stored_features.index_images()).path
  conversions = [
    (tmp_path / 'folder', tmp_path / 'datum', 'research'),
    (tmp_path / 'folder' / 'a.npy', tmp_path / 'a.datum', 'research'),
    (features, tmp_path / 'delf', 'research'),
    (features, tmp_path / 'npz', 'npz'),
    (features, tmp_path / 'f.h5', 'hdf5'),
  ]
  for source, output, to in conversions:
    for times, told in enumerate([False, True, True]):
      caplog.clear()
      run.run(source, output, Options(to=to))
      assert (f'convert: {output} is up to date, skipped' in caplog.text) == told, (output, times)
  (tmp_path / 'datum' / 'b.datum').unlink()
  caplog.clear()
  run.run(tmp_path / 'folder', tmp_path / 'datum')
  assert 'up to date' not in caplog.text


def test_an_output_may_be_a_link_or_a_device(tmp_path):
  np.save(tmp_path / 'mean.npy', np.arange(3, dtype=np.float32))
  (tmp_path / 'link').mkdir()
  for name, target in (('mean.datum', tmp_path / 'there.datum'), ('null.datum', '/dev/null')):
    (tmp_path / 'link' / name).symlink_to(target)
    for _ in range(2):
      run.run(tmp_path / 'mean.npy', tmp_path / 'link' / name)
    assert (tmp_path / 'link' / name).is_symlink()
  assert datum.read(tmp_path / 'there.datum').tolist() == [0, 1, 2]
