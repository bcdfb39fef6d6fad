"""Generates a miniature landmark benchmark from a seed: photos, exact boxes and ground truth.

Each object appears in `scenes_per_object` composed scenes, at increasing size; distractor scenes show objects
that no query shows. A scene is one photographed object in front of clutter cut from other photos. No query
shows any of these, so each scene contains one searchable object and no other.

Labels follow the protocols of Revisited Oxford and Paris (Radenovic et al., CVPR 2018): `easy` for objects
that are large and nearly complete, `hard` for small or occluded ones, `junk` for those that are almost
entirely hidden.

A directory of the benchmark holds

    index/*.jpg          index images, 640 x 480
    queries/*.jpg        the photos of the objects (of the motorcycle, a second view)
    boxes.csv            image,ymin,xmin,ymax,xmax: the visible part of the object of each index image
    ground_truth.json    queries with boxes and labels (delf_d2r.data.ground_truth); index images are
                         named relative to index/, query images relative to queries/
    attribution.txt      source and licence of each photo
    mini_benchmark.json  seed and sizes; written last

Frames: quadrilaterals are float [4, 2], `(x, y)` in pixels of the scene (OpenCV's order), clockwise from the
top left corner; pixel i covers [i, i + 1). Boxes are `[ymin, xmin, ymax, xmax]` normalised to [0, 1].
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from delf_d2r.data import csv_rows
from delf_d2r.data.boxes.csv_file import COLUMNS
from delf_d2r.data.files import sync_directory, user_errors, write_atomically
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.scenes import mini_benchmark_photos as photos
from delf_d2r.data.scenes import pasting
from delf_d2r.data.scenes.mini_benchmark_photos import ObjectPhoto, object_photos
from delf_d2r.errors import ArtefactError

__all__ = ['MiniBenchmark', 'generate', 'label_scene', 'object_photos']

_MANIFEST = 'mini_benchmark.json'
_VERSION = 1  # Raise it with every change that alters a byte of the output.
_QUERY_JPEG_QUALITY = 92

# Thresholds of the labels. Areas are shares of the scene, hidden parts are shares of the object.
EASY_MIN_AREA = 0.2
EASY_MAX_HIDDEN = 0.25
JUNK_MIN_HIDDEN = 0.65

SCENE_HEIGHT, SCENE_WIDTH = 480, 640

# Difficulty of the scenes. Sides are in pixels of the scene, angles in degrees.
_CLUTTER_PIECES = (12, 18)
_CLUTTER_SIDE = (110, 260)
_CLUTTER_ZOOM = (0.45, 0.9)
_TILT = 12.0
_PERSPECTIVE = 0.09
_BLUR_SIGMA = (0.4, 1.4)
_JPEG_QUALITY = (45, 90)
# Range of the share of the scene that its object covers.
_AREAS = (0.1, 0.6)
# Ranges of the occluded share of the object, used in turn by the scenes of an object. With 6 scenes or more,
# every object has easy scenes, hard scenes and junk.
_HIDDEN_RANGES = ((0, 0), (0.1, 0.4), (0, 0), (0.1, 0.4), (0, 0), (0.7, 0.8), (0, 0), (0.1, 0.4))


@dataclasses.dataclass(frozen=True)
class MiniBenchmark:
  """The paths of the parts of a generated benchmark.

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
  """Returns the label of a scene: `'easy'`, `'hard'` or `'junk'`.

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
  """Generates the benchmark in `output`, unless it is there already.

  The same arguments give the same bytes, as long as the versions of OpenCV, Pillow and the packages that
  provide the photos are the same. Everything is written to `<output>.partial` and renamed at the end, so
  `output` is either complete or absent.

  Args:
    output: directory of the benchmark; absent, empty, or written by an earlier call with the same arguments.
    seed: seed of all scenes; scene number n draws from `default_rng([seed, n])`.
    scenes_per_object: index images of each object, at least 1.
    num_distractors: index images of objects that no query shows.
    progress: called after each index image with the numbers of images done and of all images.

  Returns:
    The paths of the benchmark's parts.

  Raises:
    ValueError: the seed or a number is too small.
    ArtefactError: `output` holds a benchmark that was generated with other arguments, or something else.
    UserError: a package that provides photos is not installed, or `output` cannot be written.
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
  with user_errors('cannot write the mini benchmark', output):
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
  """Tells whether `output` holds the benchmark of `settings`; ArtefactError if it holds anything else."""
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
  """One index image: its box, its label and the object that it shows, which is None for a distractor."""

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
  """Composes and writes all scenes; returns the index images sorted by name."""
  shown_in: list[ObjectPhoto | None] = [
    shown for shown in object_photos() for _ in range(settings['scenes_per_object'])
  ]
  shown_in += [None] * settings['num_distractors']
  # Scenes are numbered in random order, so that neither a name nor an image id tells what an image shows: the
  # ties of a ranking are broken by image id.
  numbers = np.random.default_rng(settings['seed']).permutation(len(shown_in))
  folder.mkdir(parents=True)
  index_images = []
  per_object = settings['scenes_per_object']
  for n, shown in enumerate(shown_in):
    rng = np.random.default_rng([settings['seed'], n])
    scene = object_scene(rng, shown, n % per_object, per_object) if shown else distractor_scene(rng)
    label = label_scene(visible_area=scene.visible_area, hidden=scene.hidden)
    index_images.append(_IndexImage(f'scene_{numbers[n]:05d}.jpg', scene.box, label, shown))
    (folder / index_images[-1].name).write_bytes(pasting.encode_jpeg(scene.pixels, scene.jpeg_quality))
    progress(n + 1, len(shown_in))
  return sorted(index_images, key=lambda image: image.name)


