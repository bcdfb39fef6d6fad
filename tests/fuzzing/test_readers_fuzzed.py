"""Whatever a file holds, its reader gives a clear error or a sound result; fuzz_readers.py tries more."""

import contextlib

import pytest
from fuzzing import foreign_files, material, own_files, served
from fuzzing.campaign import campaign

SEED = 1
# Of each reader; the slow ones have their own.
INPUTS = 30


@pytest.fixture(scope='module')
def readers(tmp_path_factory):
  made = material.make(tmp_path_factory.mktemp('fuzzing') / 'made')
  with contextlib.ExitStack() as loops:
    yield [*own_files.readers(made), *foreign_files.readers(made), *served.readers(made, loops)]


def test_every_reader(readers, tmp_path, capsys):
  for reader in readers:
    outcome = campaign(reader, tmp_path / 'input', inputs=INPUTS, seed=SEED)
    print(f'{reader.name}: {outcome.read} read, {outcome.refused} refused (seed {SEED})')
    problems = '\n'.join(map(str, outcome.failures.values()))
    assert not outcome.failures, f'{reader.name}, seed {SEED}:\n{problems}'
