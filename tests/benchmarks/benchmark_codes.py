r"""Compares ways to make codes of residuals: projections, bits, alpha and tau, and how regions are pooled.

  python tests/benchmarks/benchmark_codes.py --features=DIR --output=DIR2
  python tests/benchmarks/benchmark_codes.py --features=DIR --variants=base,no_boxes --sets=clutter \
    --output=DIR2

DIR is the output of benchmark_defaults.py with the row `default`: its features and boxes are read, and made
if they are missing; --detector is that of benchmark_defaults.py. All variants have the visual words of the
codebook of the package. Projections that are learned are learned from photos that no set shows. Scores are
those of local features alone, without a global descriptor. Of landmarks and places, every third landmark is
searched, with all photos of it.

After each set DIR2/codes.md and codes.json are written: mAP in per cent, and paired differences to `base`
with 95 % bootstrap intervals over the queries. A run that is repeated with more variants or sets makes only
what is new.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402
from benchmarks import benchmark_defaults as defaults  # noqa: E402
from benchmarks import development_sets as development  # noqa: E402

from delf_d2r import aggregator  # noqa: E402
from delf_d2r.data.artefacts import codebook_files, records  # noqa: E402
from delf_d2r.data.artefacts.artefact import Artefact  # noqa: E402
from delf_d2r.data.ground_truth.ground_truth import GroundTruth  # noqa: E402
from delf_d2r.data.photos.image_list import ImageList  # noqa: E402
from delf_d2r.evaluation import protocol  # noqa: E402
from delf_d2r.evaluation.significance import bootstrap_interval  # noqa: E402
from delf_d2r.index import InvertedIndex  # noqa: E402
from delf_d2r.kernels import aggregation as kernels  # noqa: E402
from delf_d2r.kernels.aggregation import Kernel, ResidualSums  # noqa: E402
from delf_d2r.kernels.projection import Projection  # noqa: E402
from delf_d2r.kernels.similarity import selectivity  # noqa: E402
from delf_d2r.protos.codebook_pb2 import CodebookConfig, ProjectionConfig  # noqa: E402
from delf_d2r.stages import train_codebook  # noqa: E402
from delf_d2r.structures import AggregatedDescriptor, ImageFeatures  # noqa: E402

THIN = {'landmarks': 3, 'places': 3}
# Nearest words of a query's descriptor that any variant looks at.
_MOST_ASSIGNMENTS = 3


@dataclasses.dataclass(frozen=True)
class Variant:
  """One way to make codes and to compare them.

  Attributes:
    projection: the kind of projection of RootSIFT's and of DELF's residuals.
    bits: B, of a code.
    alpha, tau: of the selectivity.
    regions: MASKS, NONE (whole images), POOLED (R-ASMK*, divided by the number of words) or SEARCH.
    whole_weight: of the whole image, where regions are pooled.
    pooling: MEAN (of the normalised residual sums of regions, as in the paper), UNIT (each word's residual
    sum of
      unit length in each region) or MAJORITY (of the signs of the regions).
    area_power: weights of boxes are areas to this power.
    assignments: words of each descriptor of a query.
    asymmetric: whether the residuals of a query stay floats.
    most: greatest number of features of a region of each kind; 0: all.
  """

  projection: tuple[str, str] = ('ROTATION', 'NONE')
  bits: int = 128
  alpha: float = 3.0
  tau: float = 0.0
  regions: str = 'MASKS'
  whole_weight: float = 0.25
  pooling: str = 'MEAN'
  area_power: float = 0.0
  assignments: int = 1
  asymmetric: bool = False
  most: tuple[int, int] = (0, 0)


def _variants() -> dict[str, Variant]:
  found = {
    'base': Variant(),
    'no_boxes': Variant(regions='NONE'),
    'regional_search': Variant(regions='SEARCH'),
  }
  found['pooled'] = Variant(regions='POOLED', whole_weight=1)
  for alpha in (2.0, 2.5, 3.0, 3.5, 4.0):
    for tau in (0.0, 0.1, 0.2, 0.25, 0.3):
      found[f'alpha_{alpha:g}_tau_{tau:g}'] = Variant(alpha=alpha, tau=tau)
  del found['alpha_3_tau_0']
  kinds = ('NONE', 'ROTATION', 'PCA_ROTATION', 'ITQ')
  for sift in kinds:
    for delf in kinds:
      if (sift, delf) != ('ROTATION', 'NONE'):
        found[f'{sift.lower()}_{delf.lower()}'] = Variant(projection=(sift, delf))
  for bits in (96, 64, 32):
    for sift in ('ROTATION', 'PCA_ROTATION', 'ITQ'):
      for delf in kinds:
        found[f'bits_{bits}_{sift.lower()}_{delf.lower()}'] = Variant(projection=(sift, delf), bits=bits)
  for alpha in (2.0, 2.5, 3.5, 4.0):
    for tau in (0.0, 0.2):
      for delf in ('PCA_ROTATION', 'ITQ'):
        name = f'bits_64_itq_{delf.lower()}_alpha_{alpha:g}_tau_{tau:g}'
        found[name] = Variant(projection=('ITQ', delf), bits=64, alpha=alpha, tau=tau)
  for weight in (1.0, 0.5, 0.1, 0.05):
    found[f'whole_{weight:g}'] = Variant(whole_weight=weight)
  for pooling in ('UNIT', 'MAJORITY'):
    for weight in (1.0, 0.25):
      found[f'{pooling.lower()}_whole_{weight:g}'] = Variant(pooling=pooling, whole_weight=weight)
  for power in (-0.5, 0.5):
    found[f'area_{power:g}'] = Variant(area_power=power)
  for assignments in (2, 3):
    found[f'query_words_{assignments}'] = Variant(assignments=assignments)
  for alpha in (2.0, 2.5, 3.0):
    found[f'asymmetric_alpha_{alpha:g}'] = Variant(alpha=alpha, asymmetric=True)
  for most in ((500, 1000), (1000, 500), (250, 1000), (1000, 250)):
    found[f'most_{most[0]}_{most[1]}'] = Variant(most=most)
  return found


VARIANTS = _variants()


@dataclasses.dataclass(frozen=True)
class Described:
  """Images of a set with their residual sums.

  Attributes:
    names: of the images.
    sums: of the regions of each image.
    areas: float64 [R], the area of each region of each image, as a share of the image.
  """

  names: list[str]
  sums: list[ResidualSums]
  areas: list[np.ndarray]


class Codes:
  """Makes the descriptors of variants."""

  def __init__(self, codebook: pathlib.Path, training: Artefact):
    """Takes the codebook of the package, and features of photos to learn projections from."""
    self.centroids = np.ascontiguousarray(codebook_files.load_centroids(codebook))
    shipped = codebook_files.load_projection(codebook)
    assert shipped is not None, 'the codebook of the package has a projection'
    self._shipped = shipped
    self.kinds = shipped.kinds
    self._config = training.config
    self._assign = aggregator.approximate_assigner(self.centroids)
    images = map(records.decode_features, training.records())
    descriptors = [image.region(0).descriptors for image in images]
    rng = np.random.default_rng(0)
    self._training = rng.permutation(np.concatenate(descriptors))[:100_000]

  @functools.cache  # noqa: B019 - one object a run
  def projection(self, kinds: tuple[str, str], bits: int) -> Projection:
    if kinds == ('ROTATION', 'NONE') and bits == self._shipped.bits:
      return self._shipped
    origins = train_codebook.unit_origins(self._config.extraction, self.centroids.shape[1])
    values = [ProjectionConfig.Kind.Value(kind) for kind in kinds]
    options = CodebookConfig(bits=bits, projection=ProjectionConfig(kinds=values))
    learned = train_codebook.learn_projection(self.centroids, self._training, origins, options)
    if learned is None:
      same = np.eye(self.centroids.shape[1], bits, dtype=np.float32)
      learned = Projection(np.array([same] * 2), self.kinds)
    return learned

  def describe(self, image: ImageFeatures, *, assignments: int = 1, most: tuple[int, int] = (0, 0)):
    """Returns the residual sums of an image, and the areas of its regions."""
    image = image.take_regions(range(min(image.num_regions, kernels.MASKED_REGIONS)))
    words = self._assign(image.features.descriptors, assignments)
    kept = np.ones(len(words), bool)
    if any(most):
      kinds = self.kinds[words[:, 0]]
      for start, end in zip(image.region_offsets, image.region_offsets[1:], strict=False):
        for kind, number in enumerate(most):
          own = start + np.flatnonzero(kinds[start:end] == kind)
          order = np.argsort(-image.features.attention[own], kind='stable')
          kept[own[order[number:]]] = False
    offsets = np.concatenate([[0], np.cumsum(kept)])[image.region_offsets]
    sums = kernels.sum_residuals(image.features.descriptors[kept], words[kept], offsets, self.centroids)
    return sums, np.prod(image.boxes[:, 2:] - image.boxes[:, :2], axis=1).astype(np.float64)

  def index_image(self, sums: ResidualSums, areas: np.ndarray, variant: Variant) -> AggregatedDescriptor:
    """Returns the descriptor of an image, of all its regions."""
    if variant.regions == 'NONE':
      return self.one_region(sums, 0, variant)
    weights = areas**variant.area_power
    weights[0] = 1
    if len(weights) > 1:
      weights[0] = variant.whole_weight
    projection = self.projection(variant.projection, variant.bits)
    if variant.pooling == 'MEAN':
      words, pooled = kernels.pool_regions(sums, weights)
      projected = projection(words, pooled)
    else:
      values = sums.sums
      if variant.pooling == 'MAJORITY':
        values = np.where(projection(sums.words, values) > 0, np.float32(1), np.float32(-1))
      else:
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
      words, first = np.unique(sums.words, return_index=True)
      weighted = values * weights[sums.regions, None].astype(np.float32)
      projected = np.add.reduceat(weighted, first, axis=0) if len(first) else weighted
      if variant.pooling != 'MAJORITY':
        projected = projection(words, projected)
    masks = kernels.masks_of_words(sums)
    found = masks > 0
    codes = kernels.binarize(projected[found])
    return AggregatedDescriptor(
      words[found].astype(np.uint32),
      codes,
      variant.bits,
      masks[found] if variant.regions == 'MASKS' else None,
    )

  def one_region(self, sums: ResidualSums, region: int, variant: Variant) -> AggregatedDescriptor:
    """Returns the descriptor of one region alone, as a query or for regional search."""
    own = sums.regions == region
    words, values = sums.words[own], sums.sums[own]
    present, _ = kernels.present_words(values)
    codes = kernels.binarize(self.projection(variant.projection, variant.bits)(words, values))[present]
    return AggregatedDescriptor(words[present].astype(np.uint32), codes, variant.bits)

  def float_query(self, sums: ResidualSums, variant: Variant) -> tuple[np.ndarray, np.ndarray]:
    """Returns the words of a query and its projected residuals of unit length."""
    present, _ = kernels.present_words(sums.sums)
    words = sums.words[present]
    values = self.projection(variant.projection, variant.bits)(words, sums.sums[present])
    return words, values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


def scores(codes: Codes, images: Described, queries: Sequence[ResidualSums], variant: Variant) -> np.ndarray:
  """Returns the scores of all images for all queries, float32 [Q, M]."""
  pairs = list(zip(images.sums, images.areas, strict=True))
  if variant.asymmetric:
    return _asymmetric_scores(codes, [codes.index_image(*pair, variant) for pair in pairs], queries, variant)
  owners = None
  if variant.regions == 'SEARCH':
    owners = [n for n, (sums, _) in enumerate(pairs) for _ in range(sums.num_regions)]
    entries = (codes.one_region(sums, r, variant) for sums, _ in pairs for r in range(sums.num_regions))
  else:
    entries = (codes.index_image(*pair, variant) for pair in pairs)
  index = InvertedIndex.build(
    entries,
    images.names,
    num_words=len(codes.centroids),
    kernel=Kernel.ASMK_STAR,
    dimensions=variant.bits,
    region_masks=variant.regions == 'MASKS',
    entry_images=owners,
  )
  options = {'alpha': variant.alpha, 'tau': variant.tau, 'normalize': True}
  described = (codes.one_region(sums, 0, variant) for sums in queries)
  return np.array([index.scores(query, **options).values.copy() for query in described])


def _asymmetric_scores(codes, descriptors, queries, variant) -> np.ndarray:
  """Returns the scores of float queries against the codes of images with region masks."""
  owners = np.repeat(np.arange(len(descriptors)), [len(each) for each in descriptors])
  words = np.concatenate([each.visual_words for each in descriptors]).astype(np.int64)
  order = np.argsort(words, kind='stable')
  owners, words = owners[order], words[order]
  bits = np.concatenate([each.values for each in descriptors])[order]
  masks = np.concatenate([each.region_masks for each in descriptors])[order]
  in_region = np.unpackbits(masks[:, None], axis=1, bitorder='little').astype(bool)
  sizes = np.zeros((len(descriptors), kernels.MASKED_REGIONS))
  np.add.at(sizes, owners, in_region)
  starts = np.searchsorted(words, np.arange(len(codes.centroids) + 1))
  found = np.zeros((len(queries), len(descriptors)), np.float32)
  for number, sums in enumerate(queries):
    own_words, values = codes.float_query(sums, variant)
    totals = np.zeros(sizes.shape)
    for word, value in zip(own_words, values, strict=True):
      part = slice(starts[word], starts[word + 1])
      signs = np.unpackbits(bits[part], axis=1)[:, : variant.bits].astype(np.float32) * 2 - 1
      u = signs @ value / np.sqrt(np.float32(variant.bits))
      gains = selectivity(u, alpha=variant.alpha, tau=variant.tau)
      # An image has a word once.
      totals[owners[part]] += gains[:, None] * in_region[part]
    found[number] = (totals / np.sqrt(np.maximum(sizes, 1))).max(axis=1)
  return found


class Sets:
  """The development sets with their features."""

  def __init__(self, flags):
    self._row = flags.row
    row = {each.name: each for each in defaults.TABLES['default']}[flags.row]
    self.photos = development.link_photos(flags.features / 'photos')
    trained_on = (*development.codebook_facades(), *development.codebook_places())[::4]
    self._benchmark = defaults.Benchmark(
      [row],
      flags.features,
      ImageList(self.photos, trained_on),
      workers=flags.workers,
      detectors=defaults.detectors_of(flags.detector),
    )
    self._folder = flags.features

  def training(self) -> tuple[pathlib.Path, Artefact]:
    """Returns the codebook of the package, unpacked, and features to learn projections from."""
    return self._benchmark.training_inputs(self._row)

  def load(self, name: str) -> tuple[GroundTruth, dict[str, int], Artefact, Artefact]:
    """Returns the ground truth, the ids of the images that are searched, and all features and queries."""
    (search_set,) = defaults.development_search_sets([name], self._folder)
    features, queries = self._benchmark.inputs(self._row, search_set)
    truth = development.thinned(development.SETS[name](), THIN.get(name, 1))
    places = {image: n for n, image in enumerate(truth.index_images)}
    return truth, places, features, queries


def describe_set(
  codes: Codes,
  truth: GroundTruth,
  places: Mapping[str, int],
  features: Artefact,
  queries: Artefact,
  variants: Sequence[Variant],
) -> tuple[Described, list[ResidualSums]]:
  """Returns the images and queries of a set, for variants of the same `most` and `assignments`."""
  ((most, assignments),) = {(variant.most, variant.assignments) for variant in variants}
  found = []
  for image in map(records.decode_features, features.records()):
    if image.name in places:
      found.append((image.name, *codes.describe(image, most=most)))
  found.sort(key=lambda each: places[each[0]])
  images = Described(*map(list, zip(*found, strict=True)))
  wanted = {query.name for query in truth.queries}
  own = {
    image.name: codes.describe(image, assignments=assignments, most=most)[0]
    for image in map(records.decode_features, queries.records())
    if image.name in wanted
  }
  return images, [own[query.name] for query in truth.queries]


def average_precisions(found: np.ndarray, truth, names: Sequence[str]) -> list[float]:
  """Returns the average precision of each query by its scores [M], ties broken by image id."""
  ids = {name: n for n, name in enumerate(names)}
  precisions = []
  for values, query in zip(found, truth.queries, strict=True):
    ranked = np.argsort(-values, kind='stable')
    positives = np.array([ids[name] for name in query.easy])
    junk = np.array([ids[name] for name in query.junk], np.int64)
    precisions.append(protocol.evaluate_query(ranked, positives, junk).average_precision)
  return precisions


def write(results: dict[str, dict[str, list[float]]], output: pathlib.Path) -> pathlib.Path:
  """Writes the average precisions of all variants and sets, and a table of them."""
  output.mkdir(parents=True, exist_ok=True)
  (output / 'codes.json').write_text(json.dumps(results, sort_keys=True), encoding='utf-8')
  sets = [name for name in development.SETS if any(name in own for own in results.values())]
  lines = [f'| variant | {" | ".join(sets)} | mean |', '|---' * (len(sets) + 2) + '|']
  for name, own in results.items():
    cells = []
    for each in sets:
      if each not in own:
        cells.append('')
        continue
      text = f'{100 * np.mean(own[each]):.1f}'
      if name != 'base' and each in results.get('base', {}):
        interval = bootstrap_interval(np.array(own[each]), np.array(results['base'][each]), seed=0)
        low, high = 100 * interval.low, 100 * interval.high
        text += f' ({100 * interval.mean:+.1f} [{low:+.1f}, {high:+.1f}])'
      cells.append(text)
    mean = np.mean([100 * np.mean(own[each]) for each in sets if each in own])
    lines.append(f'| {name} | {" | ".join(cells)} | {mean:.1f} |')
  path = output / 'codes.md'
  path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
  return path


def main(flags) -> None:
  wanted = flags.variants.split(',') if flags.variants else list(VARIANTS)
  names = flags.sets.split(',') if flags.sets else list(development.SETS)
  stored = flags.output / 'codes.json'
  results = json.loads(stored.read_text(encoding='utf-8')) if stored.exists() else {}
  results = {name: results.get(name, {}) for name in VARIANTS if name in {*wanted, *results}}
  sets = Sets(flags)
  codes = Codes(*sets.training())
  for name in names:
    missing = [variant for variant in wanted if name not in results[variant]]
    groups: dict[tuple, list[str]] = {}
    for variant in missing:
      groups.setdefault((VARIANTS[variant].most, VARIANTS[variant].assignments), []).append(variant)
    if not missing:
      continue
    truth, places, features, queries = sets.load(name)
    for group in groups.values():
      described = describe_set(codes, truth, places, features, queries, [VARIANTS[each] for each in group])
      for variant in group:
        started = time.perf_counter()
        found = scores(codes, *described, VARIANTS[variant])
        results[variant][name] = average_precisions(found, truth, described[0].names)
        mean = 100 * np.mean(results[variant][name])
        print(f'{name}: {variant}: mAP {mean:.1f} ({time.perf_counter() - started:.0f} s)', flush=True)
        write(results, flags.output)
  print(write(results, flags.output).read_text())


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--features', type=pathlib.Path, required=True, help='Output of benchmark_defaults.py.')
  parser.add_argument('--row', default='default', help='The row, `default_no_boxes` for whole images.')
  parser.add_argument(
    '--variants', default='', help='Some of those below, separated by commas; default: all.'
  )
  parser.add_argument('--sets', default='', help=f'Some of {",".join(development.SETS)}; default: all.')
  parser.add_argument('--detector', action='append', default=[], help='As of benchmark_defaults.py.')
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.epilog = 'Variants: ' + ', '.join(VARIANTS)
  main(parser.parse_args())