def _write_boxes(path: Path, index_images: list[_IndexImage]) -> None:
  rows = [(image.name, *(f'{side:.7f}' for side in image.box)) for image in index_images]
  write_atomically(path, csv_rows.format_rows([COLUMNS, *rows]))


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


@dataclasses.dataclass(frozen=True)
class Scene:
  """A composed scene.

  Attributes:
    pixels: uint8 [SCENE_HEIGHT, SCENE_WIDTH, 3], RGB.
    mask: bool [SCENE_HEIGHT, SCENE_WIDTH], the pixels where the object is visible.
    hidden: share of the object's area that lies behind the occluder.
    jpeg_quality: the quality to encode the scene with, 1 to 100.
  """

  pixels: np.ndarray
  mask: np.ndarray
  hidden: float
  jpeg_quality: int

  @property
  def visible_area(self) -> float:
    """The share of the scene that the visible part of the object covers."""
    return float(self.mask.mean())

  @property
  def box(self) -> tuple[float, float, float, float]:
    """The smallest box around the visible pixels of the object.

    Raises:
      ValueError: no pixel of the object is visible.
    """
    found = pasting.mask_box(self.mask)
    if found is None:
      raise ValueError('Scene.box: expected visible pixels of the object, found none; lower `hidden`')
    return found


def object_scene(rng: np.random.Generator, shown: photos.ObjectPhoto, k: int, per_object: int) -> Scene:
  """Composes scene k of an object. The areas of its scenes are stratified on a logarithmic scale."""
  low, high = _AREAS
  area = low * (high / low) ** ((k + rng.uniform()) / per_object)
  return compose_scene(
    rng,
    photos.crop(photos.load_photo(shown.scene_photo), shown.scene_box),
    area=area,
    hidden=rng.uniform(*_HIDDEN_RANGES[k % len(_HIDDEN_RANGES)]),
  )


def distractor_scene(rng: np.random.Generator) -> Scene:
  """Composes a scene like the others whose object is a crop of a clutter photo."""
  low, high = _AREAS
  photo = photos.clutter_photos()[rng.integers(len(photos.clutter_photos()))]
  (top, left), (height, width) = rng.uniform(0, 0.35, 2), rng.uniform(0.5, 0.65, 2)
  return compose_scene(
    rng,
    photos.crop(photos.load_photo(photo), (top, left, top + height, left + width)),
    area=low * (high / low) ** rng.uniform(),
    hidden=rng.uniform(*_HIDDEN_RANGES[rng.integers(len(_HIDDEN_RANGES))]),
  )


