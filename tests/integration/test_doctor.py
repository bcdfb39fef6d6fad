"""d2r doctor: each defect of a small run gives a finding with a remedy; a sound run gives none."""

import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from google.protobuf import text_format
from support import tfrecord_files

from delf_d2r.data import files
from delf_d2r.data.artefacts import records, tfrecord
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, read_manifest
from delf_d2r.data.artefacts.artefact_writer import PARTIAL_MANIFEST
from delf_d2r.doctor import inspect
from delf_d2r.doctor.findings import Severity
from delf_d2r.engine import SearchEngine
from delf_d2r.stages import split_index
from delf_d2r.structures import Boxes

pytestmark = pytest.mark.slow


@pytest.fixture
def run_dir(finished_dir, tmp_path):
  """A copy of a finished run, to damage."""
  shutil.copytree(finished_dir, tmp_path / 'run')
  return tmp_path / 'run'


def write_manifest(path, manifest):
  (path / MANIFEST).write_text(text_format.MessageToString(manifest, as_utf8=True))


def rewrite(path, change):
  """Changes the records of the first shard, a list to a list, and adapts the manifest."""
  manifest = read_manifest(path / MANIFEST)
  shard = manifest.shards[0]
  file = path / shard.file
  changed = change(list(tfrecord.read_file(file)))
  manifest.bytes -= file.stat().st_size
  shard.records, shard.bytes = tfrecord_files.write(file, changed), file.stat().st_size
  shard.crc32c = files.crc32c(file)
  manifest.bytes += shard.bytes
  write_manifest(path, manifest)


def change_features(make):
  """Returns a function that changes the features of the first image."""

  def change(data):
    image = records.decode_features(data[0])
    features = dataclasses.replace(
      image.features, descriptors=image.features.descriptors.copy(), locations=image.features.locations.copy()
    )
    return [records.encode_features(make(dataclasses.replace(image, features=features))), *data[1:]]

  return change


def without_features(image):
  r = image.num_regions
  return dataclasses.replace(
    image, region_offsets=np.zeros(r + 1, np.int64), features=image.features.take(slice(0))
  )


def with_nan(image):
  image.features.descriptors[3, 5] = np.nan
  return image


def doubled(image):
  image.features.descriptors[3] *= 2
  return image


def far_away(image):
  image.features.locations[0] = (1e6, 3)
  return image


def restamp(path):
  """Writes the checksum of a file's present contents into the manifest."""
  manifest = read_manifest(path.parent / MANIFEST)
  (file,) = (file for file in manifest.side_files if file.file == path.name)
  manifest.bytes += path.stat().st_size - file.bytes
  file.bytes, file.crc32c = path.stat().st_size, files.crc32c(path)
  write_manifest(path.parent, manifest)


def change_array(path, change):
  """Changes an array, and adapts the manifest."""
  array = np.array(np.load(path))
  change(array)
  files.save_array(path, array)
  restamp(path)


def flip_bit(path, position=-40):
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(data)


def cut(path):
  path.write_bytes(path.read_bytes()[:-1])


def shard(run_dir, kind):
  return sorted((run_dir / kind).glob('*.tfrecord'))[0]


def bad_boxes(data):
  name, boxes = records.decode_boxes(data[0])
  boxes = Boxes(boxes.coordinates[:, [2, 1, 0, 3]], boxes.scores)
  return [records.encode_boxes(name, boxes), *data[1:]]


def no_words(data):
  image = records.decode_descriptors(data[0])
  (descriptor,) = image.descriptors
  empty = dataclasses.replace(
    descriptor, visual_words=descriptor.visual_words[:0], values=descriptor.values[:0]
  )
  return [records.encode_descriptors(dataclasses.replace(image, descriptors=[empty])), *data[1:]]


def foreign_fingerprint(run_dir):
  path = run_dir / 'features'
  manifest = read_manifest(path / MANIFEST)
  manifest.fingerprint = '0' * 16
  write_manifest(path, manifest)


