"""Two devices train a detector as one does, however many boxes each of them gets."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap
from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose
from support import tiny_detector_training

from delf_d2r.models.detector import sampling

pytestmark = pytest.mark.slow

tiny_detector_training.require_official()

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
BOXES = ([[0.1, 0.1, 0.6, 0.5]], [], [[0.2, 0.3, 0.8, 0.9], [0.0, 0.0, 0.3, 0.3]], [])

DEVICES = """
  import json, sys, numpy as np, tensorflow as tf
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2)
  tf.config.run_functions_eagerly(True)  # No time spent on tracing graphs.
  sys.path.insert(0, 'tests')
  from support import tiny_detector_training
  from delf_d2r.data.training.detection_records import DetectionRecords
  from delf_d2r.models.detector import input as detector_input, detector_training
  records = DetectionRecords([sys.argv[1]])
  def learnt(devices):
    strategy = tf.distribute.MirroredStrategy(devices)
    config = tiny_detector_training.load(tiny_detector_training.TINY, 'batch_size: 4').detector_training
    trainer = detector_training.DetectorTrainer(config, strategy)
    network = trainer.model.network
    frozen = {id(variable) for variable in network.backbone.variables}
    variables = [variable for variable in network.variables if id(variable) not in frozen]
    before = [variable.numpy() for variable in variables]
    batches = trainer.batches(detector_input.DetectorBatches(config, records, trainer.model), 0)
    batch = next(batches)
    parts = strategy.experimental_local_results(batch['boxes'])
    values = [trainer.step(batch, step) for step in range(2)]
    batches.close()
    moved = np.concatenate([(v.numpy() - old).ravel() for v, old in zip(variables, before)])
    boxes = [int(tf.math.count_nonzero(part[..., 2])) for part in parts]
    on_read = tf.VariableSynchronization.ON_READ
    asks_others = [variable.name for variable in network.variables if variable.synchronization is on_read]
    return {'values': values, 'boxes': boxes, 'moved': moved.tolist(), 'asks_others': asks_others}
  print(json.dumps([learnt(devices) for devices in (['cpu:0'], ['cpu:0', 'cpu:1'])]))
"""


def test_two_devices_learn_what_one_does(tmp_path):
  examples = (tiny_detector_training.example(i, boxes=boxes, labels=(1, 1)) for i, boxes in enumerate(BOXES))
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      textwrap.dedent(DEVICES),
      str(tiny_detector_training.write_records(tmp_path / 'x', examples)),
    ],
    capture_output=True,
    text=True,
    check=False,
    cwd=REPOSITORY,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': ''},
    timeout=240,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  one, two = json.loads(done.stdout.splitlines()[-1])
  assert (one['boxes'], two['boxes']) == ([3], [2, 1])
  for step, values in enumerate(one['values']):
    assert two['values'][step] == pytest.approx(values, rel=1e-5)
  # The first of several machines saves and validates alone.
  assert two['asks_others'] == []
  largest = np.abs(one['moved']).max()
  assert largest > 1e-3
  assert_allclose(two['moved'], one['moved'], rtol=0, atol=1e-5 * largest)


def test_replicas_that_take_turns_keep_their_samples():
  """Each draws with the seeds of its own photos, though another one's were set in between."""
  positive = tf.zeros((1, 50), tf.bool)
  sampler = sampling.RegionSampler(5)

  def sample(seed, *, turn=lambda: None):
    sampler.seeds = tf.constant([[seed, 0]])
    turn()
    return sampler(positive, ~positive, positive).numpy().tolist()

  def another():
    with futures.ThreadPoolExecutor() as threads:
      assert threads.submit(sample, 2).result() == alone[2]

  alone = {seed: sample(seed) for seed in (1, 2)}
  assert alone[1] != alone[2]
  assert sample(1, turn=another) == alone[1]
