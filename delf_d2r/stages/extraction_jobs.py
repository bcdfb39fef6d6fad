"""What a worker of extract_features does: one photo to one record of features."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from delf_d2r.data.artefacts import records
from delf_d2r.data.ground_truth.ground_truth import QueryGroundTruth
from delf_d2r.data.photos import images
from delf_d2r.errors import UserError
from delf_d2r.extractors import region_extractor
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import Boxes


@dataclasses.dataclass(frozen=True)
class Job:
  """One photo to extract: with the boxes of an index image, or as the photo of a query."""

  name: str
  path: pathlib.Path
  boxes: Boxes | None = None
  query: QueryGroundTruth | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The record of one photo, or the reason why there is none."""

  name: str
  record: bytes = b''
  features: int = 0
  whole_features: int = 0
  regions: int = 0
  error: str = ''
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Maker:
  """Makes the function that a worker runs; picklable, unlike the extractor."""

  config: extraction_pb2.ExtractionConfig

  def __call__(self) -> Callable[[Sequence[Job]], list[Outcome]]:
    extractor = region_extractor.build(self.config)
    return lambda jobs: [_extract_one(extractor, self.config, job) for job in jobs]


def _extract_one(extractor, config: extraction_pb2.ExtractionConfig, job: Job) -> Outcome:
  try:
    pixels = images.load_image(
      job.path,
      apply_exif_orientation=config.apply_exif_orientation,
      max_megapixels=config.max_megapixels,
    )
    if job.query:
      found = extractor.extract_query(job.name, pixels, job.query.box_for(*pixels.shape[:2]))
    else:
      found = extractor.extract(job.name, pixels, job.boxes)
  except UserError as error:
    return Outcome(job.name, error=str(error))
  return Outcome(
    job.name,
    record=records.encode_features(found),
    features=len(found.features),
    whole_features=int(found.region_offsets[1]),
    regions=found.num_regions,
    note='' if len(found.features) else extractor.note,
  )
