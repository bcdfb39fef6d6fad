"""Compares the package with its peers on this machine, in one table of ratios: `make bench`.

  python tests/benchmarks/benchmark_peers.py

Peers are the PyPI packages `asmk` (inverted index), faiss (assignment to visual words, k-means), scikit-learn
(k-means) and scikit-image with SciPy's k-d tree (spatial verification, the way of the tensorflow/models DELF
code). Both sides get the same input in the same process and take turns; a ratio is that of the medians. Times
are those of one thread, in CPU time, which other work on the machine changes least. Descriptors are RootSIFT
of the scenes of the mini benchmark, which is made first, or of --photos; the postings of the indexes are made
from a seed. It takes some eight minutes.
"""

import os

# Before NumPy, numba and faiss are loaded, which ask but once.
for _name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS'):
  os.environ[_name] = '1'

import argparse  # noqa: E402
import functools  # noqa: E402
import pathlib  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import faiss  # noqa: E402
import numpy as np  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks import benchmark_index, benchmark_verification  # noqa: E402
from benchmarks.measuring import alternate, print_table, root_sift  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.codebook import Codebook  # noqa: E402
from delf_d2r.data.scenes import mini_benchmark  # noqa: E402
from delf_d2r.index import InvertedIndex  # noqa: E402
from delf_d2r.kernels.aggregation import Kernel  # noqa: E402
from delf_d2r.kernels.approximate_assignment import ApproximateAssigner  # noqa: E402
from delf_d2r.kernels.assignment import ExactAssigner  # noqa: E402
from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator  # noqa: E402
from delf_d2r.verifier import Verifier  # noqa: E402

# Words and iterations of k-means; words and descriptors of the assignment.
KMEANS_WORDS, KMEANS_ITERATIONS, KMEANS_DESCRIPTORS = 2048, 8, 100_000
WORDS, DESCRIPTORS = 65_536, 1000


def processor() -> str:
  """Returns the name of the processor, and the widest vectors that it has."""
  text = pathlib.Path('/proc/cpuinfo')
  lines = text.read_text().splitlines() if text.exists() else []
  values = {key.strip(): value.strip() for key, _, value in (line.partition(':') for line in lines)}
  flags = values.get('flags', '').split()
  vectors = 'AVX-512' if 'avx512f' in flags else 'AVX2' if 'avx2' in flags else 'no AVX2'
  return f'{values.get("model name", "unknown processor")}, {vectors}, {os.cpu_count()} cores'


def row(what: str, peer: str, times: dict[str, float]) -> tuple:
  """Returns a row of the table from the seconds of the peer and of this package, in this order."""
  theirs, ours = times.values()
  return what, peer, 1e3 * theirs, 1e3 * ours, theirs / ours


def search_rows(num_images: int, rounds: int) -> Iterator[tuple]:
  """Yields the rows of searches in an index of images of some 600 words."""
  generator = DescriptorGenerator(
    num_words=benchmark_index.NUM_WORDS, dimensions=benchmark_index.DIMENSIONS, words_per_image=600, seed=0
  )
  names = [f'image {m}' for m in range(num_images)]
  index = InvertedIndex.build(
    generator.draw_many(num_images),
    names,
    num_words=benchmark_index.NUM_WORDS,
    kernel=Kernel.ASMK_STAR,
    dimensions=benchmark_index.DIMENSIONS,
  )
  asmk = benchmark_index.Asmk(index)
  queries = [generator.draw(600) for _ in range(12)]
  for top_k, what in ((100, 'top 100'), (None, 'all images ranked')):
    their_search = functools.partial(asmk.search, top_k=top_k)
    our_search = functools.partial(index.search, top_k=top_k)
    # What is compared must be equal. Scores that rounding moves over the cut may differ at the end.
    np.testing.assert_allclose(our_search(queries[0]).scores, their_search(queries[0])[1], rtol=1e-5)
    times = alternate(
      {
        'asmk': lambda search=their_search: [search(query) for query in queries],
        'here': lambda search=our_search: [search(query) for query in queries],
      },
      rounds=rounds,
      clock=time.thread_time,
    )
    each = {name: seconds / len(queries) for name, seconds in times.items()}
    yield row(f'search of {num_images:,} images, {what}', 'asmk 0.1.1', each)


