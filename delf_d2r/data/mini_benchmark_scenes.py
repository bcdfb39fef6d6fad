"""Composed scenes: one photographed object in front of clutter made of other photos.

Clutter comes from photos that no query shows, so a scene has its one object and no other.

Frames: quadrilaterals are float [4, 2], `(x, y)` in pixels of the scene (OpenCV's order), clockwise from the
top left corner; pixel i covers [i, i + 1). Boxes are `[ymin, xmin, ymax, xmax]` normalised to [0, 1].
"""

import dataclasses

import cv2
import numpy as np

from delf_d2r.data import mini_benchmark_photos as photos

SCENE_HEIGHT, SCENE_WIDTH = 480, 640

# The generator's difficulty. Areas and sizes are in pixels of the scene, angles in degrees.
_CLUTTER_PIECES = (12, 18)
_CLUTTER_SIDE = (110, 260)
_CLUTTER_ZOOM = (0.45, 0.9)
_TILT = 12.0
_PERSPECTIVE = 0.09
_BLUR_SIGMA = (0.4, 1.4)
_JPEG_QUALITY = (45, 90)


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
  sharp = _shrink(_relight(rng, pixels), quad)
  coverage = _paste(canvas, cv2.GaussianBlur(sharp, (0, 0), rng.uniform(*_BLUR_SIGMA)), quad)
  if hidden:
    corners = _occluder_in_unit_square(rng, hidden)
    occluder = cv2.perspectiveTransform(corners[None], _homography((1, 1), quad))[0]
    coverage *= 1 - _paste(canvas, _clutter_piece(rng, clutter), occluder)
  mask = coverage >= 0.5
  return Scene(
    pixels=np.rint(canvas).clip(0, 255).astype(np.uint8),
    mask=mask,
    hidden=max(0.0, 1 - float(mask.sum()) / _polygon_area(quad)),
    jpeg_quality=int(rng.integers(*_JPEG_QUALITY, endpoint=True)),
  )


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
  """JPEG bytes of `pixels` (uint8 [H, W, 3], RGB); every setting of the encoder that moves bytes is fixed."""
  options = [
    *(cv2.IMWRITE_JPEG_QUALITY, quality),
    *(cv2.IMWRITE_JPEG_PROGRESSIVE, 0),
    *(cv2.IMWRITE_JPEG_OPTIMIZE, 0),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
  ]
  _, encoded = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
  return encoded.tobytes()


