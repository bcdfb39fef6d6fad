"""Verification of features that are few and coarse, and of dense ones, with one search and as it is.

  python tests/benchmarks/benchmark_sparse_verification.py

The first table has the published features of DELF v1 (../shared/data/published/delf_v1_features): 4 queries,
14 index images, 56 pairs, ranked by the cubes of the best similarities. The second has 12 DVD covers against
24 photos of them, 12 scenes with a photo of them, and 30 facades, all at 480 pixels: 792 pairs, of which 36
are right. `one search` is the rule without a second one among all mutual matches.
"""

import pathlib
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from benchmarks import development_sets as sets  # noqa: E402
from support import published_features  # noqa: E402

from delf_d2r import config as configs  # noqa: E402
from delf_d2r.data.photos.images import load_image  # noqa: E402
from delf_d2r.evaluation.average_precision import average_precision  # noqa: E402
from delf_d2r.extractors import region_extractor  # noqa: E402
from delf_d2r.protos.extraction_pb2 import ExtractionConfig  # noqa: E402
from delf_d2r.structures import Boxes, LocalFeatures  # noqa: E402
from delf_d2r.verifier import Verifier  # noqa: E402

EXTRACTORS = ('ROOT_SIFT', 'DELF', 'ROOT_SIFT_AND_DELF')
COVERS, SIZE = 12, 480


class OneSearch(Verifier):
  """The verifier without its second search."""

  def _doubts_ratio(self, *_) -> bool:
    return False


def rules(extractor: str) -> dict[str, Verifier]:
  compat = configs.load_or_default(None, ['verification'], overrides=['verification.compat: true'])
  default = configs.default('verification').verification
  kind = ExtractionConfig.Extractor.Value(extractor)
  return {
    'compat': Verifier(compat.verification),
    'one search': OneSearch(default, kind),
    'here': Verifier(default, kind),
  }


def published() -> None:
  queries, index = published_features.load('query'), published_features.load('train')
  orders = {name: published_features.ranked(query, index) for name, query in queries.items()}

  def precision(orders: dict[str, list[str]]) -> float:
    ranks = [[k for k, x in enumerate(order) if x[0] == name] for name, order in orders.items()]
    return 100 * float(np.mean(list(map(average_precision, ranks))))

  print(
    '| rule | verified right of 14 | wrong of 42 | mAP |\n|---|---|---|---|\n'
    f'| ranked | | | {precision(orders):.1f} |'
  )
  for rule, verifier in rules('DELF').items():
    inliers = {
      name: {other: len(verifier(query, index[other])[1]) for other in index}
      for name, query in queries.items()
    }
    pairs = [(other[0] == name, n) for name, found in inliers.items() for other, n in found.items() if n]
    right = sum(is_right for is_right, _ in pairs)
    reordered = {
      name: sorted(order, key=lambda other, found=inliers[name]: -found[other])
      for name, order in orders.items()
    }
    print(f'| {rule} | {right} | {len(pairs) - right} | {precision(reordered):.1f} |')


def photos() -> dict[tuple[str, int], np.ndarray]:
  """Returns the photos by their kind and the number of the cover in them."""
  read = lambda path: load_image(sets.DATA / path)  # noqa: E731
  found, rng = {}, np.random.default_rng(0)
  for number in range(1, COVERS + 1):
    for kind in ('Reference', *sets.PHONES[:2]):
      found[kind, number] = read(f'dvd_covers/{kind}/{number:03d}.jpg')
  for number, name in enumerate(sets.facades(300, 330)):
    found['facade', -number] = read(f'facades/{name}')
  for number, name in enumerate(sets.facades(341, 341 + COVERS), 1):
    photo = read(f'dvd_covers/Palm/{number:03d}.jpg')
    found['scene', number] = sets._compose(rng, read(f'facades/{name}'), photo)[0]
  return found


def features(extractor: str, found: dict) -> dict[tuple[str, int], LocalFeatures]:
  overrides = [f'extraction {{ extractor: {extractor} max_image_size: {SIZE} min_image_size: 0 }}']
  extract = region_extractor.build(
    configs.load_or_default(None, ['extraction'], overrides=overrides).extraction
  )
  return {key: extract.extract('', pixels, Boxes.empty()).region(0) for key, pixels in found.items()}


def dense() -> None:
  found = photos()
  print('\n| features | rule | verified right of 36 | wrong of 756 | CPU ms a pair |\n|---|---|---|---|---|')
  for extractor in EXTRACTORS:
    described = features(extractor, found)
    for rule, verifier in list(rules(extractor).items())[1:]:
      verified, start = {True: 0, False: 0}, time.process_time()
      for (kind, number), query in described.items():
        if kind == 'Reference':
          for (other, of), features_of in described.items():
            if other != 'Reference':
              verified[of == number] += len(verifier(query, features_of)[1]) > 0
      spent = 1000 * (time.process_time() - start) / (COVERS * (len(described) - COVERS))
      print(f'| {extractor} | {rule} | {verified[True]} | {verified[False]} | {spent:.1f} |', flush=True)


if __name__ == '__main__':
  published()
  dense()