def assignment_rows(descriptors: np.ndarray, rounds: int) -> Iterator[tuple]:
  """Yields the rows of the assignment of descriptors to visual words."""
  rng = np.random.default_rng(0)
  # Words of real descriptors: training so many would take longer than all else here.
  noise = rng.normal(0, 0.02, (WORDS, descriptors.shape[1]))
  centroids = (descriptors[rng.integers(len(descriptors), size=WORDS)] + noise).astype(np.float32)
  queries = np.ascontiguousarray(descriptors[:DESCRIPTORS])
  flat = faiss.IndexFlatL2(centroids.shape[1])
  flat.add(centroids)
  exact, approximate = ExactAssigner(centroids), ApproximateAssigner(centroids, seed=0)
  what = f'{DESCRIPTORS:,} descriptors to {WORDS:,} words'
  for name, assigner in (('exact', exact), ('approximate', approximate)):
    times = alternate(
      {'faiss': lambda: flat.search(queries, 1), 'here': lambda assigner=assigner: assigner(queries)},
      rounds=rounds,
      clock=time.thread_time,
    )
    yield row(f'{what}, {name}', 'faiss, flat', times)


def kmeans_rows(descriptors: np.ndarray) -> Iterator[tuple]:
  """Yields the rows of the training of a codebook, approximate assignment here (the default)."""
  training = np.ascontiguousarray(descriptors[:KMEANS_DESCRIPTORS])

  def run_faiss():
    kmeans = faiss.Kmeans(
      training.shape[1], KMEANS_WORDS, niter=KMEANS_ITERATIONS, seed=1, max_points_per_centroid=10**6
    )
    kmeans.train(training)

  def run_sklearn():
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # that it did not converge in so few iterations
      KMeans(KMEANS_WORDS, init='random', n_init=1, max_iter=KMEANS_ITERATIONS, random_state=1).fit(training)

  def run_here():
    Codebook.train(
      training, num_words=KMEANS_WORDS, iterations=KMEANS_ITERATIONS, seed=1, assignment='approximate'
    )

  for peer, function in (('faiss', run_faiss), ('scikit-learn', run_sklearn)):
    times = alternate({peer: function, 'here': run_here}, rounds=1, clock=time.process_time)
    what = f'k-means, {len(training):,} descriptors, {KMEANS_WORDS:,} words, {KMEANS_ITERATIONS} iterations'
    yield row(what, peer, times)


def verification_rows(descriptors: np.ndarray, rounds: int) -> Iterator[tuple]:
  """Yields the rows of spatial verification of a pair of images."""
  rng = np.random.default_rng(0)
  compat = configs.load_or_default(None, ['verification'], overrides=['verification { compat: true }'])
  theirs = Verifier(compat.verification)
  ours = Verifier(configs.default('verification').verification)
  for inliers in (400, 0):
    pair = benchmark_verification.make_pair(rng, descriptors, features=1000, inliers=inliers)
    times = alternate(
      {'scikit-image': lambda pair=pair: theirs(*pair), 'here': lambda pair=pair: ours(*pair)},
      rounds=rounds,
      clock=time.process_time,
    )
    yield row(f'verification of 1,000 features each, {inliers} the same', 'scikit-image', times)


def main(flags) -> None:
  start = time.perf_counter()
  faiss.omp_set_num_threads(1)
  with tempfile.TemporaryDirectory() as folder:
    photos = flags.photos
    if photos is None:
      mini_benchmark.generate(pathlib.Path(folder) / 'mini')
      photos = pathlib.Path(folder) / 'mini'
    descriptors = root_sift(photos, count=KMEANS_DESCRIPTORS + 3000)
  rows: list[tuple] = []
  for found in (
    *(search_rows(count, flags.rounds) for count in flags.images),
    assignment_rows(descriptors, flags.rounds),
    kmeans_rows(descriptors),
    verification_rows(descriptors, flags.rounds),
  ):
    for each in found:
      print('.', end='', file=sys.stderr, flush=True)
      rows.append(each)
  print(f'\n{processor()}; CPU time of one thread; {(time.perf_counter() - start) / 60:.0f} minutes\n')
  print_table(('what', 'peer', 'peer, ms', 'here, ms', 'ratio'), rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--photos', type=pathlib.Path, help='a folder of photos in place of the mini benchmark')
  parser.add_argument('--images', type=int, nargs='*', default=[5_000, 50_000], help='of the indexes')
  parser.add_argument('--rounds', type=int, default=3)
  main(parser.parse_args())