def compose_scene(rng: np.random.Generator, pixels, *, area: float, hidden: float) -> Scene:
  """Composes one scene around one object.

  Args:
    rng: source of every random choice.
    pixels: uint8 [H, W, 3], the object.
    area: share of the scene that the whole object covers, in (0, 1). An object that does not fit into the
      scene is shrunk until it does.
    hidden: share of the object that a piece of another photo covers, in [0, 1).

  Returns:
    The scene, with the object warped by a homography, relit, blurred and partly occluded.
  """
  clutter = photos.clutter_photos()
  canvas = _background(rng, clutter)
  quad = _place_quad(rng, _shape_quad(rng, pixels.shape[1] / pixels.shape[0], area))
  sharp = pasting.shrink(pasting.relight(rng, pixels), quad)
  coverage = pasting.paste(canvas, cv2.GaussianBlur(sharp, (0, 0), rng.uniform(*_BLUR_SIGMA)), quad)
  if hidden:
    corners = pasting.corner_rectangle(rng, hidden)
    occluder = cv2.perspectiveTransform(corners[None], pasting.homography((1, 1), quad))[0]
    coverage *= 1 - pasting.paste(canvas, _clutter_piece(rng, clutter), occluder)
  mask = coverage >= 0.5
  return Scene(
    pixels=np.rint(canvas).clip(0, 255).astype(np.uint8),
    mask=mask,
    hidden=max(0.0, 1 - float(mask.sum()) / pasting.polygon_area(quad)),
    jpeg_quality=int(rng.integers(*_JPEG_QUALITY, endpoint=True)),
  )


def _background(rng, clutter) -> np.ndarray:
  """Returns a tinted surface under overlapping pieces of photos: float32 [H, W, 3]."""
  surfaces = photos.texture_photos()
  surface = pasting.relight(rng, photos.load_photo(surfaces[rng.integers(len(surfaces))]))
  canvas = cv2.resize(surface, (SCENE_WIDTH, SCENE_HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
  for _ in range(rng.integers(*_CLUTTER_PIECES, endpoint=True)):
    piece = _clutter_piece(rng, clutter)
    area = rng.uniform(*_CLUTTER_SIDE) ** 2 / (SCENE_HEIGHT * SCENE_WIDTH)
    centre = rng.uniform((0, 0), (SCENE_WIDTH, SCENE_HEIGHT))
    pasting.paste(canvas, piece, _shape_quad(rng, piece.shape[1] / piece.shape[0], area) + centre)
  return canvas


def _clutter_piece(rng, clutter) -> np.ndarray:
  """Returns a relit crop of a random photo: uint8 [h, w, 3]."""
  pixels = photos.load_photo(clutter[rng.integers(len(clutter))])
  sides = np.minimum(rng.uniform(*_CLUTTER_SIDE, 2) / rng.uniform(*_CLUTTER_ZOOM), pixels.shape[:2])
  top, left = rng.uniform((0, 0), pixels.shape[:2] - sides + 1e-6)
  piece = pixels[int(top) : int(top + sides[0]), int(left) : int(left + sides[1])]
  return pasting.relight(rng, piece)


def _shape_quad(rng, aspect: float, area: float) -> np.ndarray:
  """Returns a tilted rectangle in perspective around the origin; its area is a share of the scene's."""
  quad = pasting.tilted_quad(rng, aspect, tilt=_TILT, perspective=_PERSPECTIVE)
  return quad * np.sqrt(area * SCENE_HEIGHT * SCENE_WIDTH / pasting.polygon_area(quad))


def _place_quad(rng, quad) -> np.ndarray:
  """Moves `quad` to a random place inside the scene, after shrinking it if it does not fit."""
  scene = np.array([SCENE_WIDTH, SCENE_HEIGHT])
  quad = quad * min(1, *(scene / np.ptp(quad, axis=0)))
  slack = scene - np.ptp(quad, axis=0)
  return quad - quad.min(axis=0) + rng.uniform(0, 1, 2) * slack
