"""Measures an index of a million images on one machine: build, opening, search and memory as it grows.

  nice -n 10 python tests/benchmarks/benchmark_million.py --work=/tmp/million

Descriptors are synthetic (delf_d2r/planning/synthetic_descriptors.py), with about 600 words, D = 128, K =
65,536, ASMK*. One index grows through all sizes, segment by segment; each segment is saved and recorded, so
that an interrupted run resumes after the last one. Each size is measured in new processes: one opens and
queries the index while no page of it is in memory, the next reads it sequentially first (`warm`), the last
removes and adds single photos in a copy that shares its files (`change`). `<work>/results.json` holds all
numbers. The index of a million images takes 11 GB.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402
from benchmarks import growth_picture  # noqa: E402
from benchmarks.measuring import print_table  # noqa: E402

from delf_d2r.data import files  # noqa: E402
from delf_d2r.index import InvertedIndex  # noqa: E402
from delf_d2r.index.segments import SEGMENT_ENTRIES  # noqa: E402
from delf_d2r.kernels.aggregation import Kernel  # noqa: E402
from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator  # noqa: E402

OPTIONS = {'num_words': 65536, 'kernel': Kernel.ASMK_STAR, 'dimensions': 128}
QUERY_SEED = 1_000_000
QUERIES = 200
CHANGES = 10
ROUNDS = 3


def parse_flags(arguments=None):
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--work', type=pathlib.Path, required=True, help='folder of the index and the results')
  parser.add_argument('--sizes', default='10000,100000,1000000', help='images, ascending')
  parser.add_argument('--picture', type=pathlib.Path, help='SVG file for a picture of the growth')
  parser.add_argument('--measure', choices=tuple(MEASUREMENTS), help='used by the benchmark itself')
  return parser.parse_args(arguments)


# Building --------------------------------------------------------------------------------------------


class Drawing:
  """Descriptors of images `start` to `stop`; the time spent on drawing them is not the index's."""

  def __init__(self, start: int, stop: int):
    self.seconds = 0.0
    self.cpu_seconds = 0.0
    self._images = range(start, stop)

  def __iter__(self):
    generator = DescriptorGenerator(seed=self._images.start)
    for _ in self._images:
      wall, cpu = time.perf_counter(), time.process_time()
      descriptor = generator.draw()
      self.seconds += time.perf_counter() - wall
      self.cpu_seconds += time.process_time() - cpu
      yield descriptor


def grow(directory: pathlib.Path, start: int, stop: int) -> dict:
  """Adds the images `start` to `stop` and saves; what it took."""
  wall, cpu = time.perf_counter(), time.process_time()
  drawing = Drawing(start, stop)
  names = [f'photos/{m:09d}.jpg' for m in range(start, stop)]
  if start == 0:
    InvertedIndex.build(drawing, names, directory=directory, **OPTIONS)
  else:
    with InvertedIndex.load(directory) as index:
      index.add(drawing, names)
      index.save()
  return {
    'images': stop,
    'seconds': time.perf_counter() - wall - drawing.seconds,
    'cpu_seconds': time.process_time() - cpu - drawing.cpu_seconds,
    'peak_memory': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
  }


