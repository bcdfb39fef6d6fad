"""Two machines, two processes here, learn what one does of the same batches."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import textwrap

import pytest
from support import tiny_delf_training

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]

MACHINE = """
  import json, sys, tensorflow as tf
  sys.path.insert(0, 'tests')
  from support import tiny_delf_training
  from delf_d2r.data.training import training_examples
  from delf_d2r.models.training import distributed_training
  from delf_d2r.models.delf import training, training_data
  # Batch statistics are those of each replica, so they are left out of the comparison.
  config = tiny_delf_training.load(
    tiny_delf_training.TINY, 'freeze_batch_norm: true', 'strategy: MULTI_WORKER',
    'model { num_classes: 3 } optimizer { clip_norm: 1 } loss { attention_weight: 0 }').training
  strategy = distributed_training.make_strategy(config)
  photos = training_examples.load(sys.argv[1])
  def steps(strategy):
    trainer = training.Trainer(config, strategy)
    batches = trainer.batches(training_data.Batches(config, photos), 0)
    return [trainer.step(next(batches), step) for step in range(3)]
  found = {'replicas': strategy.num_replicas_in_sync, 'together': steps(strategy)}
  if distributed_training.is_chief(strategy):
    found['alone'] = steps(tf.distribute.OneDeviceStrategy('cpu:0'))
  print(json.dumps(found))
"""


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def start(index, machines, photos):
  cluster = {'cluster': {'worker': machines}, 'task': {'type': 'worker', 'index': index}}
  return subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(MACHINE), str(photos)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=REPOSITORY,
    env={
      **os.environ,
      'TF_CONFIG': json.dumps(cluster),
      'TF_CPP_MIN_LOG_LEVEL': '3',
      'CUDA_VISIBLE_DEVICES': '',
      'GRPC_ENABLE_FORK_SUPPORT': '0',
    },
  )


def test_two_machines_learn_what_one_does(tmp_path):
  photos = tiny_delf_training.write_photos(tmp_path / 'photos')
  machines = [f'127.0.0.1:{free_port()}' for _ in range(2)]
  processes = [start(index, machines, photos) for index in range(2)]
  try:
    answers = [process.communicate(timeout=200) for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], answers[0][1][-3000:]
  first, second = (json.loads(output.splitlines()[-1]) for output, _ in answers)
  assert first['replicas'] == second['replicas'] == 2
  assert first['together'] == second['together']
  assert len({step['loss'] for step in first['alone']}) == 3
  for together, alone in zip(first['together'], first['alone'], strict=True):
    assert together.keys() == alone.keys()
    for name, value in alone.items():
      assert abs(together[name] - value) <= 1e-5 * abs(value) + 1e-6, (name, together[name], value)
