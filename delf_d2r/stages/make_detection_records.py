"""make_detection_records: photos and a file of their boxes to the records that a detector is trained on."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.read_photos import PhotoFiles, ReadPhoto, Use
from delf_d2r.data.boxes import training_boxes
from delf_d2r.data.boxes.training_boxes import DEFAULT_CLASS, PhotoBoxes
from delf_d2r.data.photos import images
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.photos.photo_state import PhotoState
from delf_d2r.data.scenes import pasting
from delf_d2r.data.training import detection_examples, split
from delf_d2r.data.training.detection_examples import DetectionExample
from delf_d2r.errors import ImageError, PhotoUnavailableError, UserError
from delf_d2r.extractors import resize
from delf_d2r.protos import detection_data_pb2, experiment_pb2
from delf_d2r.stages.shared import detection_writing, photo_reading, sharded
from delf_d2r.stages.shared.detection_writing import KIND, PARTS
from delf_d2r.stages.shared.sharded import DEFAULTS, JobBatch, Options, Outcome

Config = detection_data_pb2.DetectionRecordsConfig

# TensorFlow can decode files of these formats and modes; others are encoded again.
_FORMATS = {'JPEG': 'jpeg', 'PNG': 'png'}
_MODES = ('RGB', 'L')


@dataclasses.dataclass(frozen=True)
class _Job:
  """One photo of the file or the folder, numbered over both parts."""

  number: int
  photo: PhotoBoxes


def run(
  config: experiment_pb2.ExperimentConfig,
  photos: ImageList,
  boxes_path: str | pathlib.Path,
  output: pathlib.Path,
  *,
  validation_boxes_path: str | pathlib.Path | None = None,
  landmarks_path: str | pathlib.Path | None = None,
  options: Options = DEFAULTS,
) -> dict[str, Artefact]:
  """Writes the directories `train` and `validation` of records below `output`.

  Invalid boxes, missing photos and photos that cannot be decoded are named in `errors.jsonl`. The other boxes
  of a photo are kept. A photo without a valid box is left out, unless it has no boxes at all and
  `keep_without_boxes` makes it a negative.

  Args:
    config: its part `detection_records` says how.
    photos: the photos.
    boxes_path: their boxes; see data/boxes/training_boxes.py for the kinds of file.
    output: the directory of both parts.
    validation_boxes_path: boxes of the photos to validate on (the published second split); None: a share of
      the photos of `boxes_path`.
    landmarks_path: `train.csv` of Google Landmarks, which has the landmark of every id.
    options: how to work.

  Returns:
    The artefacts `train` and, if there is any validation, `validation`.

  Raises:
    UserError: a file of boxes cannot be read, no photo is left to train on, or the output cannot be written.
    ImageError: with `options.strict`, for the first box or photo that cannot be used.
  """
  settings = config.detection_records
  classes = tuple(settings.classes) or (DEFAULT_CLASS,)
  merged = experiment_pb2.ExperimentConfig(detection_records=settings)
  paths = {'boxes': boxes_path, 'validation boxes': validation_boxes_path, 'landmarks': landmarks_path}
  inputs = [
    photos.as_input(),
    *(
      Input(role, files.content_fingerprint(path), pathlib.Path(path).resolve())
      for role, path in paths.items()
      if path
    ),
  ]
  jobs = _jobs(settings, photos, boxes_path, validation_boxes_path, landmarks_path)
  if not jobs['train']:
    raise UserError(
      f'{boxes_path}: no photo is left to train on; {len(jobs["validation"])} are for validation. Lower'
      ' detection_records.validation_share, change seed, or set split_by_group: false'
    )
  made = {}
  for part in PARTS:
    if part == 'train' or jobs[part]:
      made[part] = detection_writing.write(
        output / part,
        Plan(KIND, merged, (*inputs, Input('part', part, pathlib.Path(part)))),
        functools.partial(_batch, jobs[part], settings, classes),
        what=f'detection records ({part})',
        classes=classes,
        per_shard=settings.images_per_shard,
        options=options,
        photos=_files_of(photos, jobs[part], settings, options),
      )
  return made


def _files_of(photos: ImageList, jobs: Sequence[_Job], settings: Config, options: Options) -> PhotoFiles:
  """Returns the photo of each job. Some jobs have none, but errors of the file of boxes."""
  stamps = dict(zip(photos.names, photos.stamps, strict=True))
  names = [job.photo.name for job in jobs]
  return PhotoFiles(
    planned=photos.as_input(),
    items=names,
    names=names,
    path=photos.path,
    decode=lambda path: _read(path, settings),
    stamps=[stamps.get(name, (-1, -1, -1)) for name in names],
    plan_again=lambda: ImageList(photos.root, photos.names).as_input(),
    strict=options.strict,
  )


def _jobs(
  settings: Config,
  photos: ImageList,
  boxes_path: str | pathlib.Path,
  validation_boxes_path: str | pathlib.Path | None,
  landmarks_path: str | pathlib.Path | None,
) -> dict[str, list[_Job]]:
  """Returns the photos of each part, without those that have no boxes and are no negatives."""
  read = [training_boxes.read(boxes_path, photos, landmarks_path=landmarks_path)]
  if validation_boxes_path:
    validation = training_boxes.read(validation_boxes_path, photos, landmarks_path=landmarks_path)
    _require_disjoint(read[0], validation, boxes_path, validation_boxes_path)
    read.append(validation)
  jobs: dict[str, list[_Job]] = {part: [] for part in PARTS}
  number = 0
  for source, found in enumerate(read):
    for photo in found:
      number += 1
      is_negative = not photo.boxes.size and not photo.problems
      # With two files, a photo without a box in one may have boxes in the other.
      if is_negative and (not settings.keep_without_boxes or len(read) > 1):
        continue
      validates = source == 1 if len(read) > 1 else _validates(photo, settings)
      jobs[PARTS[validates]].append(_Job(number, photo))
  return jobs


def _validates(photo: PhotoBoxes, settings: Config) -> bool:
  """Returns whether a photo is for validation; of several groups the first in the alphabet decides."""
  groups = sorted(set(photo.groups) - {''}) if settings.split_by_group else ()
  key = groups[0] if groups else photo.name
  return split.in_validation(key, share=settings.validation_share, seed=settings.seed)


def _require_disjoint(
  train: Sequence[PhotoBoxes],
  validation: Sequence[PhotoBoxes],
  boxes_path: str | pathlib.Path,
  validation_boxes_path: str | pathlib.Path,
) -> None:
  """Raises UserError if a photo has boxes in both files."""
  common = {photo.name for photo in train if len(photo)} & {photo.name for photo in validation if len(photo)}
  if common:
    raise UserError(
      f'{validation_boxes_path}: {len(common)} photos have boxes in {boxes_path} too, for example'
      f' {min(common)!r}. Validate on photos that are not trained on'
    )


def _batch(jobs: Sequence[_Job], settings: Config, classes: Sequence[str]) -> JobBatch[_Job, Outcome]:
  return JobBatch(
    jobs,
    total=len(jobs),
    make_function=functools.partial(_make_function, settings, classes),
    lost=_lost,
  )


def _lost(job: _Job, reason: str) -> Outcome:
  """Returns the result of a job that kills its workers."""
  photo = photo_reading.lost(job.photo.path) if job.photo.path else ReadPhoto()
  return Outcome(job.photo.name, errors=(f'{job.photo.name}: {reason}',), photo=photo)


def _make_function(settings: Config, classes: Sequence[str]) -> Callable[[Sequence[_Job]], list[Outcome]]:
  """Returns the function of a worker."""
  return lambda jobs: [_outcome(job, settings, classes) for job in jobs]


def _outcome(job: _Job, settings: Config, classes: Sequence[str]) -> Outcome:
  photo, errors = job.photo, list(job.photo.problems)
  if settings.classes:
    photo = training_boxes.select_classes(photo, classes)
  else:
    photo = dataclasses.replace(photo, classes=(classes[0],) * len(photo))
  counts = {'other_classes': len(job.photo) - len(photo)}
  is_negative = not len(job.photo) and not errors
  if photo.path is None or not (len(photo) or is_negative):
    return Outcome(photo.name, counts=counts, errors=tuple(errors), photo=ReadPhoto())
  try:
    found = _read(photo.path, settings)
  except PhotoUnavailableError:
    raise
  except ImageError as error:
    return Outcome(photo.name, counts=counts, errors=(*errors, str(error)), photo=photo_reading.FAILED)
  example = DetectionExample(
    name=photo.name,
    source_id=job.number,
    encoded=found.encoded,
    format=found.format,
    height=found.height,
    width=found.width,
    boxes=photo.boxes,
    labels=np.array([classes.index(name) + 1 for name in photo.classes], np.int64),
    texts=photo.classes,
    groups=photo.groups,
  )
  counts |= {'boxes': len(photo), 'without_boxes': int(is_negative)}
  counts |= {sharded.TRUNCATED: 1} if found.is_truncated else {}
  return Outcome(
    photo.name,
    detection_examples.encode(example),
    {'images': 1, **counts},
    tuple(errors),
    photo=ReadPhoto(Use.READ, found.state),
  )


@dataclasses.dataclass(frozen=True)
class _Encoded:
  """A photo as it is put into a record, and the state of its file."""

  encoded: bytes
  format: str
  height: int
  width: int
  state: PhotoState
  is_truncated: bool


def _read(path: pathlib.Path, settings: Config) -> _Encoded:
  """Reads a photo once; takes its own bytes if they can be used, and encodes it again otherwise."""
  data, state = images.read_bytes(path, max_megapixels=settings.max_megapixels)
  with images.open_image(data, name=str(path), max_megapixels=settings.max_megapixels) as image:
    form = _FORMATS.get(image.format or '')
    as_it_is = (
      image.mode in _MODES and 'transparency' not in image.info and images.exif_orientation(image) == 1
    )
    # Decoded in any case, since only that shows whether a file is complete.
    rgb, is_truncated = images.decode(image)
    pixels = np.asarray(rgb)
  resized = resize.resize(pixels, max_size=settings.max_image_size, min_size=0)
  height, width = resized.shape[:2]
  if form is not None and as_it_is and resized is pixels and not is_truncated:
    return _Encoded(data, form, height, width, state, is_truncated)
  encoded = pasting.encode_jpeg(resized, settings.jpeg_quality)
  return _Encoded(encoded, 'jpeg', height, width, state, is_truncated)
