"""A data set: a folder of index images and, optionally, queries with ground truth."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence

from delf_d2r.data.artefacts.artefact import Input
from delf_d2r.data.ground_truth import ground_truth as ground_truths
from delf_d2r.data.ground_truth.ground_truth import GroundTruth, QueryGroundTruth
from delf_d2r.data.photos.image_list import ImageList


@dataclasses.dataclass(frozen=True)
class Queries:
  """Queries and their photos.

  Attributes:
    images: the photo of each query, in the order of the queries; several queries may share a photo.
    ground_truth: the queries.
  """

  images: ImageList
  ground_truth: GroundTruth

  def __len__(self) -> int:
    return len(self.images)

  def items(self) -> list[tuple[QueryGroundTruth, str]]:
    """Returns each query with the name of its photo."""
    return list(zip(self.ground_truth.queries, self.images.names, strict=True))

  def as_input(self) -> Input:
    """Returns photos and boxes as an input of an artefact; no feature depends on the labels."""
    boxes = [(query.name, query.image, query.box, query.box_pixels) for query in self.ground_truth.queries]
    digest = hashlib.sha256((self.images.fingerprint + json.dumps(boxes)).encode()).hexdigest()[:16]
    return Input('queries', digest, self.images.root.resolve())


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The index images of a run and its queries.

  Attributes:
    images: the index images.
    queries: the queries; None: there is nothing to evaluate.
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
    exclude: Sequence[str] = (),
    strict: bool = False,
  ) -> 'Dataset':
    """Reads the folder of photos and the ground truth.

    Args:
      images: folder of photos. All of them are index images unless the ground truth lists them.
      ground_truth: `.json`, or `.pkl` or `.mat` of Revisited; None: a folder without queries.
      query_images: folder of the query photos; None: the same as `images`.
      exclude: globs of files and folders to leave out, see `ImageList.from_folder`.
      strict: whether a folder that may not be read is an error instead of being left out.

    Raises:
      UserError: there are no photos, or the ground truth is not readable or names photos that are missing.
    """
    photos = ImageList.from_folder(images, exclude=exclude, strict=strict)
    if ground_truth is None:
      return cls(photos)
    truth = ground_truths.load(ground_truth)
    query_photos = photos
    if query_images:
      query_photos = ImageList.from_folder(query_images, exclude=exclude, strict=strict)
    queries = Queries(
      query_photos.select([query.image for query in truth.queries], source=f'{ground_truth}: query images'),
      truth,
    )
    index_images = photos
    if truth.index_images:
      index_images = photos.select(truth.index_images, source=f'{ground_truth}: index images')
    # A label that names a missing photo is an error now, not after hours of extraction.
    ground_truths.resolve(truth, index_images.names)
    return cls(index_images, queries)
