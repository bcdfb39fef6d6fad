"""Features that many experiments share: each photo, and each box of a photo, is extracted once.

Experiments with the same extraction differ in their boxes: none, detected, random, uniform, true. Extracted
experiment by experiment, the whole image would be extracted once for each source of boxes, and is the larger
part of the work. So the boxes of all experiments go into one extraction, and each experiment gets features
that are composed of its regions: the whole image and its own boxes. The features of a region depend on the
photo and the box alone (region_extractor.py), so they are those that `extract_features` gives with the boxes
of that experiment (crops of one shape pass through a network together, which can change the last digits).

Later experiments with further boxes extract those boxes, and the whole images once more.

All artefacts are those of the library's stages, in folders that are named by what they are made from: photos,
boxes, config and models. Work that was killed is resumed, and what was made from other models stays aside.
"""

import csv
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from delf_d2r import config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import (
  artefact_writer,
  feature_files,
  read_photos,
  records,
  shard_ledger,
)
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Input, Plan
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.data.boxes import csv_file
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.extractors import registry
from delf_d2r.protos.experiment_pb2 import ExperimentConfig
from delf_d2r.protos.manifest_pb2 import Manifest
from delf_d2r.protos.regions_pb2 import RegionsConfig
from delf_d2r.stages import detect_boxes, extract_features
from delf_d2r.stages.shared import sharded
from delf_d2r.structures import WHOLE_IMAGE, ImageFeatures, LocalFeatures


def digest(*parts: object) -> str:
  return hashlib.sha256('\n'.join(map(str, parts)).encode()).hexdigest()[:16]


@functools.cache
def model_inputs(extraction_text: bytes) -> tuple[Input, ...]:
  """Returns the models that the features of a serialised ExtractionConfig are made with, as their inputs."""
  extraction = ExperimentConfig.FromString(extraction_text).extraction
  return tuple(
    Input(role, files.fingerprint(path), path) for role, path in registry.model_files(extraction).items()
  )