def unfinish(run_dir):
  os.replace(run_dir / 'rankings' / MANIFEST, run_dir / 'rankings' / PARTIAL_MANIFEST)


def other_codebook(run_dir):
  change_array(run_dir / 'index' / 'codebook.npy', lambda array: array.__setitem__((0, 0), 0.5))


def copied_words(run_dir):
  for kind in ('codebook', 'index'):
    change_array(run_dir / kind / 'codebook.npy', lambda array: array.__setitem__(1, array[0]))


def empty_words(run_dir):
  report = run_dir / 'codebook' / 'report.json'
  report.write_text(json.dumps({**json.loads(report.read_text()), 'empty_words': 200}, indent=1) + '\n')
  restamp(report)


def damaged_metrics(run_dir):
  metrics = run_dir / 'metrics' / 'metrics.json'
  metrics.write_text('{"a": ' + ' ' * 900)
  restamp(metrics)


# name: (change of the run, severity, place, problem)
DEFECTS = {
  'image without features': (
    lambda run: rewrite(run / 'features', change_features(without_features)),
    Severity.WARNING,
    'features',
    'images without features: 1 (scene_00000.jpg)',
  ),
  'NaN in features': (
    lambda run: rewrite(run / 'features', change_features(with_nan)),
    Severity.ERROR,
    'features',
    'not finite: 1 (scene_00000.jpg)',
  ),
  'row of another length': (
    lambda run: rewrite(run / 'features', change_features(doubled)),
    Severity.ERROR,
    'features',
    'not of length 1: 1 (scene_00000.jpg)',
  ),
  'feature outside the photo': (
    lambda run: rewrite(run / 'features', change_features(far_away)),
    Severity.ERROR,
    'features',
    'outside the photo: 1 (scene_00000.jpg)',
  ),
  'image that is there twice': (
    lambda run: rewrite(run / 'features', lambda data: [data[0], data[0], *data[2:]]),
    Severity.ERROR,
    'features',
    'images that occur twice: 1 (scene_00000.jpg)',
  ),
  'record that is missing': (
    lambda run: rewrite(run / 'descriptors', lambda data: data[1:]),
    Severity.ERROR,
    'descriptors',
    'the manifest says 28 images, there are 27',
  ),
  'images of another artefact': (
    lambda run: rewrite(run / 'descriptors', lambda data: data[::-1]),
    Severity.ERROR,
    'descriptors',
    'its 28 images are not the 28 of',
  ),
  'box without area': (
    lambda run: rewrite(run / 'boxes', bad_boxes),
    Severity.ERROR,
    'boxes',
    'without area: 1 (scene_00000.jpg)',
  ),
  'image without words': (
    lambda run: rewrite(run / 'descriptors', no_words),
    Severity.WARNING,
    'descriptors',
    'images without visual words: 1 (scene_00000.jpg)',
  ),
  'shard cut by a byte': (
    lambda run: cut(shard(run, 'features')),
    Severity.ERROR,
    'features',
    'bytes, it has',
  ),
  'bit of a shard flipped': (
    lambda run: flip_bit(shard(run, 'features')),
    Severity.ERROR,
    'features-00000-of-00007.tfrecord',
    'expected checksum',
  ),
  'shard that is gone': (lambda run: shard(run, 'boxes').unlink(), Severity.ERROR, 'boxes', 'it is missing'),
  'bit of the index flipped': (
    lambda run: flip_bit(next((run / 'index' / 'inverted').glob('segment-*-values-*'))),
    Severity.ERROR,
    'index',
    'expected checksum',
  ),
  'index cut by a byte': (
    lambda run: cut(next((run / 'index' / 'inverted').glob('segment-*-entry_ids-*'))),
    Severity.ERROR,
    'index',
    'some are missing or truncated',
  ),
  'array cut by a byte': (
    lambda run: cut(run / 'rankings' / 'scores.npy'),
    Severity.ERROR,
    'rankings/scores.npy',
    'bytes, found',
  ),
  'bit of an array flipped': (
    lambda run: flip_bit(run / 'rankings' / 'scores.npy'),
    Severity.ERROR,
    'rankings/scores.npy',
    'expected checksum',
  ),
  'list that is gone': (
    lambda run: (run / 'rankings' / 'queries.json').unlink(),
    Severity.ERROR,
    'rankings/queries.json',
    'No such file',
  ),
  'NaN in scores': (
    lambda run: change_array(
      run / 'rankings' / 'scores.npy', lambda array: array.__setitem__((0, 1), np.nan)
    ),
    Severity.ERROR,
    'rankings/scores.npy',
    'not finite',
  ),
  'ranking that does not descend': (
    lambda run: change_array(
      run / 'rankings' / 'scores.npy', lambda array: array.__setitem__(0, array[0, ::-1])
    ),
    Severity.ERROR,
    'rankings',
    'not in descending order: 1 (astronaut)',
  ),
  'image twice in a ranking': (
    lambda run: change_array(
      run / 'rankings' / 'image_ids.npy', lambda array: array.__setitem__((0, 1), array[0, 0])
    ),
    Severity.ERROR,
    'rankings',
    'has an image twice: 1 (astronaut)',
  ),
  'query that finds nothing': (
    lambda run: change_array(run / 'rankings' / 'scores.npy', lambda array: array.__setitem__(0, 0)),
    Severity.WARNING,
    'rankings',
    'all scores are 0: 1 (astronaut)',
  ),
  'damaged metrics': (
    damaged_metrics,
    Severity.ERROR,
    'metrics/metrics.json',
    'not metrics as they were written',
  ),
  'codebook of another run': (other_codebook, Severity.ERROR, 'index', 'its codebook is not that of'),
  'words that are copies': (copied_words, Severity.ERROR, 'codebook', '1 of 256 visual words are copies'),
  'words without descriptors': (empty_words, Severity.WARNING, 'codebook', '200 of 256 visual words'),
  'edited manifest': (foreign_fingerprint, Severity.ERROR, 'features/manifest.pbtxt', 'edited: its'),
  'damaged manifest': (
    lambda run: (run / 'codebook' / MANIFEST).write_text('kind: "code'),
    Severity.ERROR,
    'codebook',
    'damaged or not a manifest',
  ),
  'manifest on a full disk': (
    lambda run: (run / 'codebook' / MANIFEST).write_text(''),
    Severity.ERROR,
    'codebook/manifest.pbtxt',
    'empty',
  ),
  'unfinished': (unfinish, Severity.WARNING, 'rankings', 'unfinished'),
  'stray shard': (
    lambda run: shutil.copy(shard(run, 'boxes'), run / 'boxes' / 'boxes-00000-of-00002.tfrecord'),
    Severity.WARNING,
    'boxes',
    'shards that the manifest does not name',
  ),
  'temporary file': (
    lambda run: (run / 'boxes' / '.boxes-00000.abc.tmp').write_bytes(b'half'),
    Severity.NOTE,
    'boxes',
    '1 temporary files',
  ),
}


