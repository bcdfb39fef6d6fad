r"""Gives damaged and generated files to readers, which must refuse them clearly or return valid results.

  .venv/bin/python tests/benchmarks/fuzz_readers.py --inputs=3000 --seed=1
  .venv/bin/python tests/benchmarks/fuzz_readers.py --reader='ground truth .mat' --inputs=100000

Each reader runs in its own process with a limited address space. Prints a table of the readers with the
numbers of inputs that were refused and read, and the smallest input and the traceback of each kind of
failure.
"""

import argparse
import contextlib
import faulthandler
import multiprocessing
import pathlib
import resource
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from absl import logging  # noqa: E402
from fuzzing import foreign_files, model_files, own_files, served_requests, valid_files  # noqa: E402
from fuzzing.campaign import campaign  # noqa: E402

# Of one reader's process, beyond what it has when it starts.
ADDRESS_SPACE = 4 << 30


def attempt(reader, folder, inputs, seed, connection):
  """Runs the campaign of one reader, in its process."""
  faulthandler.enable()
  used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE,) * 2)
  outcome = campaign(reader, folder, inputs=inputs, seed=seed)
  connection.send((outcome.read, outcome.refused, [str(failure) for failure in outcome.failures.values()]))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--inputs', type=int, default=1000, help='of each reader')
  parser.add_argument('--seed', type=int, default=1)
  parser.add_argument('--reader', default='', help='part of the name of those to try; all by default')
  options = parser.parse_args()
  logging.set_verbosity(logging.ERROR)
  failed = False
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as loops:
    folder = pathlib.Path(folder)
    made = valid_files.make_run(folder / 'made')
    readers = [
      *own_files.readers(made),
      *foreign_files.readers(made),
      *model_files.readers(folder / 'models'),
      *served_requests.readers(made, loops),
    ]
    print(f'seed {options.seed}, {options.inputs} inputs for each reader')
    print(f'{"reader":<24}{"inputs":>8}{"refused":>9}{"read":>8}{"failed":>8}{"seconds":>9}', flush=True)
    for number, reader in enumerate(reader for reader in readers if options.reader in reader.name):
      ours, theirs = multiprocessing.Pipe(duplex=False)
      arguments = (reader, folder / f'input-{number}', options.inputs, options.seed, theirs)
      process = multiprocessing.get_context('fork').Process(target=attempt, args=arguments)
      started = time.monotonic()
      process.start()
      theirs.close()
      try:
        read, refused, failures = ours.recv()
      except EOFError:
        read, refused, failures = (
          0,
          0,
          [f'its process died; its last input is in {folder / f"input-{number}"}'],
        )
      process.join()
      if process.exitcode:
        failures.append(f'exit code {process.exitcode}')
      seconds = time.monotonic() - started
      print(
        f'{reader.name:<24}{options.inputs:>8}{refused:>9}{read:>8}{len(failures):>8}{seconds:>9.1f}',
        flush=True,
      )
      for failure in failures:
        failed = True
        print(failure, flush=True)
  sys.exit(failed)


if __name__ == '__main__':
  main()
