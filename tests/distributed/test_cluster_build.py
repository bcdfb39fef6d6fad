"""The segments of an index made on a cluster: nothing lost, nothing twice, the bytes of one process."""

import os
import signal

import pytest
from support import clusters, descriptor_artefacts
from support.run_files import contents

from delf_d2r.data.artefacts import index_files
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.stages import build_index

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
  descriptor_artefacts.small_segments(monkeypatch)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Descriptors of 60 images, with up to four entries each, a codebook, and the files of their index."""
  folder = tmp_path_factory.mktemp('built')
  config = descriptor_artefacts.config(regional=True)
  images = descriptor_artefacts.images(60, regional=True)
  descriptor_artefacts.write_descriptors(folder / 'descriptors', images, config)
  descriptor_artefacts.write_codebook(folder / 'codebook', config)
  with pytest.MonkeyPatch.context() as patch:
    descriptor_artefacts.small_segments(patch)
    descriptor_artefacts.build_here(folder / 'expected', images, config, regional=True).close()
  return folder


@pytest.fixture
def build(folder, tmp_path):
  """Runs the stage; its index is in `tmp_path`."""
  descriptors, codebook = (
    descriptor_artefacts.Artefact.open(folder / kind, kind) for kind in ('descriptors', 'codebook')
  )
  return lambda workers: build_index.run(
    descriptors.config, descriptors, codebook, tmp_path / 'index', workers=workers
  )


def disturbed(pool, tmp_path, **options):
  (tmp_path / 'log').mkdir()
  return clusters.Disturbed(pool, tmp_path / 'log', **options)


def is_as_expected(folder, tmp_path):
  assert not (tmp_path / 'index' / index_files.PARTS).exists()
  return contents(tmp_path / 'index' / index_files.INVERTED) == contents(folder / 'expected')


def test_segments_of_a_cluster_are_those_of_one_process(pool, folder, build, tmp_path):
  watched = disturbed(pool, tmp_path)
  build(watched)
  assert is_as_expected(folder, tmp_path)
  assert len(watched.workers()) == 2


def test_worker_that_is_killed(pool, folder, build, tmp_path):
  slow = disturbed(pool, tmp_path, seconds=0.1)
  with slow.after(5, lambda: os.kill(slow.workers()[-1], signal.SIGKILL)):
    build(slow)
  assert len(slow.workers()) == 3
  assert is_as_expected(folder, tmp_path)


def test_machine_that_is_lost(nodes, pool, folder, build, tmp_path):
  slow = disturbed(pool, tmp_path, seconds=0.1)
  node = next(node for node in nodes.worker_nodes)
  with slow.after(5, lambda: nodes.remove_node(node, allow_graceful=False)):
    build(slow)
  nodes.add_node(**clusters.NODE)
  assert is_as_expected(folder, tmp_path)


def test_segment_that_kills_every_worker_stops_the_build_and_keeps_the_others(pool, folder, build, tmp_path):
  with pytest.raises(
    UserError, match=r'segment 5 of the index, 8 entries, killed each of 3 workers.*--sorting_gb'
  ):
    build(disturbed(pool, tmp_path, deadly=5))
  kept = {
    part: part.stat().st_mtime_ns for part in (tmp_path / 'index' / index_files.PARTS).glob('0000[0-4]')
  }
  assert len(kept) == 5
  again = clusters.Disturbed(pool, tmp_path / 'log')
  before = len(list(again.log.iterdir()))
  build(again)
  segments = len(list((folder / 'expected').glob('segment-*-offsets-*')))
  assert len(list(again.log.iterdir())) - before <= segments - 5
  assert is_as_expected(folder, tmp_path)


def test_shard_damaged_under_way_is_named(pool, folder, build, tmp_path, monkeypatch):
  [shard] = folder.glob('descriptors/descriptors-00002-of-*.tfrecord')
  whole, jobs = shard.read_bytes(), build_index.segment_jobs

  def damaging(*arguments):
    shard.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    return jobs(*arguments)

  with monkeypatch.context() as context:
    context.setattr(build_index, 'segment_jobs', damaging)
    with pytest.raises(ArtefactError, match=rf'{shard}: damaged at byte'):
      build(pool)
  shard.write_bytes(whole)
  # What the cluster has begun one process finishes.
  build(1)
  assert is_as_expected(folder, tmp_path)
