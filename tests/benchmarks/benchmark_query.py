"""Times the parts of a query: from 1,000 local features to the top 100 of an index.

  python tests/benchmarks/benchmark_query.py --images=50000

The visual words are noisy RootSIFT descriptors of the photos of the miniature benchmark, because the cost
does not depend on their training. The index consists of synthetic descriptors.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from delf_d2r.data.scenes import mini_benchmark_photos as photos
from delf_d2r.extractors.root_sift import RootSift
from delf_d2r.index import InvertedIndex
from delf_d2r.kernels.aggregation import Kernel, aggregate
from delf_d2r.kernels.approximate_assignment import ApproximateAssigner
from delf_d2r.kernels.assignment import ExactAssigner
from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator
from delf_d2r.protos.extraction_pb2 import RootSiftConfig

NUM_WORDS = 65536


def descriptors_of_photos(rng) -> np.ndarray:
  """Returns real descriptors of unit length, repeated with noise if there are too few: float32 [N, 128]."""
  extractor = RootSift(RootSiftConfig(), max_features=5000, min_attention=0.0)
  shown = {o.scene_photo for o in photos.object_photos()} | set(photos.clutter_photos())
  real = np.concatenate([extractor(photos.load_photo(p)).descriptors for p in sorted(shown, key=str)])
  chosen = real[rng.integers(len(real), size=NUM_WORDS + 20_000)]
  noisy = np.maximum(chosen + rng.normal(0, 0.03, chosen.shape), 0).astype(np.float32)
  return noisy / np.linalg.norm(noisy, axis=1, keepdims=True)


def main(flags) -> None:
  rng = np.random.default_rng(0)
  descriptors = descriptors_of_photos(rng)
  centroids, features = descriptors[:NUM_WORDS], descriptors[NUM_WORDS:]
  generator = DescriptorGenerator(num_words=NUM_WORDS)
  index = InvertedIndex.build(
    (generator.draw() for _ in range(flags.images)),
    [f'image {m}' for m in range(flags.images)],
    num_words=NUM_WORDS,
    kernel=Kernel.ASMK_STAR,
  )
  start = time.perf_counter()
  approximate = ApproximateAssigner(centroids)
  prepared = time.perf_counter() - start
  assigners = {'exact': ExactAssigner(centroids), 'approximate': approximate}
  parts = {name: [] for name in assigners}
  for query in range(flags.queries):
    own = features[(query % 20) * 1000 : (query % 20 + 1) * 1000]
    for name, assign in assigners.items():
      marks = [time.perf_counter()]
      words = assign(own, 1)
      marks.append(time.perf_counter())
      descriptor = aggregate(own, words, centroids, kernel=Kernel.ASMK_STAR)
      marks.append(time.perf_counter())
      index.search(descriptor, top_k=100)
      marks.append(time.perf_counter())
      parts[name].append(1e3 * np.diff(marks))
  print(f'{index}; approximate assignment prepared in {prepared:.1f} s, recall@1', end=' ')
  print(f'{approximate.measure_recall(features[:4000]):.4f}')
  print('| assignment | assign ms | aggregate ms | search ms | whole query ms |\n|---|---|---|---|---|')
  for name, times in parts.items():
    medians = np.median(times[1:], axis=0)
    whole = statistics.median(np.sum(times[1:], axis=1))
    print(f'| {name} | {medians[0]:.1f} | {medians[1]:.2f} | {medians[2]:.2f} | {whole:.1f} |')


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--images', type=int, default=50_000)
  parser.add_argument('--queries', type=int, default=20)
  main(parser.parse_args())