class FeatureCache:
  """The features of photos, in a folder."""

  def __init__(self, folder: pathlib.Path, *, workers: int):
    self._folder = folder
    self._workers = workers

  def prepare(self, config: ExperimentConfig, photos: ImageList, boxes: Sequence[Artefact]) -> None:
    """Extracts photos, and those of their boxes that have not been extracted, in one go."""
    whole = self._whole_path(config, photos)
    missing = self._missing(whole, photos, boxes)
    if any(map(len, missing.values())):
      self._extract_regions(config, photos, whole, missing)
    elif not (whole / MANIFEST).exists() and not self._stores(whole):
      self._extract(config, photos, whole, boxes=None)
    if not (whole / MANIFEST).exists():
      self._copy_whole_images(self._stores(whole)[0], whole)

  def features(
    self, config: ExperimentConfig, photos: ImageList, boxes: Artefact | None, *, on_disk: bool = False
  ) -> Artefact:
    """Returns the features of photos and of their boxes (None: of whole images).

    Args:
      config: its part `extraction` says how.
      photos: the photos.
      boxes: the artefact of detect_boxes, of these photos.
      on_disk: whether single records are read, as spatial verification does. Otherwise the records are
        composed whenever they are read, and need no disk.
    """
    self.prepare(config, photos, [boxes] if boxes else [])
    whole = Artefact.open(self._whole_path(config, photos), 'features')
    if not boxes or not boxes.counts['boxes']:
      return whole
    composed = compose(whole, boxes, self._stores(whole.path))
    if not on_disk:
      return composed
    plan = Plan('features', composed.config, _planned_inputs(composed))
    return self._write(
      self._folder / f'boxed-{plan.fingerprint}',
      plan,
      lambda: map(records.decode_features, composed.records()),
      total=composed.counts['images'],
    )

  def query_features(
    self, config: ExperimentConfig, queries: Queries, photos: Sequence[ImageList] = ()
  ) -> Artefact:
    """Returns the features of queries.

    A query without a box is a whole photo: `RegionExtractor.extract_query` then is `extract` without boxes,
    and region 0 of an index image is extracted before and apart from its boxes, at the same sizes. So the
    whole-image features of a photo are those of a query that shows it, and such queries, which in
    leave-one-out are all of them, are not extracted a second time.

    Args:
      config: its part `extraction` says how.
      queries: the queries.
      photos: lists of photos that have the photos of all queries, which then must not have boxes; none: the
        queries are extracted.
    """
    plan = Plan(
      'features',
      ExperimentConfig(extraction=config.extraction),
      (queries.as_input(), *_model_inputs(config)),
    )
    place = self._folder / f'queries-{plan.fingerprint}'
    if not photos:
      return extract_features.run_queries(config, queries, place, workers=self._workers)
    boxed = [query.name for query in queries.ground_truth.queries if query.box or query.box_pixels]
    if boxed:
      raise ValueError(f'expected queries that are whole photos, found a box of {boxed[0]}')
    store = FeatureStore(*(self.features(config, part, None) for part in photos))
    position = {name: n for n, name in enumerate(name for part in photos for name in part.names)}
    return self._write(
      place,
      plan,
      lambda: (
        dataclasses.replace(store.read(name, position=position[name]), name=query.name)
        for query, name in queries.items()
      ),
      total=len(queries),
    )

  def _whole_path(self, config: ExperimentConfig, photos: ImageList) -> pathlib.Path:
    plan = Plan(
      'features',
      ExperimentConfig(extraction=config.extraction),
      (photos.as_input(), *_model_inputs(config)),
    )
    return self._folder / f'whole-{plan.fingerprint}'

  def _stores(self, whole: pathlib.Path) -> list[Artefact]:
    """Returns the finished extractions with boxes that belong to features of whole images."""
    key = whole.name.removeprefix('whole-')
    found = sorted(self._folder.glob(f'regions-{key}-*/features/{MANIFEST}'))
    return [Artefact.open(path.parent, 'features') for path in found]

  def _missing(
    self, whole: pathlib.Path, photos: ImageList, boxes: Sequence[Artefact]
  ) -> dict[str, dict[bytes, np.ndarray]]:
    """Returns the boxes of each photo that no finished extraction has, by their bytes."""
    missing: dict[str, dict[bytes, np.ndarray]] = {name: {} for name in photos.names}
    for artefact in boxes:
      for name, found in map(records.decode_boxes, artefact.records()):
        missing[name] |= {box.tobytes(): box for box in found.coordinates}
    for store in self._stores(whole):
      extracted = Artefact.open(store.require_input('boxes').path, 'boxes')
      for name, found in map(records.decode_boxes, extracted.records()):
        for box in found.coordinates:
          missing[name].pop(box.tobytes(), None)
    return missing

  def _extract_regions(
    self,
    config: ExperimentConfig,
    photos: ImageList,
    whole: pathlib.Path,
    wanted: dict[str, dict[bytes, np.ndarray]],
  ) -> None:
    # The shortest decimals that give the same float32 again.
    rows = [(name, *map(str, box)) for name, boxes in wanted.items() for box in boxes.values()]
    place = self._folder / f'regions-{whole.name.removeprefix("whole-")}-{digest(*rows)}'
    place.mkdir(parents=True, exist_ok=True)
    with open(place / 'boxes.csv', 'w', encoding='utf-8', newline='') as file:
      csv.writer(file, lineterminator='\n').writerows([csv_file.COLUMNS, *rows])
    from_file = configs.resolve(ExperimentConfig(regions=RegionsConfig(source=RegionsConfig.FILE)))
    boxes = detect_boxes.run(from_file, Dataset(photos), place / 'boxes', boxes_path=place / 'boxes.csv')
    self._extract(config, photos, place / 'features', boxes=boxes)

  def _extract(
    self, config: ExperimentConfig, photos: ImageList, place: pathlib.Path, *, boxes: Artefact | None
  ) -> None:
    extract_features.run(config, Dataset(photos), place, boxes=boxes, workers=self._workers)

  def _copy_whole_images(self, store: Artefact, whole: pathlib.Path) -> None:
    inputs = tuple(item for item in _planned_inputs(store) if item.role != 'boxes')
    plan = Plan('features', ExperimentConfig(extraction=store.config.extraction), inputs)
    self._write(
      whole,
      plan,
      lambda: (image.take_regions([0]) for image in feature_files.read(store)),
      total=store.counts['images'],
    )

  def _write(
    self, place: pathlib.Path, plan: Plan, images: Callable[[], Iterable[ImageFeatures]], *, total: int
  ) -> Artefact:
    with artefact_writer.writing(place, plan) as writer:
      if writer.finished:
        return writer.reuse('features')
      sharded.write_results(
        writer,
        lambda shards: map(_outcome, shard_ledger.items_of(shards, images())),
        total=total,
        per_shard=1024,
        what='features, copied',
      )
      return writer.finish()


