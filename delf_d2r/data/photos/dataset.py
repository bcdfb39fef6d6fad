"""A data set: a folder of index images and, if wanted, queries with ground truth."""

import dataclasses
import hashlib
import json
import pathlib

from delf_d2r.data.artefacts.artefact import Input
from delf_d2r.data.ground_truth import ground_truth as ground_truths
from delf_d2r.data.ground_truth.ground_truth import GroundTruth, QueryGroundTruth
from delf_d2r.data.photos.image_list import ImageList


@dataclasses.dataclass(frozen=True)
class Queries:
  """Query images with their boxes.

  Attributes:
    images: the photo of each query; several queries may share one.
    ground_truth: the queries themselves, in the same order.
  """

  images: ImageList
  ground_truth: GroundTruth

  def __len__(self) -> int:
    return len(self.images)

  def items(self) -> list[tuple[QueryGroundTruth, str]]:
    """Each query with the name of its photo."""
    return list(zip(self.ground_truth.queries, self.images.names, strict=True))

  def as_input(self) -> Input:
    """Photos and boxes, the labels left out: they change no feature."""
    boxes = [(query.name, query.image, query.box, query.box_pixels) for query in self.ground_truth.queries]
    digest = hashlib.sha256((self.images.fingerprint + json.dumps(boxes)).encode()).hexdigest()[:16]
    return Input('queries', digest, self.images.root.resolve())


@dataclasses.dataclass(frozen=True)
class Dataset:
  """What a run works on.

  Attributes:
    images: the index images.
    queries: the query images, or None where there is nothing to score.
  """

  images: ImageList
  queries: Queries | None = None

  @classmethod
  def load(
    cls,
    images: str | pathlib.Path,
    *,
    ground_truth: str | pathlib.Path | None = None,
    query_images: str | pathlib.Path | None = None,
  ) -> 'Dataset':
    """Reads the folder of photos and the ground truth.

    Args:
      images: folder of photos. All of them are index images unless the ground truth lists them.
      ground_truth: `.json`, Revisited's `.pkl` or `.mat`; None for a folder without queries.
      query_images: folder of the query photos; None: the same as `images`.

    Raises:
      UserError: no photos, or the ground truth is no ground truth or names photos that are not there.
    """
    photos = ImageList.from_folder(images)
    if ground_truth is None:
      return cls(photos)
    truth = ground_truths.load(ground_truth)
    query_photos = ImageList.from_folder(query_images) if query_images else photos
    queries = Queries(
      query_photos.select([query.image for query in truth.queries], source=f'{ground_truth}: query images'),
      truth,
    )
    index_images = photos
    if truth.index_images:
      index_images = photos.select(truth.index_images, source=f'{ground_truth}: index images')
    # Fails now, not after hours of extraction, if a label names a photo that is not there.
    ground_truths.resolve(truth, index_images.names)
    return cls(index_images, queries)
