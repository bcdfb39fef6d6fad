"""The flags that ask for a cluster, before any work begins."""

import subprocess
import sys
import textwrap

import pytest

BINARIES = {
  'stage': """
    common_flags.define_workers()
    common_flags.define_cluster()
    def main(_):
      print('workers', common_flags.cluster())
  """,
  'training': """
    common_flags.define_training_cluster()
    def main(_):
      common_flags.run_training(lambda: print('trained'), 0)
  """,
}


def run(binary, *arguments):
  script = 'from delf_d2r import command_line, common_flags\n' + textwrap.dedent(BINARIES[binary])
  return subprocess.run(
    [sys.executable, '-c', f'{script}\ncommand_line.run(main)', *arguments],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize(
  ('binary', 'arguments', 'printed'),
  [('stage', ['--workers=2'], 'workers None\n'), ('training', [], 'trained\n')],
)
def test_no_cluster_is_wanted(binary, arguments, printed):
  process = run(binary, *arguments)
  assert (process.returncode, process.stdout) == (0, printed), process.stderr


@pytest.mark.parametrize(
  ('binary', 'arguments', 'named'),
  [
    ('stage', ['--gpus_per_worker=0.25'], '--gpus_per_worker'),
    ('stage', ['--workers=2', '--cpus_per_worker=1'], '--cpus_per_worker'),
    ('training', ['--workers=2', '--gpus_per_worker=1'], '--workers and --gpus_per_worker'),
  ],
)
def test_flags_of_a_cluster_without_one_are_refused(binary, arguments, named):
  process = run(binary, *arguments)
  assert (process.returncode, process.stdout) == (1, '')
  assert process.stderr.startswith(f'error: {named}: only with --cluster')


@pytest.mark.parametrize(
  ('address', 'problem'),
  [('bogus', 'expected HOST:PORT'), ('127.0.0.1:1', 'nobody answers at 127.0.0.1:1')],
)
def test_addresses_are_tried_before_there_is_work(address, problem):
  pytest.importorskip('ray', reason='Ray, the extra `cluster`, is not installed')
  process = run('stage', f'--cluster={address}')
  assert (process.returncode, process.stdout) == (1, '')
  assert process.stderr.startswith(f'error: --cluster={address}: {problem}')