def _background(rng, clutter) -> np.ndarray:
  """A tinted surface under overlapping pieces of photos: float32 [H, W, 3]."""
  surfaces = photos.texture_photos()
  surface = _relight(rng, photos.load_photo(surfaces[rng.integers(len(surfaces))]))
  canvas = cv2.resize(surface, (SCENE_WIDTH, SCENE_HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
  for _ in range(rng.integers(*_CLUTTER_PIECES, endpoint=True)):
    piece = _clutter_piece(rng, clutter)
    area = rng.uniform(*_CLUTTER_SIDE) ** 2 / (SCENE_HEIGHT * SCENE_WIDTH)
    centre = rng.uniform((0, 0), (SCENE_WIDTH, SCENE_HEIGHT))
    _paste(canvas, piece, _shape_quad(rng, piece.shape[1] / piece.shape[0], area) + centre)
  return canvas


def _clutter_piece(rng, clutter) -> np.ndarray:
  """A relit crop of a random photo: uint8 [h, w, 3]."""
  pixels = photos.load_photo(clutter[rng.integers(len(clutter))])
  sides = np.minimum(rng.uniform(*_CLUTTER_SIDE, 2) / rng.uniform(*_CLUTTER_ZOOM), pixels.shape[:2])
  top, left = rng.uniform((0, 0), pixels.shape[:2] - sides + 1e-6)
  piece = pixels[int(top) : int(top + sides[0]), int(left) : int(left + sides[1])]
  return _relight(rng, piece)


def _relight(rng, pixels) -> np.ndarray:
  """Random exposure, contrast, gamma and colour cast, by one table for each channel."""
  gamma, contrast, exposure = rng.uniform((0.75, 0.65, -0.08), (1.35, 1.1, 0.08))
  cast = rng.uniform(0.88, 1.12, 3)
  levels = np.linspace(0, 1, 256)[:, None] ** gamma
  table = ((levels - 0.5) * contrast + 0.5 + exposure) * cast
  table = np.rint(255 * table.clip(0, 1)).astype(np.uint8)
  return cv2.LUT(np.ascontiguousarray(pixels), table[:, None])


def _shape_quad(rng, aspect: float, area: float) -> np.ndarray:
  """A tilted, perspectively distorted rectangle around the origin, which covers `area` of the scene."""
  rectangle = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
  distorted = (rectangle + rng.uniform(-_PERSPECTIVE, _PERSPECTIVE, (4, 2))) * (aspect, 1)
  angle = np.deg2rad(rng.uniform(-_TILT, _TILT))
  rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
  quad = distorted @ rotation.T
  return quad * np.sqrt(area * SCENE_HEIGHT * SCENE_WIDTH / _polygon_area(quad))


def _place_quad(rng, quad) -> np.ndarray:
  """Moves `quad` to a random place inside the scene, after shrinking it where it would not fit."""
  scene = np.array([SCENE_WIDTH, SCENE_HEIGHT])
  quad = quad * min(1, *(scene / np.ptp(quad, axis=0)))
  slack = scene - np.ptp(quad, axis=0)
  return quad - quad.min(axis=0) + rng.uniform(0, 1, 2) * slack


def _occluder_in_unit_square(rng, hidden: float) -> np.ndarray:
  """A rectangle that covers `hidden` of the unit square from one of its corners."""
  width = rng.uniform(np.sqrt(hidden), 1)
  size = np.array([width, hidden / width])
  origin = rng.integers(0, 2, 2) * (1 - size)
  return origin + size * [(0, 0), (1, 0), (1, 1), (0, 1)]


def _polygon_area(quad) -> float:
  x, y = quad.T
  return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _homography(size, quad) -> np.ndarray:
  """float64 [3, 3], from a picture of `size` = (width, height), edge to edge, to `quad`."""
  corners = np.float32([(0, 0), (1, 0), (1, 1), (0, 1)]) * np.float32(size)
  return cv2.getPerspectiveTransform(corners, quad.astype(np.float32))


def _shrink(pixels, quad) -> np.ndarray:
  """Shrinks by area averaging to about the size of `quad`, without which the warp would alias."""
  height, width = pixels.shape[:2]
  factor = min(1.0, float(np.sqrt(_polygon_area(quad) / (height * width))))
  size = max(2, round(width * factor)), max(2, round(height * factor))
  return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


# OpenCV puts the centre of the first pixel at 0, this module at 0.5.
_TO_OPENCV = np.array([(1, 0, -0.5), (0, 1, -0.5), (0, 0, 1)])
_FROM_OPENCV = np.linalg.inv(_TO_OPENCV)


def _paste(canvas, pixels, quad) -> np.ndarray:
  """Draws `pixels` into `quad` of `canvas`, in place; returns each pixel's covered share, float32 [H, W]."""
  coverage = np.zeros(canvas.shape[:2], np.float32)
  left, top = np.clip(np.floor(quad.min(axis=0)), 0, (SCENE_WIDTH, SCENE_HEIGHT)).astype(int)
  right, bottom = np.clip(np.ceil(quad.max(axis=0)), 0, (SCENE_WIDTH, SCENE_HEIGHT)).astype(int)
  if left == right or top == bottom:
    return coverage
  window = np.s_[top:bottom, left:right]
  pixels = _shrink(pixels, quad)
  homography = _TO_OPENCV @ _homography(pixels.shape[1::-1], quad - (left, top)) @ _FROM_OPENCV
  size = int(right - left), int(bottom - top)
  coverage[window] = cv2.warpPerspective(np.ones(pixels.shape[:2], np.float32), homography, size)
  # Beyond its edges the warped picture fades to black, that is, it comes already multiplied by its coverage.
  canvas[window] *= 1 - coverage[window][..., None]
  canvas[window] += cv2.warpPerspective(pixels, homography, size)
  return coverage
