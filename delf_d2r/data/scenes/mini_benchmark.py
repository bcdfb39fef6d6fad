"""A miniature landmark benchmark, generated from a seed: photos, exact boxes and ground truth.

Each object appears in `scenes_per_object` composed scenes of rising size; distractor scenes show objects that
no query asks for. Labels serve the protocols of Revisited (Radenovic et al., CVPR 2018): `easy` where the
object is large and nearly whole, `hard` where it is small or occluded, `junk` where hardly any of it is left.

A directory of the benchmark holds

    index/*.jpg          index images, 640 x 480
    queries/*.jpg        the objects' own photos (of the motorcycle, a second view)
    boxes.csv            image,ymin,xmin,ymax,xmax: the visible part of the object of each index image
    ground_truth.json    queries with boxes and labels (delf_d2r.data.ground_truth); index images are
                         named relative to index/, query images relative to queries/
    attribution.txt      source and licence of each photo
    mini_benchmark.json  seed and sizes; written last
"""

import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from delf_d2r.data import mini_benchmark_scenes as scenes
from delf_d2r.data.boxes.csv_file import COLUMNS
from delf_d2r.data.files import explained, sync_directory, write_atomically
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.scenes import mini_benchmark_photos as photos
from delf_d2r.data.scenes import pasting
from delf_d2r.data.scenes.mini_benchmark_photos import ObjectPhoto, object_photos
from delf_d2r.errors import ArtefactError

__all__ = ['MiniBenchmark', 'generate', 'label_scene', 'object_photos']

_MANIFEST = 'mini_benchmark.json'
_VERSION = 1  # To be raised with every change that moves a byte of the output.
_QUERY_JPEG_QUALITY = 92

# Thresholds of the labels, on shares of the scene's area and of the object's.
EASY_MIN_AREA = 0.2
EASY_MAX_HIDDEN = 0.25
JUNK_MIN_HIDDEN = 0.65


@dataclasses.dataclass(frozen=True)
class MiniBenchmark:
  """Where the parts of a generated benchmark lie.

  Attributes:
    images_dir: folder of the index images.
    queries_dir: folder of the query images.
    ground_truth_path: JSON ground truth, of the form of `delf_d2r.data.ground_truth.ground_truth`.
    boxes_path: CSV of the true boxes of the index images.
  """

  images_dir: Path
  queries_dir: Path
  ground_truth_path: Path
  boxes_path: Path


def label_scene(*, visible_area: float, hidden: float) -> str:
  """`'easy'`, `'hard'` or `'junk'`.

  Args:
    visible_area: share of the scene that the visible part of the object covers.
    hidden: share of the object that cannot be seen.
  """
  if hidden >= JUNK_MIN_HIDDEN:
    return 'junk'
  return 'easy' if visible_area >= EASY_MIN_AREA and hidden <= EASY_MAX_HIDDEN else 'hard'


def generate(
  output: Path,
  *,
  seed: int = 0,
  scenes_per_object: int = 8,
  num_distractors: int = 48,
  progress: Callable[[int, int], None] | None = None,
) -> MiniBenchmark:
  """Generates the benchmark into `output`, or finds it there.

  The same arguments give the same bytes, given the same versions of OpenCV, Pillow and the photos' wheels.
  Everything is written to `<output>.partial` and renamed at the end, so that `output` is complete or absent.

  Args:
    output: directory of the benchmark; absent, empty, or written by an earlier call with the same arguments.
    seed: seed of all scenes; scene number n draws from `default_rng([seed, n])`.
    scenes_per_object: index images of each object, at least 1.
    num_distractors: index images of objects that no query asks for.
    progress: called after each index image with the numbers of images done and of all images.

  Returns:
    The paths of the benchmark's parts.

  Raises:
    ValueError: a seed or number that is too small.
    ArtefactError: `output` holds a benchmark of other arguments, or something else.
    UserError: a wheel that carries photos is not installed, or `output` cannot be written.
  """
  for name, value, least in (
    ('seed', seed, 0),
    ('scenes_per_object', scenes_per_object, 1),
    ('num_distractors', num_distractors, 0),
  ):
    if value < least:
      raise ValueError(f'{name}: expected at least {least}, found {value}')
  output = Path(output)
  settings = {
    'version': _VERSION,
    'seed': seed,
    'scenes_per_object': scenes_per_object,
    'num_distractors': num_distractors,
  }
  with explained('writing the mini benchmark', output):
    if not _is_complete(output, settings):
      partial = output.with_name(output.name + '.partial')
      shutil.rmtree(partial, ignore_errors=True)  # what an interrupted run has left
      try:
        _write(_parts(partial), settings, progress or (lambda done, total: None))
        write_atomically(partial / _MANIFEST, json.dumps(settings, indent=2) + '\n')
        partial.rename(output)
      except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
      sync_directory(output.parent)
  return _parts(output)


