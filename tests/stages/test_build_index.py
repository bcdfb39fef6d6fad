"""An index built by several processes, and what they leave when things go wrong: the bytes of one process."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from support import descriptor_artefacts, tfrecord_files
from support.run_files import contents

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer, codebook_files, index_files
from delf_d2r.data.artefacts.artefact import Plan
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.index import InvertedIndex
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.stages import build_index
from delf_d2r.structures import AggregatedDescriptor

TESTS = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
  descriptor_artefacts.small_segments(monkeypatch)


class Case:
  """Descriptors of 35 images, or of some with several entries, in shards of 5, and their codebook."""

  def __init__(self, folder, *, regional=False, masks=False, count=35):
    self.folder, self.regional = folder, regional
    self.config = descriptor_artefacts.config(regional=regional, masks=masks)
    self.images = descriptor_artefacts.images(count, regional=regional, masks=masks)
    self.descriptors = descriptor_artefacts.write_descriptors(
      folder / 'descriptors', self.images, self.config
    )
    self.codebook = descriptor_artefacts.write_codebook(folder / 'codebook', self.config)

  def expected(self, *more):
    """The files of the index that one process makes without parts."""
    descriptor_artefacts.build_here(
      self.folder / 'expected', [*self.images, *more], self.config, regional=self.regional
    ).close()
    return contents(self.folder / 'expected')

  def build(self, name='index', **options):
    return build_index.run(self.config, self.descriptors, self.codebook, self.folder / name, **options)


def inverted(artefact):
  return contents(artefact.path / index_files.INVERTED)


@pytest.mark.slow
@pytest.mark.parametrize('options', [{}, {'regional': True}, {'masks': True}], ids=str)
def test_bytes_do_not_depend_on_who_works(tmp_path, options):
  case = Case(tmp_path, **options)
  made = [case.build(f'by {workers}', workers=workers) for workers in (1, 2)]
  assert made[0].counts['entries'] == sum(len(image.descriptors) for image in case.images)
  expected = case.expected()
  for artefact in made:
    assert inverted(artefact) == expected
    assert contents(artefact.path) == contents(made[0].path)
    assert not (artefact.path / index_files.PARTS).exists()


def test_distractors_follow_in_the_same_segment(tmp_path):
  case = Case(tmp_path)
  more = descriptor_artefacts.images(6, seed=1)
  distractors = descriptor_artefacts.write_descriptors(tmp_path / 'distractors', more, case.config)
  made = case.build(distractors=distractors, workers=1)
  assert made.counts['images'] == 41
  assert inverted(made) == case.expected(*more)
  boxes = index_files.load_boxes(made.path)
  assert all(np.array_equal(boxes.of(35 + m), image.boxes) for m, image in enumerate(more))


@pytest.mark.parametrize('count', [0, 1, 8, 16])
def test_few_images_and_full_segments(tmp_path, count):
  case = Case(tmp_path, count=count)
  made = case.build(workers=1)
  assert inverted(made) == case.expected()
  assert len(InvertedIndex.load(made.path / index_files.INVERTED, verify=True)) == count


def test_less_memory_makes_the_same_index(tmp_path, monkeypatch):
  monkeypatch.setattr('delf_d2r.index.builder.BLOCK_BYTES', 100, raising=False)
  monkeypatch.setattr('delf_d2r.index.builder.BATCH', 2)
  case = Case(tmp_path)
  assert inverted(case.build(workers=1, memory_budget=200)) == case.expected()


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
  """The command dies within its third segment; the next one keeps two and ends with the same bytes."""
  case = Case(tmp_path)
  script = f"""
    import pathlib, sys
    import pytest
    from support import descriptor_artefacts
    from delf_d2r.data.artefacts.artefact import Artefact
    from delf_d2r.stages import build_index

    folder = pathlib.Path({str(tmp_path)!r})
    descriptor_artefacts.small_segments(pytest.MonkeyPatch())
    descriptor_artefacts.die_after(2)
    descriptors, codebook = (Artefact.open(folder / kind, kind) for kind in ('descriptors', 'codebook'))
    build_index.run(descriptor_artefacts.config(), descriptors, codebook, folder / 'index', workers=1)
  """
  done = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(script)],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    check=False,
    capture_output=True,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr.decode()
  parts = tmp_path / 'index' / index_files.PARTS
  assert sorted(part.name[:6] for part in parts.iterdir()) == ['.00002', '00000', '00001']
  written = {path.stat().st_mtime_ns for path in parts.glob('00000/segment-*')}
  # What is damaged is made again.
  next((parts / '00001').glob('*-values-*')).unlink()
  made = case.build(workers=1)
  assert inverted(made) == case.expected()
  assert not parts.exists()
  segments = (made.path / index_files.INVERTED).glob('segment-00000-*')
  assert {path.stat().st_mtime_ns for path in segments} == written


@pytest.mark.slow
def test_process_that_is_killed(tmp_path, monkeypatch):
  case = Case(tmp_path)
  with monkeypatch.context() as context:
    context.setattr(build_index, 'SegmentWorkerFactory', Deadly)
    with pytest.raises(UserError, match=r'one of 2 worker processes died.*Run the same command again'):
      case.build(workers=2)
  assert inverted(case.build(workers=1)) == case.expected()


class Deadly(build_index.SegmentWorkerFactory):
  """Of two processes the one that gets the third segment is killed."""

  def make(self, job):
    if job.number == 2:
      os.kill(os.getpid(), signal.SIGKILL)
    super().make(job)


def flip(path, position):
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(data)


def test_damaged_shard_is_named(tmp_path):
  case = Case(tmp_path)
  [shard] = tmp_path.glob('descriptors/descriptors-00002-of-*.tfrecord')
  flip(shard, -20)
  with pytest.raises(ArtefactError, match=rf'{shard}: damaged at byte \d+.*run its stage again'):
    case.build()


@pytest.mark.slow
def test_shard_damaged_under_way_is_named_by_the_worker(tmp_path, monkeypatch):
  case = Case(tmp_path)
  jobs = build_index.segment_jobs

  def damaging(*arguments):
    flip(shard, -20)
    return jobs(*arguments)

  [shard] = tmp_path.glob('descriptors/descriptors-00002-of-*.tfrecord')
  monkeypatch.setattr(build_index, 'segment_jobs', damaging)
  with pytest.raises(ArtefactError, match=rf'{shard}: damaged at byte'):
    case.build(workers=2)


def test_record_of_something_else_is_named_with_its_shard(tmp_path):
  case = Case(tmp_path)
  [shard] = tmp_path.glob('descriptors/descriptors-00001-of-*.tfrecord')
  tfrecord_files.write(shard, [b'poison'])
  with pytest.raises(ArtefactError, match=rf'{shard}: a record is no tf\.train\.Example.*aggregate_features'):
    case.build()


@pytest.mark.parametrize('regional', [False, True])
def test_jobs_share_out_all_entries(tmp_path, regional):
  case = Case(tmp_path, regional=regional)
  catalog = build_index.DescriptorCatalog.of([case.descriptors])
  jobs = build_index.segment_jobs(catalog, tmp_path)
  assert [job.entries for job in jobs[:-1]] == [descriptor_artefacts.SEGMENT] * (len(jobs) - 1)
  found = [descriptor for job in jobs for descriptor in job.descriptors()]
  expected = [descriptor for image in case.images for descriptor in image.descriptors]
  assert len(found) == len(expected)
  for ours, theirs in zip(found, expected, strict=True):
    assert np.array_equal(ours.visual_words, theirs.visual_words)
    assert np.array_equal(ours.values, theirs.values)


def test_global_descriptors_are_stored_compactly(tmp_path):
  """The same descriptors as FLOAT32, FLOAT16 and INT8; segments of 8 entries by one and two processes."""
  rng = np.random.default_rng(0)
  rows = rng.standard_normal((21, 1, 32)).astype(np.float32)
  rows /= np.linalg.norm(rows, axis=2, keepdims=True)
  word, box = np.zeros(1, np.uint32), np.array([[0, 0, 1, 1]], np.float32)
  images = [
    ImageDescriptors(f'{number:02d}.jpg', box, [AggregatedDescriptor(word, row, 32)])
    for number, row in enumerate(rows)
  ]
  plain = configs.load_or_default(
    None,
    ['codebook', 'aggregation'],
    overrides=['codebook { source: ORIGIN num_words: 1 }', 'aggregation { kernel: VLAD }'],
  )
  descriptors = descriptor_artefacts.write_descriptors(tmp_path / 'descriptors', images, plain)
  with artefact_writer.writing(tmp_path / 'codebook', Plan('codebook', plain, ())) as writer:
    codebook_files.save_centroids(np.zeros((1, 32), np.float32), tmp_path / 'codebook')
    codebook = writer.finish({'words': 1})
  postings = {}
  for value_type, each in (('FLOAT32', 4 * 32 + 2 + 4), ('FLOAT16', 2 * 32), ('INT8', 32 + 4)):
    compact = configs.default('codebook', 'aggregation')
    compact.CopyFrom(plain)
    if value_type != 'FLOAT32':
      compact.aggregation.value_type = AggregationConfig.ValueType.Value(value_type)
    # How an index stores values makes no other descriptors.
    assert Plan('descriptors', compact, ()).fingerprint == Plan('descriptors', plain, ()).fingerprint
    made = [
      build_index.run(compact, descriptors, codebook, tmp_path / f'{value_type} {workers}', workers=workers)
      for workers in (1, 2)
    ]
    assert inverted(made[0]) == inverted(made[1])
    index = InvertedIndex.load(made[0].path / index_files.INVERTED, verify=True)
    assert index.nbytes - index._state.images.nbytes == 21 * each + (24 if value_type == 'FLOAT32' else 0)
    postings[value_type] = index.search(images[4].descriptors[0], top_k=0)
    assert made[0].config.aggregation.HasField('value_type') == (value_type != 'FLOAT32')
  for ranking in postings.values():
    np.testing.assert_allclose(ranking.scores, postings['FLOAT32'].scores, atol=0.01)
  case = Case(tmp_path / 'other')
  case.config.aggregation.value_type = AggregationConfig.INT8
  with pytest.raises(UserError, match=r'value_type is INT8, .* found ASMK_STAR of 32\. Remove value_type'):
    case.build()
