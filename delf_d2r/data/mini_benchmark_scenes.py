"""Composed scenes: one photographed object in front of clutter made of other photos.

Clutter comes from photos that no query shows, so a scene has its one object and no other.

Frames: quadrilaterals are float [4, 2], `(x, y)` in pixels of the scene (OpenCV's order), clockwise from the
top left corner; pixel i covers [i, i + 1). Boxes are `[ymin, xmin, ymax, xmax]` normalised to [0, 1].
"""

import dataclasses

import cv2
import numpy as np

from delf_d2r.data.scenes import mini_benchmark_photos as photos
from delf_d2r.data.scenes import pasting

SCENE_HEIGHT, SCENE_WIDTH = 480, 640

# The generator's difficulty. Areas and sizes are in pixels of the scene, angles in degrees.
_CLUTTER_PIECES = (12, 18)
_CLUTTER_SIDE = (110, 260)
_CLUTTER_ZOOM = (0.45, 0.9)
_TILT = 12.0
_PERSPECTIVE = 0.09
_BLUR_SIGMA = (0.4, 1.4)
_JPEG_QUALITY = (45, 90)
# Share of the scene that its object is to cover.
_AREAS = (0.1, 0.6)
# Ranges that the occluded share is drawn from, one for each scene of an object in turn. From 6 scenes on,
# every object has easy scenes, hard ones and junk.
_HIDDEN_RANGES = ((0, 0), (0.1, 0.4), (0, 0), (0.1, 0.4), (0, 0), (0.7, 0.8), (0, 0), (0.1, 0.4))


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
    """Share of the scene that the visible part of the object covers."""
    return float(self.mask.mean())

  @property
  def box(self) -> tuple[float, float, float, float]:
    """The smallest box around the visible pixels of the object.

    Raises:
      ValueError: no pixel of the object is visible.
    """
    rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
      raise ValueError('Scene.box: expected visible pixels of the object, found none; lower `hidden`')
    return (
      float(rows[0] / SCENE_HEIGHT),
      float(columns[0] / SCENE_WIDTH),
      float((rows[-1] + 1) / SCENE_HEIGHT),
      float((columns[-1] + 1) / SCENE_WIDTH),
    )


def object_scene(rng: np.random.Generator, shown: photos.ObjectPhoto, k: int, per_object: int) -> Scene:
  """Scene k of an object; the areas of an object's scenes are stratified, on a logarithmic scale."""
  low, high = _AREAS
  area = low * (high / low) ** ((k + rng.uniform()) / per_object)
  return compose_scene(
    rng,
    photos.crop(photos.load_photo(shown.scene_photo), shown.scene_box),
    area=area,
    hidden=rng.uniform(*_HIDDEN_RANGES[k % len(_HIDDEN_RANGES)]),
  )


def distractor_scene(rng: np.random.Generator) -> Scene:
  """A scene like the others, of a crop of a clutter photo."""
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
    area: share of the scene that the whole object is to cover, in (0, 1); a quadrilateral that would not fit
      into the scene is shrunk until it does.
    hidden: share of the object to cover by a piece of another photo, in [0, 1).

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
  """A tinted surface under overlapping pieces of photos: float32 [H, W, 3]."""
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
  """A relit crop of a random photo: uint8 [h, w, 3]."""
  pixels = photos.load_photo(clutter[rng.integers(len(clutter))])
  sides = np.minimum(rng.uniform(*_CLUTTER_SIDE, 2) / rng.uniform(*_CLUTTER_ZOOM), pixels.shape[:2])
  top, left = rng.uniform((0, 0), pixels.shape[:2] - sides + 1e-6)
  piece = pixels[int(top) : int(top + sides[0]), int(left) : int(left + sides[1])]
  return pasting.relight(rng, piece)


def _shape_quad(rng, aspect: float, area: float) -> np.ndarray:
  """A tilted, perspectively distorted rectangle around the origin, which covers `area` of the scene."""
  quad = pasting.tilted_quad(rng, aspect, tilt=_TILT, perspective=_PERSPECTIVE)
  return quad * np.sqrt(area * SCENE_HEIGHT * SCENE_WIDTH / pasting.polygon_area(quad))


def _place_quad(rng, quad) -> np.ndarray:
  """Moves `quad` to a random place inside the scene, after shrinking it where it would not fit."""
  scene = np.array([SCENE_WIDTH, SCENE_HEIGHT])
  quad = quad * min(1, *(scene / np.ptp(quad, axis=0)))
  slack = scene - np.ptp(quad, axis=0)
  return quad - quad.min(axis=0) + rng.uniform(0, 1, 2) * slack
