"""Work on several processes: order, errors, deaths, and no orphans."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from support import processes

from delf_d2r.errors import ImageError, UserError
from delf_d2r.runtime import worker_pool


def make_square():
  return square


def square(item):
  return item * item


def make_slow_first():
  return slow_first


def slow_first(item):
  time.sleep(0.2 if item == 0 else 0)
  return item


def make_failing():
  return failing


def failing(item):
  if item == 3:
    raise ImageError('x.jpg: broken')
  return item


def make_dying():
  return dying


def dying(item):
  if item == 3:
    os.kill(os.getpid(), signal.SIGKILL)
  return item


def make_broken():
  raise UserError('no such model')


def make_interrupted():
  return interrupted


def interrupted(item):
  os.kill(os.getpid(), signal.SIGINT)
  return item


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2])
def test_results_in_order(workers):
  assert list(worker_pool.map_ordered(make_square, range(20), workers=workers)) == [i * i for i in range(20)]
  assert list(worker_pool.map_ordered(make_slow_first, range(8), workers=workers)) == list(range(8))
  assert list(worker_pool.map_ordered(make_square, [], workers=workers)) == []


@pytest.mark.parametrize('workers', [1, 2])
def test_error_of_an_item_arrives_in_its_place(workers):
  results = worker_pool.map_ordered(make_failing, range(20), workers=workers)
  assert [next(results) for _ in range(3)] == [0, 1, 2]
  with pytest.raises(ImageError, match=r'x\.jpg: broken'):
    next(results)


@pytest.mark.parametrize('workers', [1, 2])
def test_error_of_making_the_function_arrives_as_it_is(workers):
  with pytest.raises(UserError, match='no such model'):
    list(worker_pool.map_ordered(make_broken, range(20), workers=workers))


def test_worker_that_was_killed():
  with pytest.raises(UserError, match=r'one of 2 worker processes died.*go on from the last finished shard'):
    list(worker_pool.map_ordered(make_dying, range(20), workers=2))


def test_workers_leave_interrupts_to_the_parent():
  assert list(worker_pool.map_ordered(make_interrupted, range(4), workers=2)) == [0, 1, 2, 3]


def test_items_are_taken_only_a_little_ahead():
  taken = []

  def items():
    for item in range(1000):
      taken.append(item)
      yield item

  results = worker_pool.map_ordered(make_square, items(), workers=2)
  for _ in range(3):
    next(results)
  assert len(taken) <= 3 + 2 * 3 + 1
  results.close()
  assert len(taken) < 20


def test_local_function_on_one_worker():
  assert list(worker_pool.map_ordered(lambda: functools.partial(pow, 2), [3, 4], workers=1)) == [8, 16]


THREADS = textwrap.dedent("""
  import os
  import cv2, faiss, threadpoolctl
  from delf_d2r.runtime import worker_pool as parallel

  def limits():
    pools = {pool['num_threads'] for pool in threadpoolctl.threadpool_info()}
    return cv2.getNumThreads(), os.environ.get('TF_NUM_INTRAOP_THREADS'), pools

  before = limits()
  assert before[2] != {1}
  within = list(parallel.map_ordered(lambda: lambda _: limits(), range(2), workers=1))
  assert within == [(1, '1', {1})] * 2, within
  assert limits() == before
""")


def test_one_worker_works_on_one_thread_as_others_do_and_leaves_no_trace():
  """In a process of its own: others have what other tests have loaded."""
  environment = {**os.environ, 'OMP_NUM_THREADS': '2', 'OPENBLAS_NUM_THREADS': '2'}
  subprocess.run([sys.executable, '-c', THREADS], env=environment, check=True, timeout=120)


def test_available_cores():
  assert worker_pool.available_cores() == len(os.sched_getaffinity(0)) >= 1


PARENT = textwrap.dedent("""
  import os, sys, time
  from delf_d2r.runtime import worker_pool as parallel

  class Make:
    def __call__(self):
      open(f'{sys.argv[1]}/{os.getpid()}', 'w').close()
      return work

  def work(item):
    time.sleep(600)

  if __name__ == '__main__':
    list(parallel.map_ordered(Make(), range(9), workers=2))
""")


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
  script = tmp_path / 'parent.py'
  script.write_text(PARENT, encoding='utf-8')
  (tmp_path / 'workers').mkdir()
  parent = subprocess.Popen([sys.executable, script, tmp_path / 'workers'])
  try:
    processes.wait_until(lambda: len(list((tmp_path / 'workers').iterdir())) == 2)
  finally:
    parent.kill()
    parent.wait()
  workers = [int(file.name) for file in (tmp_path / 'workers').iterdir()]
  assert len(workers) == 2
  processes.wait_until(lambda: not any(processes.is_running(worker) for worker in workers))
