"""Measures the latency of `d2r serve` with concurrent clients over the loopback interface.

  python tests/benchmarks/benchmark_serving.py --clients=16 --requests=160

The index is that of the miniature benchmark, RootSIFT and R-ASMK* with uniform boxes, built first unless
--index names one. Every request uploads one of the query photos; server and clients share the machine.
"""

import argparse
import concurrent.futures
import contextlib
import itertools
import pathlib
import subprocess
import sys
import tempfile
import time

import httpx
import numpy as np

from delf_d2r import config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.experiments import experiment

CONFIG = 'configs/experiments/sift_rasmk_star.pbtxt'


@contextlib.contextmanager
def served(index: pathlib.Path):
  """Runs the server in a process of its own and yields its address."""
  process = subprocess.Popen(
    [sys.executable, '-m', 'delf_d2r.tools.serve', f'--index={index}', '--port=0'],
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    yield process.stdout.readline().split()[0]
  finally:
    process.terminate()
    process.communicate()


def latencies(
  address: str, photos: list[bytes], clients: int, requests: int
) -> tuple[np.ndarray, float, int]:
  """Seconds of each request float [requests], of all of them together, and how many were not answered."""
  tasks = iter(list(itertools.islice(itertools.cycle(photos), requests)))

  def ask(_) -> tuple[list[float], int]:
    own, lost = [], 0
    with httpx.Client(base_url=address, timeout=300, trust_env=False) as client:
      for photo in tasks:  # shared: each client takes the next one
        start = time.perf_counter()
        response = client.post('/api/search', files={'photo': ('photo.jpg', photo)})
        own.append(time.perf_counter() - start)
        lost += response.status_code != 200 or not response.json()['results']
    return own, lost

  start = time.perf_counter()
  with concurrent.futures.ThreadPoolExecutor(clients) as pool:
    found = list(pool.map(ask, range(clients)))
  elapsed = time.perf_counter() - start
  return np.concatenate([own for own, _ in found]), elapsed, sum(lost for _, lost in found)


def main(flags) -> None:
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    made = mini_benchmark.generate(folder / 'photos')
    index = flags.index
    if index is None:
      index = folder / 'out'
      experiment.run(config.load(CONFIG, experiment.STAGES), Dataset.load(made.images_dir), index)
    photos = [path.read_bytes() for path in sorted(made.queries_dir.iterdir())]
    with served(index) as address:
      latencies(address, photos, 1, 3)  # warms up
      print('| clients | requests | lost | median ms | p95 ms | largest ms | requests/s |')
      print('|---|---|---|---|---|---|---|')
      for clients in (1, flags.clients):
        seconds, elapsed, lost = latencies(address, photos, clients, flags.requests)
        median, high, largest = 1e3 * np.percentile(seconds, [50, 95, 100])
        print(
          f'| {clients} | {len(seconds)} | {lost} | {median:.0f} | {high:.0f} | {largest:.0f} |'
          f' {len(seconds) / elapsed:.1f} |'
        )


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--index', type=pathlib.Path, help='an existing index')
  parser.add_argument('--clients', type=int, default=16)
  parser.add_argument('--requests', type=int, default=160)
  main(parser.parse_args())
