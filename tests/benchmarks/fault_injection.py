r"""Kills run_experiment at random moments and checks the files that it leaves and the result of a rerun.

  .venv/bin/python tests/benchmarks/fault_injection.py --kills=50 --seed=1

The run uses a few synthetic photos, RootSIFT, verification and expansion. It is killed up to --series times
before it may finish; about half of the kills hit the first process only, the others all processes. The first
kill happens during extraction, and then one of the shards is truncated by a byte. The last run must leave the
bytes of a run without faults, except for paths and seconds.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from absl import logging  # noqa: E402
from support.faulty_runs import FaultInjector  # noqa: E402


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=50)
  parser.add_argument('--series', type=int, default=5, help='kills of one run, one after the other')
  parser.add_argument('--seed', type=int, default=1)
  options = parser.parse_args()
  logging.set_verbosity(logging.ERROR)
  rng = random.Random(options.seed)
  with tempfile.TemporaryDirectory() as folder:
    injector = FaultInjector(pathlib.Path(folder) / 'injector')
    print(f'seed {options.seed}; the undisturbed run leaves {injector.num_files} files')
    survived, number = 0, 0
    while survived < options.kills:
      out, started = pathlib.Path(folder) / f'run-{number}', time.monotonic()
      # The features of 8 photos: a shard and its account each.
      killed = int(injector.kill(out, files=rng.randint(6, 18), delay=0))
      cut = injector.cut_unfinished(out)
      wanted = min(options.series, options.kills - survived) - killed
      killed += injector.random_kills(out, wanted, rng.getrandbits(32))
      injector.check_resumes(out, cut=cut)
      survived, number = survived + killed, number + 1
      what = f'{killed} kills, {"a shard cut, " if cut else ""}then the same bytes'
      print(f'run {number}: {what}; {survived} kills in all ({time.monotonic() - started:.0f} s)', flush=True)
  print(f'{survived} kills survived')


if __name__ == '__main__':
  main()