def _parts(output: Path) -> MiniBenchmark:
  return MiniBenchmark(
    output / 'index', output / 'queries', output / 'ground_truth.json', output / 'boxes.csv'
  )


def _is_complete(output: Path, settings: dict) -> bool:
  """Whether `output` holds the benchmark of `settings`; raises where it holds anything else."""
  if not output.exists() or (output.is_dir() and not any(output.iterdir())):
    return False
  manifest = output / _MANIFEST
  if not manifest.is_file():
    raise ArtefactError(
      f'{output}: expected an absent or empty directory or a mini benchmark, found something else;'
      ' choose another directory'
    )
  found = json.loads(manifest.read_text())
  if found != settings:
    raise ArtefactError(
      f'{output}: expected the mini benchmark of {settings}, found that of {found};'
      ' delete the directory or choose another'
    )
  return True


@dataclasses.dataclass(frozen=True)
class _IndexImage:
  """What is known about one index image; `shown` is None for a distractor."""

  name: str
  box: tuple[float, float, float, float]
  label: str
  shown: ObjectPhoto | None


def _write(parts: MiniBenchmark, settings: dict, progress: Callable[[int, int], None]) -> None:
  index_images = _write_index_images(parts.images_dir, settings, progress)
  _write_boxes(parts.boxes_path, index_images)
  _write_queries(parts.queries_dir)
  truth = ground_truth.GroundTruth(
    name='mini_benchmark',
    index_images=tuple(image.name for image in index_images),
    queries=tuple(_query(shown, index_images) for shown in object_photos()),
  )
  ground_truth.save_json(truth, parts.ground_truth_path)
  write_atomically(parts.images_dir.parent / 'attribution.txt', photos.attribution())


def _write_index_images(
  folder: Path, settings: dict, progress: Callable[[int, int], None]
) -> list[_IndexImage]:
  """Composes and writes all scenes; the images in order of name."""
  shown_in = [shown for shown in object_photos() for _ in range(settings['scenes_per_object'])]
  shown_in += [None] * settings['num_distractors']
  # Scenes get shuffled numbers, so that neither a name nor an image id tells what an image shows: ties are
  # broken by image id.
  numbers = np.random.default_rng(settings['seed']).permutation(len(shown_in))
  folder.mkdir(parents=True)
  index_images = []
  per_object = settings['scenes_per_object']
  for n, shown in enumerate(shown_in):
    rng = np.random.default_rng([settings['seed'], n])
    if shown is None:
      scene = scenes.distractor_scene(rng)
    else:
      scene = scenes.object_scene(rng, shown, n % per_object, per_object)
    label = label_scene(visible_area=scene.visible_area, hidden=scene.hidden)
    index_images.append(_IndexImage(f'scene_{numbers[n]:05d}.jpg', scene.box, label, shown))
    (folder / index_images[-1].name).write_bytes(pasting.encode_jpeg(scene.pixels, scene.jpeg_quality))
    progress(n + 1, len(shown_in))
  return sorted(index_images, key=lambda image: image.name)


def _write_boxes(path: Path, index_images: list[_IndexImage]) -> None:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(COLUMNS)
  writer.writerows((image.name, *(f'{side:.7f}' for side in image.box)) for image in index_images)
  write_atomically(path, text.getvalue())


def _write_queries(folder: Path) -> None:
  folder.mkdir()
  for shown in object_photos():
    data = pasting.encode_jpeg(photos.load_photo(shown.query_photo), _QUERY_JPEG_QUALITY)
    (folder / _query_image(shown)).write_bytes(data)


def _query_image(shown: ObjectPhoto) -> str:
  return f'{shown.name}.jpg'


def _query(shown: ObjectPhoto, index_images: list[_IndexImage]) -> ground_truth.QueryGroundTruth:
  def named(label: str) -> tuple[str, ...]:
    return tuple(image.name for image in index_images if image.shown == shown and image.label == label)

  return ground_truth.QueryGroundTruth(
    name=shown.name,
    image=_query_image(shown),
    box=shown.query_box,
    easy=named('easy'),
    hard=named('hard'),
    junk=named('junk'),
  )
