"""A training by two processes that a cluster places; what they learn: models/test_training_machines.py."""

import json
import os
import signal
import socket

import pytest

from delf_d2r.distributed import cluster
from delf_d2r.errors import UserError

pytestmark = pytest.mark.slow


def test_every_worker_is_told_its_place_and_those_of_the_others(nodes, tmp_path):
  def train():
    config = json.loads(os.environ['TF_CONFIG'])
    (tmp_path / str(config['task']['index'])).write_text(json.dumps(config))
    return config['task']['index']

  assert cluster.train(train, nodes.address, workers=2) == 0
  first, second = (json.loads((tmp_path / str(index)).read_text()) for index in range(2))
  assert first['cluster'] == second['cluster']
  assert second['task'] == {'type': 'worker', 'index': 1}
  places = [place.rsplit(':', 1) for place in first['cluster']['worker']]
  assert len({port for _, port in places}) == 2
  for host, port in places:
    with socket.socket() as listener:
      listener.bind((host, int(port)))


def test_all_start_again_when_one_dies(nodes, tmp_path):
  def train():
    index = json.loads(os.environ['TF_CONFIG'])['task']['index']
    before = len(list(tmp_path.iterdir()))
    (tmp_path / f'{os.getpid()}-{index}').touch()
    if index == 1 and before < 2:
      os.kill(os.getpid(), signal.SIGKILL)
    return 'trained'

  assert cluster.train(train, nodes.address, workers=2) == 'trained'
  assert sorted(file.name[-1] for file in tmp_path.iterdir()) == ['0', '0', '1', '1']


def test_training_whose_workers_always_die(nodes):
  with pytest.raises(UserError, match='workers of the training died 3 times'):
    cluster.train(lambda: os.kill(os.getpid(), signal.SIGKILL), nodes.address, workers=1)


def test_error_of_the_training_arrives_as_it_is(nodes):
  def train():
    raise UserError('no photos')

  with pytest.raises(UserError, match=r'^no photos$'):
    cluster.train(train, nodes.address, workers=2)


def test_more_workers_than_there_is_room_for(nodes):
  with pytest.raises(UserError, match='room for 2 workers of 1 CPUs and 0 GPUs, 3 are wanted'):
    cluster.train(print, nodes.address, workers=3)
