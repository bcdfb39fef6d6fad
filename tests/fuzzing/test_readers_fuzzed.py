"""Every reader returns a valid result or raises a clear error, whatever a file contains.

benchmarks/fuzz_readers.py tries more inputs.
"""

import contextlib

import pytest
from fuzzing import foreign_files, own_files, served_requests, valid_files
from fuzzing.campaign import campaign

pytestmark = pytest.mark.slow

SEED = 1
# Number of inputs of each reader.
INPUTS = 30


@pytest.fixture(scope='module')
def readers(tmp_path_factory):
  made = valid_files.make_run(tmp_path_factory.mktemp('fuzzing') / 'made')
  with contextlib.ExitStack() as loops:
    yield [*own_files.readers(made), *foreign_files.readers(made), *served_requests.readers(made, loops)]


def test_every_reader(readers, tmp_path, capsys):
  for reader in readers:
    outcome = campaign(reader, tmp_path / 'input', inputs=INPUTS, seed=SEED)
    print(f'{reader.name}: {outcome.read} read, {outcome.refused} refused (seed {SEED})')
    problems = '\n'.join(map(str, outcome.failures.values()))
    assert not outcome.failures, f'{reader.name}, seed {SEED}:\n{problems}'