def found(path, severity=Severity.NOTE):
  return [f for f in inspect.diagnose(path).findings if f.severity.value >= severity.value]


def test_sound_run_passes(finished_dir):
  diagnosis = inspect.diagnose(finished_dir)
  assert diagnosis.findings == ()
  assert diagnosis.exit_code == 0
  kinds = ('boxes', 'codebook', 'descriptors', 'features', 'index', 'metrics', 'query_features', 'rankings')
  assert [path.name for path, _ in diagnosis.inspected] == list(kinds)
  assert diagnosis.to_text().endswith('\n\nsound')


def test_a_run_of_before_side_files_were_listed_passes(run_dir):
  for path in run_dir.glob(f'*/{MANIFEST}'):
    manifest = read_manifest(path)
    del manifest.side_files[:]
    write_manifest(path.parent, manifest)
  assert found(run_dir) == []
  cut(run_dir / 'rankings' / 'scores.npy')
  assert any('missing or damaged' in finding.problem for finding in found(run_dir, Severity.ERROR))


@pytest.mark.parametrize('defect', DEFECTS)
def test_defect_is_found(run_dir, defect):
  damage, severity, place, problem = DEFECTS[defect]
  damage(run_dir)
  diagnosis = inspect.diagnose(run_dir)
  texts = [str(finding) for finding in diagnosis.findings]
  assert any(
    finding.severity is severity and place in finding.place and problem in finding.problem and finding.remedy
    for finding in diagnosis.findings
  ), texts
  assert diagnosis.exit_code == max(finding.severity.value for finding in diagnosis.findings)


