"""Artefacts of features: one record for each image, and their counts."""

from collections.abc import Iterator

from delf_d2r.data.artefacts import records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.shard_ledger import ShardWriter
from delf_d2r.structures import ImageFeatures


def counts(image: ImageFeatures) -> dict[str, int]:
  """Returns the share of one image in the counts of its artefact."""
  return {
    'images': 1,
    'features': len(image.features),
    'whole_features': int(image.region_offsets[1]),
    'regions': image.num_regions,
    'without_features': int(not len(image.features)),
  }


def add(file: ShardWriter, image: ImageFeatures) -> None:
  """Appends the features of an image, and their counts, to a shard."""
  file.add(records.encode_features(image), **counts(image))


def read(artefact: Artefact) -> Iterator[ImageFeatures]:
  """Yields the features of every image of an artefact, in order."""
  return map(records.decode_features, artefact.records())
