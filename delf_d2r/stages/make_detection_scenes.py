"""make_detection_scenes: photos of objects and of backgrounds to composed scenes with exact boxes."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.read_photos import PhotoFiles
from delf_d2r.data.boxes import training_boxes
from delf_d2r.data.boxes.training_boxes import DEFAULT_CLASS, PhotoBoxes
from delf_d2r.data.photos import images
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.scenes import composed_scenes, pasting
from delf_d2r.data.scenes.composed_scenes import SceneSources
from delf_d2r.data.training import detection_examples, split
from delf_d2r.data.training.detection_examples import DetectionExample
from delf_d2r.errors import ImageError, PhotoUnavailableError, UserError
from delf_d2r.protos import detection_data_pb2, experiment_pb2
from delf_d2r.runtime import worker_pool
from delf_d2r.stages.shared import detection_writing
from delf_d2r.stages.shared.detection_writing import KIND, PARTS
from delf_d2r.stages.shared.sharded import DEFAULTS, JobBatch, Options, Outcome

Config = detection_data_pb2.DetectionScenesConfig


# The number of a scene to compose, or the outcome of a photo that cannot be used.
_SceneJob = int | Outcome


@dataclasses.dataclass(frozen=True)
class _Part:
  """The sources of one part, train or validation: photos that are not decoded yet."""

  objects: tuple[PhotoBoxes, ...]
  backgrounds: tuple[tuple[str, pathlib.Path], ...]
  scenes: range


def run(
  config: experiment_pb2.ExperimentConfig,
  objects: ImageList,
  backgrounds: Sequence[ImageList],
  output: pathlib.Path,
  *,
  boxes_path: str | pathlib.Path | None = None,
  options: Options = DEFAULTS,
) -> dict[str, Artefact]:
  """Writes the directories `train` and `validation` of composed scenes below `output`.

  Invalid boxes and photos that are missing or cannot be decoded are named in `errors.jsonl`; scenes are
  composed of the others.

  Args:
    config: its part `detection_scenes` says how.
    objects: photos of objects.
    backgrounds: lists of photos that show no object to be found, at least one.
    output: the directory of both parts.
    boxes_path: boxes of the objects, in a form of data/boxes/training_boxes.py; photos without a box are not
      used. None: every photo of `objects` is one object that fills it.
    options: how to work.

  Returns:
    The artefacts `train` and, if there is any validation, `validation`.

  Raises:
    UserError: the boxes cannot be read, a part has no object or no background, or the output cannot be
      written.
    ImageError: with `options.strict`, for the first box or photo that cannot be used.
  """
  settings = config.detection_scenes
  merged = experiment_pb2.ExperimentConfig(detection_scenes=settings)
  inputs = [objects.as_input('objects')]
  inputs += [photos.as_input(f'backgrounds {number}') for number, photos in enumerate(backgrounds, 1)]
  if boxes_path:
    boxes_path = pathlib.Path(boxes_path)
    inputs.append(Input('boxes', files.content_fingerprint(boxes_path), boxes_path.resolve()))
    found = training_boxes.read(boxes_path, objects)
  else:
    found = training_boxes.whole_photos(objects)
  parts = _parts(settings, found, backgrounds)
  for part in parts:
    _require_sources(part, parts[part].objects, parts[part].backgrounds)
  return {
    part: detection_writing.write(
      output / part,
      Plan(KIND, merged, (*inputs, Input('part', part, pathlib.Path(part)))),
      functools.partial(_prepare, part, parts[part], settings, options),
      what=f'detection scenes ({part})',
      classes=(DEFAULT_CLASS,),
      per_shard=settings.scenes_per_shard,
      options=options,
      photos=_files_of(inputs[0], parts[part], options),
    )
    for part in parts
  }


def _files_of(planned: Input, part: _Part, options: Options) -> PhotoFiles:
  """Returns the objects and backgrounds of a part, which are tried again if they could not be read."""
  paths = {photo.name: photo.path for photo in part.objects if photo.path is not None and len(photo)}
  paths |= dict(part.backgrounds)
  return PhotoFiles(
    planned=planned,
    items=list(paths),
    names=list(paths),
    path=paths.__getitem__,
    decode=images.load_image,
    stamps=(),
    plan_again=lambda: planned,
    strict=options.strict,
    one_each=False,
  )


def _parts(settings: Config, objects: Sequence[PhotoBoxes], backgrounds: Sequence[ImageList]):
  """Returns the photos and scenes of each part; there is no validation if it would have no scenes.

  For a photo of objects of several groups the first group in the alphabet decides.
  """
  num_validation = round(settings.num_scenes * settings.validation_share)
  num_train = settings.num_scenes - num_validation
  share = settings.validation_share if num_validation else 0.0

  def validates(key: str) -> bool:
    return split.in_validation(key, share=share, seed=settings.seed)

  useful = [
    (photo, validates(min(photo.groups, default='') or photo.name))
    for photo in objects
    if len(photo) or photo.problems
  ]
  fields = [(name, photos.path(name), validates(name)) for photos in backgrounds for name in photos.names]
  scenes = {'train': range(num_train), 'validation': range(num_train, settings.num_scenes)}
  return {
    part: _Part(
      tuple(photo for photo, in_validation in useful if in_validation == (part == 'validation')),
      tuple((name, path) for name, path, in_validation in fields if in_validation == (part == 'validation')),
      scenes[part],
    )
    for part in PARTS[: 1 + bool(num_validation)]
  }


def _require_sources(part: str, objects: Sequence, backgrounds: Sequence) -> None:
  if not objects or not backgrounds:
    raise UserError(
      f'{part}: there must be an object and a background, found {len(objects)} photos of objects and'
      f' {len(backgrounds)} backgrounds. Give more, change detection_scenes.seed, or set validation_share: 0'
    )


def _prepare(name: str, part: _Part, settings: Config, options: Options) -> JobBatch[_SceneJob, Outcome]:
  """Decodes every photo of a part once, and returns its scenes, composed of those that can be decoded."""
  paths = [photo.path for photo in part.objects if photo.path is not None and len(photo)]
  paths += [path for _, path in part.backgrounds]
  found = worker_pool.map_groups(
    _make_check,
    ([path] for path in paths),
    num_groups=len(paths),
    workers=options.workers,
    lost=lambda path, reason: f'{path}: {reason}',
  )
  errors: dict[pathlib.Path | None, str] = dict(zip(paths, found, strict=True))
  unusable = []
  for photo in part.objects:
    problems = (*photo.problems, *filter(None, (errors.get(photo.path),)))
    if problems:
      unusable.append(Outcome(photo.name, errors=problems))
  unusable += [Outcome(name, errors=(errors[path],)) for name, path in part.backgrounds if errors[path]]
  sources = SceneSources(
    tuple(photo for photo in part.objects if len(photo) and not errors[photo.path]),
    tuple(path for _, path in part.backgrounds if not errors[path]),
  )
  _require_sources(name, sources.objects, sources.backgrounds)
  jobs: list[_SceneJob] = [*unusable, *part.scenes]
  return JobBatch(
    jobs,
    total=len(jobs),
    make_function=functools.partial(_make_function, settings, sources),
    lost=lambda job, reason: Outcome(f'scene {job}', errors=(f'scene {job}: {reason}',)),
  )


def _make_check() -> Callable[[Sequence[pathlib.Path]], list[str]]:
  return lambda paths: list(map(_check, paths))


def _check(path: pathlib.Path) -> str:
  """Returns why a photo cannot be decoded; '' if it can."""
  try:
    images.load_image(path)
  except PhotoUnavailableError:
    raise
  except ImageError as error:
    return str(error)
  return ''


def _make_function(settings: Config, sources: SceneSources) -> Callable[[Sequence[_SceneJob]], list[Outcome]]:
  """Returns the function of a worker."""
  return lambda jobs: [_outcome(job, settings, sources) for job in jobs]


def _outcome(job: _SceneJob, settings: Config, sources: SceneSources) -> Outcome:
  if isinstance(job, Outcome):
    return job
  scene = composed_scenes.compose(sources, settings, job)
  height, width = scene.pixels.shape[:2]
  example = DetectionExample(
    name=f'scene_{job:06d}.jpg',
    source_id=job,
    encoded=pasting.encode_jpeg(scene.pixels, scene.jpeg_quality),
    format='jpeg',
    height=height,
    width=width,
    boxes=scene.boxes,
    labels=np.ones(len(scene.boxes), np.int64),
    texts=(DEFAULT_CLASS,) * len(scene.boxes),
    groups=scene.groups,
  )
  counts = {
    'images': 1,
    'boxes': len(scene.boxes),
    'without_boxes': int(not len(scene.boxes)),
    f'{scene.kind}_scenes': 1,
  }
  return Outcome(example.name, detection_examples.encode(example), counts)