@pytest.mark.parametrize(
  'overrides', [['verification { }', 'expansion { }'], ['aggregation { kernel: VLAD }']]
)
def test_other_kinds_of_runs_pass(run, finished, tmp_path, overrides):
  given = {kind: finished.artefacts[kind] for kind in ('boxes', 'features', 'codebook', 'query_features')}
  run(*overrides, output=tmp_path / 'run', given=given)
  assert found(tmp_path / 'run', Severity.WARNING) == []


def test_region_masks_pass_and_are_looked_at(run, finished, tmp_path):
  given = {kind: finished.artefacts[kind] for kind in ('boxes', 'features', 'codebook', 'query_features')}
  overrides = ['aggregation { regions: REGIONAL_AGGREGATION region_masks: true }']
  run(*overrides, output=tmp_path / 'run', given=given)
  assert found(tmp_path / 'run', Severity.WARNING) == []

  def spoil(data):
    image = records.decode_descriptors(data[0])
    first = dataclasses.replace(image.descriptors[0], region_masks=None)
    return [records.encode_descriptors(dataclasses.replace(image, descriptors=[first])), *data[1:]]

  rewrite(tmp_path / 'run' / 'descriptors', spoil)
  (problem,) = found(tmp_path / 'run', Severity.WARNING)
  assert 'not with region masks: 1 (scene_00000.jpg)' in problem.problem


@pytest.mark.parametrize('kernel', ['VLAD', 'ASMK'])
def test_regional_search_passes_and_its_values_are_looked_at(run, finished, tmp_path, kernel):
  given = {kind: finished.artefacts[kind] for kind in ('boxes', 'features', 'codebook', 'query_features')}
  overrides = ['aggregation.regions: REGIONAL_SEARCH', f'aggregation.kernel: {kernel}']
  run(*overrides, output=tmp_path / 'run', given=given)
  assert found(tmp_path / 'run', Severity.WARNING) == []

  def spoil(data):
    image = records.decode_descriptors(data[0])
    values = image.descriptors[0].values.copy()
    values[0] = np.nan
    first = dataclasses.replace(image.descriptors[0], values=values)
    return [
      records.encode_descriptors(dataclasses.replace(image, descriptors=[first, *image.descriptors[1:]])),
      *data[1:],
    ]

  rewrite(tmp_path / 'run' / 'descriptors', spoil)
  (problem,) = found(tmp_path / 'run', Severity.WARNING)
  assert 'not finite: 1 (scene_00000.jpg)' in problem.problem


def test_input_that_was_made_anew_is_stale(run, run_dir, finished):
  given = {kind: finished.artefacts[kind] for kind in ('features', 'query_features')}
  shutil.rmtree(run_dir / 'codebook')
  run('codebook.num_words: 64', output=run_dir.with_name('other'), given=given)
  shutil.copytree(run_dir.with_name('other') / 'codebook', run_dir / 'codebook')
  # The manifests name the original of this copy, which still exists.
  for kind in ('descriptors', 'index'):
    manifest = read_manifest(run_dir / kind / MANIFEST)
    for item in manifest.inputs:
      item.path = item.path.replace(str(finished.artefacts['index'].path.parent), str(run_dir))
    write_manifest(run_dir / kind, manifest)
  problems = [f for f in found(run_dir, Severity.ERROR) if 'stale: made from codebook' in f.problem]
  assert [os.path.basename(f.place) for f in problems] == ['descriptors', 'index']