def _model_inputs(config: ExperimentConfig) -> tuple[Input, ...]:
  return model_inputs(ExperimentConfig(extraction=config.extraction).SerializeToString(deterministic=True))


def _planned_inputs(artefact: Artefact) -> tuple[Input, ...]:
  """Returns the inputs without the contents of the photos, which the writer of an artefact adds by itself."""
  return tuple(item for item in artefact.inputs if item.role != read_photos.ROLE)


def _outcome(image: ImageFeatures) -> sharded.Outcome:
  return sharded.Outcome(image.name, records.encode_features(image), feature_files.counts(image))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComposedFeatures(Artefact):
  """Features of the whole images and of some boxes, read from several artefacts.

  Stages that read the records one after the other (aggregate_features, train_codebook) take it as they take
  an artefact of extract_features.

  Attributes:
    whole: features of the whole images.
    boxes: the boxes of each image.
    stores: features of, among others, all of these boxes.
  """

  whole: Artefact
  boxes: Artefact
  stores: tuple[Artefact, ...]

  def records(self) -> Iterator[bytes]:
    """Yields the record of each image: the whole image, then its boxes in their order."""
    stores = [FeatureStore(store) for store in self.stores]
    boxes = dict(map(records.decode_boxes, self.boxes.records()))
    for position, image in enumerate(feature_files.read(self.whole)):
      wanted = [box.tobytes() for box in boxes[image.name].coordinates]
      found: dict[bytes, LocalFeatures] = {}
      for store in stores:
        if found.keys() >= set(wanted):
          break
        stored = store.read(image.name, position=position)
        places = {box.tobytes(): r for r, box in enumerate(stored.boxes) if r}
        found |= {box: stored.region(places[box]) for box in wanted if box in places}
      parts = [image.region(0), *(found[box] for box in wanted)]
      composed = ImageFeatures(
        image.name,
        image.height,
        image.width,
        np.concatenate([np.array([WHOLE_IMAGE], np.float32), boxes[image.name].coordinates]),
        np.cumsum([0, *map(len, parts)], dtype=np.int64),
        LocalFeatures.concatenate(parts),
      )
      yield records.encode_features(composed)


def compose(whole: Artefact, boxes: Artefact, stores: Sequence[Artefact]) -> ComposedFeatures:
  """Returns the features of images and boxes, with the config and inputs that extract_features gives them."""
  config = ExperimentConfig(extraction=whole.config.extraction, regions=boxes.config.regions)
  images, *others = _planned_inputs(whole)
  plan = Plan('features', config, (images, boxes.as_input('boxes'), *others))
  manifest: Manifest = plan.to_manifest(whole.path)
  counts = {
    'images': whole.counts['images'],
    'regions': whole.counts['images'] + boxes.counts['boxes'],
    'whole_features': whole.counts['whole_features'],
    'failed': whole.counts['failed'],
  }
  for name in sorted(counts):
    manifest.counts.add(name=name, value=counts[name])
  return ComposedFeatures(whole.path, manifest, whole=whole, boxes=boxes, stores=tuple(stores))