def build(work: pathlib.Path, results: dict, size: int) -> None:
  """Grows the index to `size` images, one account a segment."""
  steps = results.setdefault('build', [])
  while (done := steps[-1]['images'] if steps else 0) < size:
    stop = min(size, (done // SEGMENT_ENTRIES + 1) * SEGMENT_ENTRIES)
    steps.append(grow(work / 'index', done, stop))
    files.write_atomically(work / 'results.json', json.dumps(results, indent=1))
    print(f'{stop} images, {steps[-1]["seconds"]:.1f} s', flush=True)


# Measuring -------------------------------------------------------------------------------------------


def evict(directory: pathlib.Path) -> None:
  """Drops the pages of files from the page cache; the files are synced, and no process maps them."""
  for path in directory.iterdir():
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def timed(function, *arguments, clock=time.perf_counter) -> float:
  start = clock()
  function(*arguments)
  return clock() - start


def make_queries() -> list:
  return DescriptorGenerator(seed=QUERY_SEED).draw_many(QUERIES)


def compile_search() -> None:
  """Returns the seconds of loading Numba, which do not belong to the index."""
  generator = DescriptorGenerator(seed=QUERY_SEED + 1)
  InvertedIndex.build(generator.draw_many(2), ['a', 'b'], **OPTIONS).search(generator.draw())


def measure_cold(directory: pathlib.Path) -> dict:
  queries = make_queries()
  compile_search()
  start = time.perf_counter()
  index = InvertedIndex.load(directory)
  opened = time.perf_counter()
  index.search(queries[0])
  first = time.perf_counter()
  second = timed(index.search, queries[1])
  return {'opening': opened - start, 'first_query': first - opened, 'second_query': second}


def measure_warm(directory: pathlib.Path) -> dict:
  queries = make_queries()
  compile_search()
  before = status('RssAnon')
  index = InvertedIndex.load(directory)
  warming = timed(index.preload)
  found = {'warming': warming, 'first_query': timed(index.search, queries[0])}
  walls, cpus = [], []
  for query in queries:
    cpu = time.thread_time()
    walls.append(timed(index.search, query))
    cpus.append(time.thread_time() - cpu)
  for name, times in (('wall', walls), ('cpu', cpus)):
    found |= {f'median_{name}': statistics.median(times), f'p95_{name}': float(np.quantile(times, 0.95))}
  found['own_memory'] = status('RssAnon') - before
  rates = {1: [], 2: []}
  for _ in range(ROUNDS):
    for threads, own in rates.items():
      seconds = timed(lambda threads=threads: index.search_batch(queries, threads=threads))
      own.append(len(queries) / seconds)
  found |= {f'queries_per_second_{threads}': max(own) for threads, own in rates.items()}
  found['postings_per_query'] = int(
    np.mean([index.list_sizes()[query.visual_words].sum() for query in queries[:20]])
  )
  found |= {'peak_memory': status('VmHWM'), 'own_peak_memory': status('RssAnon')}
  found |= {'postings': index.num_postings, 'images': len(index)}
  return found


def measure_change(directory: pathlib.Path) -> dict:
  """Removes single photos, then adds some; each change is saved and followed by a search.

  Files of an index never change, so that a copy may share them.
  """
  copied = directory.with_name('changed')
  shutil.rmtree(copied, ignore_errors=True)
  shutil.copytree(directory, copied, copy_function=os.link)
  try:
    queries = make_queries()
    compile_search()
    index = InvertedIndex.load(copied)
    for query in queries[:20]:
      index.search(query)
    names = index.image_names
    chosen = [names[len(names) * number // CHANGES] for number in range(CHANGES)]
    changes = {
      'removing': [lambda name=name: index.remove([name]) for name in chosen],
      'adding': [
        lambda number=number: index.add([queries[number]], [f'new/{number}.jpg']) for number in range(CHANGES)
      ],
    }
    found = {}
    for what, functions in changes.items():
      own = {'': [], '_saving': [], '_searching': [], '_cpu': []}
      for function in functions:
        cpu = time.process_time()
        own[''].append(timed(function))
        own['_cpu'].append(time.process_time() - cpu)
        own['_saving'].append(timed(index.save))
        own['_searching'].append(timed(index.search, queries[0]))
      found |= {what + part: statistics.median(times) for part, times in own.items()}
    found['compacting'] = timed(index.compact)
    return found
  finally:
    shutil.rmtree(copied)


MEASUREMENTS = {'cold': measure_cold, 'warm': measure_warm, 'change': measure_change}


def status(field: str) -> int:
  """Bytes of a field of /proc/self/status."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f'{field}:'))


def measure(work: pathlib.Path) -> dict:
  """Runs all measurements, each in its own process."""
  found = {}
  for state in MEASUREMENTS:
    evict(work / 'index')
    command = [sys.executable, __file__, f'--work={work}', f'--measure={state}']
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found[state] = json.loads(output)
  found['disk'] = sum(path.stat().st_size for path in (work / 'index').iterdir())
  found['load'] = os.getloadavg()[0]
  return found


# Reporting -------------------------------------------------------------------------------------------


def row(size: int, results: dict) -> tuple:
  steps = [step for step in results['build'] if step['images'] <= size]
  found = results['measured'][str(size)]
  cold, warm = found['cold'], found['warm']
  return (
    f'{size:,}',
    f'{sum(step["seconds"] for step in steps):.0f} ({sum(step["cpu_seconds"] for step in steps):.0f})',
    f'{max(step["peak_memory"] for step in steps) / 2**30:.2f}',
    f'{found["disk"] / 1e9:.2f}',
    f'{1e3 * cold["opening"]:.0f}',
    f'{cold["first_query"]:.2f}',
    f'{warm["warming"]:.1f} + {warm["first_query"]:.2f}',
    f'{1e3 * warm["median_wall"]:.1f} ({1e3 * warm["median_cpu"]:.1f})',
    f'{1e3 * warm["p95_wall"]:.1f} ({1e3 * warm["p95_cpu"]:.1f})',
    f'{warm["queries_per_second_1"]:.0f}, {warm["queries_per_second_2"]:.0f}',
    f'{warm["own_memory"] / 1e6:.0f}',
    f'{warm["peak_memory"] / 1e9:.2f}',
    *(change_times(found['change'], what) for what in ('removing', 'adding')),
  )


def change_times(change: dict, what: str) -> str:
  return ' + '.join(f'{1e3 * change[what + part]:.1f}' for part in ('', '_saving', '_searching'))


def picture(sizes: list[int], results: dict) -> str:
  """Returns the growth as an SVG."""

  def line(value) -> list[tuple[int, float]]:
    return [(size, value(size, results['measured'][str(size)])) for size in sizes]

  def building(size: int, _) -> float:
    return sum(step['cpu_seconds'] for step in results['build'] if step['images'] <= size)

  return growth_picture.draw(
    [
      ('Index on the disk, GB', {'': line(lambda _, found: found['disk'] / 1e9)}),
      ('Building it, seconds of CPU', {'': line(building)}),
      (
        'A query in memory, ms',
        {
          '95th percentile': line(lambda _, found: 1e3 * found['warm']['p95_wall']),
          'median': line(lambda _, found: 1e3 * found['warm']['median_wall']),
        },
      ),
      (
        'First query, s',
        {
          'nothing in memory': line(lambda _, found: found['cold']['first_query']),
          'after warming': line(lambda _, found: found['warm']['first_query']),
        },
      ),
    ]
  )


HEADER = (
  'images',
  'build, s (CPU)',
  'its peak, GiB',
  'disk, GB',
  'opening, cold, ms',
  'first query, cold, s',
  'warming + first query, s',
  'query median, ms (CPU)',
  'p95, ms (CPU)',
  'queries a second, 1 and 2 threads',
  'own memory of the searcher, MB',
  'peak with mapped pages, GB',
  'removing a photo + saving + searching, ms',
  'adding a photo + saving + searching, ms',
)


def main(flags) -> None:
  if flags.measure:
    print(json.dumps(MEASUREMENTS[flags.measure](flags.work / 'index')))
    return
  sizes = [int(size) for size in flags.sizes.split(',')]
  flags.work.mkdir(parents=True, exist_ok=True)
  path = flags.work / 'results.json'
  results = json.loads(path.read_text()) if path.exists() else {}
  for size in sizes:
    build(flags.work, results, size)
    measured = results.setdefault('measured', {})
    # The index of a smaller size is gone once it has grown beyond it.
    is_known = MEASUREMENTS.keys() <= measured.get(str(size), {}).keys()
    if not is_known and results['build'][-1]['images'] == size:
      measured[str(size)] = measure(flags.work)
      files.write_atomically(path, json.dumps(results, indent=1))
  known = [size for size in sizes if MEASUREMENTS.keys() <= results['measured'].get(str(size), {}).keys()]
  print_table(HEADER, [row(size, results) for size in known])
  if flags.picture:
    files.write_atomically(flags.picture, picture(known, results) + '\n')


if __name__ == '__main__':
  main(parse_flags())