@pytest.fixture
def own_photos(run, load, benchmark, tmp_path):
  """The features of photos that may be changed."""
  from delf_d2r.data.photos.dataset import Dataset
  from delf_d2r.stages import extract_features

  folder = tmp_path / 'photos'
  folder.mkdir()
  for photo in sorted(benchmark.images_dir.iterdir())[:3]:
    shutil.copy(photo, folder)
  (folder / 'broken.jpg').write_bytes(b'no photo')
  extract_features.run(load(), Dataset.load(folder), tmp_path / 'features', boxes=None, workers=1)
  return folder


def test_photos_that_were_not_touched_are_not_stale(own_photos):
  (problem,) = found(own_photos.parent / 'features')
  assert (problem.severity, problem.problem) == (
    Severity.WARNING,
    '1 photos could not be read, for example broken.jpg',
  )


@pytest.mark.parametrize(
  ('change', 'severity', 'problem'),
  [
    (lambda folder: flip_bit(folder / 'scene_00000.jpg'), Severity.ERROR, 'have changed since'),
    (lambda folder: (folder / 'scene_00001.jpg').unlink(), Severity.ERROR, '1 of its photos are missing'),
    (
      lambda folder: shutil.copy(folder / 'scene_00001.jpg', folder / 'z.jpg'),
      Severity.NOTE,
      '1 photos of',
    ),
    (shutil.rmtree, Severity.NOTE, 'is missing and not compared'),
  ],
)
def test_changed_photos_are_stale(own_photos, change, severity, problem):
  change(own_photos)
  assert any(f.severity is severity and problem in f.problem for f in found(own_photos.parent / 'features'))


def test_changed_ground_truth_and_queries_are_stale(run, load, benchmark, finished, tmp_path):
  from delf_d2r.data.photos.dataset import Dataset
  from delf_d2r.experiments import experiment

  shutil.copytree(benchmark.queries_dir, tmp_path / 'queries')
  truth = shutil.copy(benchmark.ground_truth_path, tmp_path)
  given = {
    kind: finished.artefacts[kind] for kind in ('boxes', 'features', 'codebook', 'descriptors', 'index')
  }
  data = Dataset.load(benchmark.images_dir, ground_truth=truth, query_images=tmp_path / 'queries')
  experiment.run(
    load(), data, tmp_path / 'run', ground_truth=truth, given=given, options=experiment.Options(workers=1)
  )
  assert found(tmp_path / 'run', Severity.WARNING) == []
  flip_bit(next((tmp_path / 'queries').iterdir()))
  (problem,) = found(tmp_path / 'run', Severity.WARNING)
  assert 'query photos' in problem.problem
  document = json.loads((tmp_path / 'ground_truth.json').read_text())
  (tmp_path / 'ground_truth.json').write_text(json.dumps(document) + '\n')
  assert any('ground_truth.json, has changed' in f.problem for f in found(tmp_path / 'run'))


def test_unbalanced_and_dead_words(run_dir):
  directory = run_dir / 'index' / 'inverted'
  from delf_d2r.index.inverted_index import InvertedIndex
  from delf_d2r.kernels.aggregation import Kernel
  from delf_d2r.structures import AggregatedDescriptor

  shutil.rmtree(directory)
  one = AggregatedDescriptor(np.zeros(1, np.uint32), np.zeros((1, 16), np.uint8), 128)
  none = AggregatedDescriptor(np.zeros(0, np.uint32), np.zeros((0, 16), np.uint8), 128)
  names = [f'{number}.jpg' for number in range(20)]
  InvertedIndex.build([one] * 19 + [none], names, num_words=256, kernel=Kernel.ASMK_STAR, directory=directory)
  problems = [f.problem for f in found(directory)]
  assert any('factor 256.0' in problem and 'visual word 0 has 100.0%' in problem for problem in problems)
  assert any('255 of 256 visual words (100%) occur in no image' in problem for problem in problems)
  assert any('images without visual words: 1 (19.jpg)' in problem for problem in problems)


