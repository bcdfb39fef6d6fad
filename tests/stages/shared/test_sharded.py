"""The loop over shards and workers: records, errors, resuming, progress, groups, numbers of workers."""

import pathlib

import pytest

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer
from delf_d2r.data.artefacts.artefact import Input, Plan
from delf_d2r.errors import ImageError, UserError
from delf_d2r.runtime import worker_pool
from delf_d2r.stages.shared import sharded
from delf_d2r.stages.shared.sharded import JobBatch, Options, Outcome

BROKEN = 4
ALONE = Options(workers=1)


class Worker:
  """Makes outcomes of numbers; notes the groups it is given."""

  def __init__(self, *, interrupted_at=None):
    self.groups = []
    self.interrupted_at = interrupted_at

  def __call__(self):
    return self.work

  def work(self, numbers):
    self.groups.append(list(numbers))
    if self.interrupted_at in numbers:
      raise KeyboardInterrupt
    return [outcome(number) for number in numbers]


def outcome(number):
  if number == BROKEN:
    return Outcome(str(number), counts={'broken': 1}, errors=('is broken',))
  return Outcome(str(number), b'%d' % number, {'images': 1, 'sum': number})


def batch(worker, *, total=10, **options):
  def lost(number, reason):
    return Outcome(str(number), errors=(reason,))

  return JobBatch(range(total), total, worker, lost, **options)


def write(path, worker, *, options=ALONE, observe=None, **batch_options):
  plan = Plan('features', configs.default('extraction'), (Input('images', 'x', pathlib.Path('photos')),))
  with artefact_writer.writing(path, plan) as writer:
    if writer.finished:
      return writer.reuse('numbers')
    sharded.write_records(
      writer,
      batch(worker, **batch_options),
      what='numbers',
      per_shard=3,
      options=options,
      observe=observe,
    )
    return writer.finish()


def test_records_counts_and_errors_in_order(tmp_path):
  observed = []
  made = write(tmp_path, Worker(), observe=lambda result: observed.append(result.name))
  assert list(made.records()) == [b'%d' % number for number in range(10) if number != BROKEN]
  assert made.counts == {'images': 9, 'sum': 41, 'broken': 1, 'failed': 1}
  assert artefact_writer.read_errors(made) == [{'name': '4', 'error': 'is broken'}]
  assert observed == [str(number) for number in range(10)]
  assert [shard.records for shard in made.manifest.shards] == [3, 2, 3, 1]


def test_groups_end_with_their_shard(tmp_path):
  worker = Worker()
  write(tmp_path, worker, at_once=2)
  assert worker.groups == [[0, 1], [2], [3, 4], [5], [6, 7], [8], [9]]


def test_a_stopped_run_goes_on_after_its_last_shard(tmp_path, caplog):
  caplog.set_level('INFO', logger='absl')
  with pytest.raises(KeyboardInterrupt):
    write(tmp_path / 'a', Worker(interrupted_at=7))
  worker = Worker()
  resumed = write(tmp_path / 'a', worker)
  assert worker.groups == [[6], [7], [8], [9]]
  assert 'numbers: going on, 6 of 10 are done' in caplog.text
  assert list(resumed.records()) == list(write(tmp_path / 'b', Worker()).records())
  assert write(tmp_path / 'a', Worker()).counts == resumed.counts
  assert f'numbers: {tmp_path / "a"} is up to date, skipped' in caplog.text


def test_strict_stops_at_the_first_error(tmp_path):
  with pytest.raises(ImageError, match=r'is broken \(stopped, because of --strict\)'):
    write(tmp_path, Worker(), options=Options(workers=1, strict=True))


def test_no_jobs_make_one_empty_shard(tmp_path):
  made = write(tmp_path, Worker(), total=0)
  assert [shard.records for shard in made.manifest.shards] == [0]


@pytest.mark.parametrize(
  ('per_process', 'total', 'expected'), [(1, 10, 8), (1, 2, 2), (5, 10, 2), (20, 10, 1), (1, 0, 1)]
)
def test_no_more_processes_than_there_is_work_for(monkeypatch, per_process, total, expected):
  monkeypatch.setattr(worker_pool, 'available_cores', lambda: 8)
  numbers = []
  monkeypatch.setattr(
    worker_pool, 'map_groups', lambda *_, workers, **options: numbers.append(workers) or iter(())
  )
  shards = [sharded.ShardRange(0, 'x', range(total))]
  batch(Worker(), total=total, per_process=per_process).results(shards, None)
  assert numbers == [expected]


def test_an_artefact_without_any_photo_is_refused(tmp_path):
  plan = Plan('features', configs.default('extraction'), (Input('images', 'x', pathlib.Path('photos')),))
  with artefact_writer.writing(tmp_path, plan) as writer:
    sharded.write_results(
      writer,
      lambda shards: (Outcome(str(n), errors=(f'{n}.jpg: no photo',)) for s in shards for n in s.items),
      total=4,
      per_shard=3,
      what='photos',
    )
    with pytest.raises(UserError, match=r'none of the 4 photos could be read: 0\.jpg: no photo; 1\.jpg'):
      sharded.require_some(writer, 'photos')
  assert not list(tmp_path.iterdir())
