"""Damaged models are refused by a clear error. Each runs in its own process, which TensorFlow may abort."""

import pathlib
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

TESTS = pathlib.Path(__file__).resolve().parents[1]
INPUTS = 25


def test_every_reader_of_tensorflows_files():
  command = [sys.executable, TESTS / 'benchmarks' / 'fuzz_readers.py', '--reader=TensorFlow', '--seed=1']
  done = subprocess.run([*command, f'--inputs={INPUTS}'], capture_output=True, text=True, check=False)
  print(done.stdout)
  assert done.returncode == 0, done.stdout + done.stderr
  rows = re.findall(r'^(TensorFlow \w+) +(\d+) +(\d+) +(\d+) +0 ', done.stdout, re.MULTILINE)
  assert [row[0] for row in rows] == ['TensorFlow checkpoint', 'TensorFlow detector', 'TensorFlow DELF']
  for _, inputs, refused, read in rows:
    assert int(refused) + int(read) == int(inputs) == INPUTS
    assert int(refused) > 0
