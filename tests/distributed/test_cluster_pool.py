"""Groups of items over the workers of a cluster: order, bounds, errors, deaths."""

import os
import signal
import sys

import pytest
from support import clusters

from delf_d2r.distributed import cluster, connection
from delf_d2r.errors import ImageError, UserError
from delf_d2r.runtime import worker_pool

pytestmark = pytest.mark.slow


def map_groups(pool, make_function, *, count=6, size=2):
  groups = (range(first, first + size) for first in range(0, count * size, size))
  return worker_pool.map_groups(
    make_function, groups, num_groups=count, workers=pool, lost=lambda item, reason: (item, reason)
  )


def test_results_in_order(pool):
  assert list(map_groups(pool, lambda: clusters.squares)) == [i * i for i in range(12)]
  assert list(map_groups(pool, lambda: clusters.squares, count=0)) == []


def test_groups_are_taken_only_a_little_ahead(pool):
  taken = []

  def groups():
    for number in range(1000):
      taken.append(number)
      yield [number]

  results = pool.map_groups(
    lambda: clusters.squares, groups(), num_groups=1000, uses_network=False, lost=lambda item, reason: None
  )
  assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
  results.close()
  assert len(taken) <= 4 + 2 * worker_pool.AHEAD


def test_only_the_item_that_kills_is_lost(pool):
  found = list(map_groups(pool, lambda: clusters.dying_at_4, size=3))
  item, reason = found.pop(4)
  assert found == [i * i for i in range(18) if i != 4]
  assert item == 4
  assert reason.startswith('killed each of 3 workers')


def test_error_of_an_item_arrives_in_its_place(pool):
  results = map_groups(pool, lambda: clusters.failing_at_3, size=1)
  assert [next(results) for _ in range(3)] == [0, 1, 2]
  with pytest.raises(ImageError, match=r'^x\.jpg: broken$'):
    next(results)


def test_error_of_making_the_function_arrives_as_it_is(pool):
  def broken():
    raise UserError('no such model')

  with pytest.raises(UserError, match=r'^no such model$'):
    list(map_groups(pool, broken))


def test_workers_that_die_while_they_start(pool):
  with pytest.raises(
    UserError, match='3 workers of the cluster died in a row while they loaded their models'
  ):
    list(map_groups(pool, lambda: os.kill(os.getpid(), signal.SIGKILL)))


def test_no_machine_has_room(pool, nodes):
  greedy = cluster.pool(nodes.address, gpus_per_worker=0.5)
  arguments = {'num_groups': 1, 'lost': lambda item, reason: None}
  with pytest.raises(
    UserError, match=r'room for 0 workers of 1 CPUs and 0.5 GPUs, 1 are wanted.* 1 CPUs and 0 GPUs, 1'
  ):
    list(greedy.map_groups(lambda: clusters.squares, [[3]], uses_network=True, **arguments))
  # Without a network it asks for none.
  assert list(greedy.map_groups(lambda: clusters.squares, [[3]], uses_network=False, **arguments)) == [9]


@pytest.mark.parametrize(
  ('address', 'problem'),
  [
    ('127.0.0.1:1', 'nobody answers at 127.0.0.1:1, which Ray takes for .*:1 '),
    ('cluster', 'expected HOST:PORT'),
    ('127.0.0.1:65536', 'expected HOST:PORT'),
  ],
)
def test_no_cluster_at_the_address(monkeypatch, address, problem):
  ray = pytest.importorskip('ray', reason='Ray, the extra `cluster`, is not installed')
  monkeypatch.setattr(ray, 'is_initialized', lambda: False)
  with pytest.raises(UserError, match=f'--cluster={address}: {problem}.*Start a cluster by'):
    connection.connect(address)
  with pytest.raises(UserError, match=f'--cluster={address}: {problem}'):
    cluster.pool(address)


def test_without_ray(monkeypatch):
  for module in [name for name in sys.modules if name.startswith('delf_d2r.distributed.')]:
    monkeypatch.delitem(sys.modules, module)
  monkeypatch.setitem(sys.modules, 'ray', None)
  with pytest.raises(
    UserError, match=r"needs Ray, which is not installed: pip install 'delf_d2r\[cluster\]'"
  ):
    cluster.pool('local')