def test_index_that_was_changed_live_is_sound(run_dir, benchmark):
  engine = SearchEngine.load(run_dir / 'index')
  engine.remove([engine.index.image_names[0]])
  engine.save()
  (problem, *others) = found(run_dir / 'index')
  assert problem.problem == 'images were added or removed since it was built'
  assert others == []
  # Artefacts that were made from it before are stale.
  manifest = read_manifest(run_dir / 'rankings' / MANIFEST)
  for item in manifest.inputs:
    item.path = str(run_dir / os.path.basename(item.path))
  write_manifest(run_dir / 'rankings', manifest)
  assert any('stale: made from index' in f.problem for f in found(run_dir, Severity.ERROR))


@pytest.fixture
def split_dir(finished, tmp_path):
  split_index.run(finished.artefacts['index'], tmp_path / 'split', shards=3)
  return tmp_path / 'split'


def test_split_index(split_dir):
  assert found(split_dir, Severity.WARNING) == []
  shutil.copy(split_dir / 'shard-00000-of-00003' / 'split.json', split_dir / 'shard-00002-of-00003')
  restamp(split_dir / 'shard-00002-of-00003' / 'split.json')
  flip_bit(next((split_dir / 'shard-00001-of-00003' / 'inverted').glob('*-values-*')))
  change_array(split_dir / 'front' / 'boxes.npy', lambda array: array.__setitem__((0, 2), -1))
  problems = {os.path.relpath(f.place, split_dir): f.problem for f in found(split_dir, Severity.ERROR)}
  (values,) = (place for place in problems if place.startswith('shard-00001-of-00003/inverted/'))
  assert 'expected checksum' in problems[values]
  assert '10 images, shard 0 of its split has 9' in problems['shard-00002-of-00003']
  assert 'has boxes outside [0, 1]' in problems['front/boxes.npy']


def test_work_in_progress_is_no_warning(run_dir):
  unfinish(run_dir)
  handle = os.open(run_dir / 'rankings', os.O_RDONLY)
  try:
    fcntl.flock(handle, fcntl.LOCK_EX)
    problems = [f for f in found(run_dir) if 'another process is writing' in f.problem]
  finally:
    os.close(handle)
  assert [problem.severity for problem in problems] == [Severity.NOTE]


def test_inspection_changes_nothing(run_dir):
  before = {file: file.stat().st_mtime_ns for file in run_dir.rglob('*')}
  time.sleep(0.01)
  inspect.diagnose(run_dir)
  assert {file: file.stat().st_mtime_ns for file in run_dir.rglob('*')} == before


def test_directory_without_anything_is_an_error(tmp_path):
  diagnosis = inspect.diagnose(tmp_path)
  assert diagnosis.exit_code == 2
  assert 'no artefact' in diagnosis.findings[0].problem
  assert inspect.diagnose(tmp_path / 'missing').exit_code == 2


def test_json_says_what_the_text_says(run_dir):
  unfinish(run_dir)
  document = inspect.diagnose(run_dir).to_document()
  assert json.loads(json.dumps(document)) == document
  assert document['exit_code'] == 1
  assert {item['severity'] for item in document['findings']} == {'warning'}
  assert Artefact.open(run_dir / 'index', 'index').path == run_dir / 'index'


def doctor(*arguments):
  """Returns exit code and standard output of the command."""
  binary = str(pathlib.Path(__file__).parents[2] / 'tools' / 'doctor.py')
  process = subprocess.run([sys.executable, binary, *arguments], capture_output=True, text=True, check=False)
  assert process.stderr == ''
  return process.returncode, process.stdout


def test_command_answers_scripts_by_its_exit_code(finished_dir, run_dir, tmp_path):
  assert doctor(str(finished_dir))[0] == 0
  unfinish(run_dir)
  code, text = doctor(str(finished_dir), str(run_dir))
  assert code == 1
  assert f'warning: {run_dir / "rankings"}: unfinished' in text
  code, text = doctor(str(run_dir), str(tmp_path / 'missing'), '--format=json')
  assert code == 2
  assert [diagnosis['exit_code'] for diagnosis in json.loads(text)] == [1, 2]
