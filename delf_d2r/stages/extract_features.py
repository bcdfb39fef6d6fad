"""extract_features: photos and boxes to local features of every region, and query crops to theirs."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from absl import logging

from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, feature_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.artefact_writer import ERRORS, ArtefactWriter
from delf_d2r.data.artefacts.read_photos import PhotoFiles
from delf_d2r.data.ground_truth.ground_truth import QueryGroundTruth
from delf_d2r.data.photos import images
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import ImageError, PhotoUnavailableError, UserError
from delf_d2r.extractors import network_runtime, reduction, region_extractor, registry
from delf_d2r.extractors.region_extractor import RegionExtractor
from delf_d2r.protos import experiment_pb2, extraction_pb2
from delf_d2r.runtime.worker_pool import Workers
from delf_d2r.stages.shared import photo_reading, sharded
from delf_d2r.stages.shared.sharded import JobBatch, Options, Outcome
from delf_d2r.structures import Boxes


def run(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  output: pathlib.Path,
  *,
  boxes: Artefact | None,
  workers: Workers = None,
  strict: bool = False,
  redo: bool = False,
) -> Artefact:
  """Extracts the whole of every index image and every box.

  A photo that cannot be decoded is named in `errors.jsonl` and left out of the artefact.

  Args:
    config: its part `extraction` says how.
    dataset: the photos.
    output: the artefact directory.
    boxes: the artefact of detect_boxes, of the same photos; None: no boxes.
    workers: processes (None: one for each core), or those of a cluster.
    strict: stop at the first photo that cannot be decoded.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

  Raises:
    UserError: no photo could be decoded, or the output cannot be written.
    ImageError: with `strict`, for the first photo that cannot be decoded.
  """
  photos = dataset.images
  merged = experiment_pb2.ExperimentConfig(extraction=config.extraction)
  inputs = [photos.as_input()]
  if boxes:
    merged.regions.CopyFrom(boxes.config.regions)
    inputs.append(boxes.as_input('boxes'))
  jobs = sharded.Repeatable(
    lambda: (
      Job(name, photos.path(name), boxes=found)
      for name, found in zip(photos.names, _boxes_of(photos.names, boxes), strict=True)
    )
  )
  files_read = _files_of(photos, ImageList.as_input, config.extraction, strict=strict)
  return _extract(
    merged, inputs, files_read, jobs, output, what='index images', options=Options(workers, strict, redo)
  )


def run_queries(
  config: experiment_pb2.ExperimentConfig,
  queries: Queries,
  output: pathlib.Path,
  *,
  workers: Workers = None,
  strict: bool = False,
  redo: bool = False,
) -> Artefact:
  """Extracts the query images, each cut to its box first; records carry the queries' names.

  Arguments and errors are those of `run`.
  """
  merged = experiment_pb2.ExperimentConfig(extraction=config.extraction)
  jobs = [Job(query.name, queries.images.path(name), query=query) for query, name in queries.items()]
  inputs = [queries.as_input()]
  files_read = _files_of(
    queries.images,
    lambda photos: dataclasses.replace(queries, images=photos).as_input(),
    config.extraction,
    items=[job.name for job in jobs],
    strict=strict,
  )
  return _extract(
    merged, inputs, files_read, jobs, output, what='query images', options=Options(workers, strict, redo)
  )


def _files_of(
  photos: ImageList,
  as_input: Callable[[ImageList], Input],
  config: extraction_pb2.ExtractionConfig,
  *,
  items: Sequence[str] = (),
  strict: bool,
) -> PhotoFiles:
  return photo_reading.files_of(
    photos,
    as_input,
    items=items,
    apply_exif_orientation=config.apply_exif_orientation,
    max_megapixels=config.max_megapixels,
    strict=strict,
  )


@dataclasses.dataclass(frozen=True)
class Job:
  """One photo to extract.

  Attributes:
    name: of the photo or the query.
    path: the photo.
    boxes: those of an index image; None: no boxes, or a query.
    query: the query; None for an index image.
  """

  name: str
  path: pathlib.Path
  boxes: Boxes | None = None
  query: QueryGroundTruth | None = None


def _boxes_of(names: Sequence[str], artefact: Artefact | None) -> Iterator[Boxes]:
  """Yields the boxes of every name.

  They are most likely stored in the order of the names; boxes of other names are kept until they are needed.
  """
  stored = map(records.decode_boxes, artefact.records() if artefact else ())
  failed = {error['name'] for error in artefact_writer.read_errors(artefact)}
  kept: dict[str, Boxes] = {}
  for name in names:
    while name not in kept and name not in failed and (record := next(stored, None)):
      kept.update([record])
    yield kept.pop(name, Boxes.empty())


def _extract(
  config: experiment_pb2.ExperimentConfig,
  inputs: Sequence[Input],
  photos: PhotoFiles,
  jobs: Iterable[Job],
  output: pathlib.Path,
  *,
  what: str,
  options: Options,
) -> Artefact:
  # What AUTO chooses here is recorded, and is what all workers use.
  config.extraction.CopyFrom(network_runtime.resolved(config.extraction))
  extraction = config.extraction
  # Before any worker loads a model.
  reduction.require_usable(extraction)
  plan = Plan('features', config, (*inputs, *_model_inputs(extraction)))
  with artefact_writer.writing(output, plan, redo=options.redo, photos=photos) as writer:
    if writer.finished:
      return writer.reuse(f'features of {what}')
    batch = JobBatch(
      jobs,
      total=len(photos.items),
      make_function=functools.partial(_make_extraction, extraction),
      lost=lambda job, reason: Outcome(
        job.name, errors=(f'{job.path}: {reason}',), photo=photo_reading.lost(job.path)
      ),
      uses_network=registry.record(extraction.extractor).uses_network,
    )
    remarks = _Remarks()
    sharded.write_records(
      writer,
      batch,
      what=f'features of {what}',
      per_shard=extraction.images_per_shard,
      options=options,
      observe=remarks.add,
    )
    _require_features(writer, what, remarks.note)
    artefact = writer.finish()
  _log_counts(artefact, what)
  return artefact


def _model_inputs(config: extraction_pb2.ExtractionConfig) -> list[Input]:
  """Returns the files of a network and its PCA: other weights at the same place make features stale."""
  return [Input(role, files.fingerprint(path), path) for role, path in registry.model_files(config).items()]


def _make_extraction(config: extraction_pb2.ExtractionConfig) -> Callable[[Sequence[Job]], list[Outcome]]:
  """Builds the extractor of a config and returns the function of a worker."""
  extractor = region_extractor.build(config)
  return lambda jobs: [_extract_one(extractor, config, job) for job in jobs]


def _extract_one(extractor: RegionExtractor, config: extraction_pb2.ExtractionConfig, job: Job) -> Outcome:
  """Decodes one photo and extracts its features."""
  try:
    photo = images.read_photo(
      job.path,
      apply_exif_orientation=config.apply_exif_orientation,
      max_megapixels=config.max_megapixels,
    )
  except PhotoUnavailableError:
    raise
  except ImageError as error:
    return Outcome(job.name, errors=(str(error),), photo=photo_reading.FAILED)
  pixels = photo.pixels
  try:
    if job.query:
      found = extractor.extract_query(job.name, pixels, job.query.box_for(*pixels.shape[:2]))
    else:
      found = extractor.extract(job.name, pixels, job.boxes or Boxes.empty())
  except UserError as error:
    return Outcome(job.name, errors=(str(error),), photo=photo_reading.unusable(photo))
  except Exception as error:
    raise photo_reading.as_unavailable(error, job.path) or error from error
  note = '' if len(found.features) else extractor.note
  counts = feature_files.counts(found) | ({sharded.TRUNCATED: 1} if photo.is_truncated else {})
  return Outcome(job.name, records.encode_features(found), counts, note=note, photo=photo_reading.used(photo))


class _Remarks:
  """The first note of a photo in this run, which is logged at once.

  Attributes:
    note: why an image has no features; '' so far.
  """

  def __init__(self) -> None:
    self.note = ''

  def add(self, outcome: Outcome) -> None:
    if outcome.note and not self.note:
      logging.warning('%s: %s', outcome.name, outcome.note)
      self.note = outcome.note


def _require_features(writer: ArtefactWriter, what: str, note: str) -> None:
  """Raises UserError, and removes what was written, if nothing can be found with the artefact."""
  sharded.require_some(writer, what)
  counts = writer.ledger.counts
  if not counts['features']:
    writer.discard()
    remedy = note or (
      'Lower extraction.min_attention or root_sift.contrast_threshold, or let small photos be enlarged by'
      ' extraction.min_image_size'
    )
    raise UserError(f'no features at all in {counts["images"]} {what}. {remedy}')


def _log_counts(artefact: Artefact, what: str) -> None:
  names = ('features', 'regions', 'images', 'without_features', 'failed')
  logging.info(
    'features of %s: %d features in %d regions of %d photos; %d without features, %d could not be read',
    what,
    *(artefact.counts.get(name, 0) for name in names),
  )
  if artefact.counts['failed']:
    logging.warning('%d photos could not be read: %s', artefact.counts['failed'], artefact.path / ERRORS)
