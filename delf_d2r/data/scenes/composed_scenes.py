"""Composes scenes with exact boxes, to train a landmark detector: objects pasted into backgrounds.

A detector that is trained on pasted objects alone learns to recognise the traces of pasting. Therefore pieces
of other backgrounds are pasted in the same way, without a box (decoys); edges are hard or soft; light, blur,
noise and JPEG artefacts of the piece and of the scene vary; and some scenes contain nothing pasted: parts of
backgrounds, which have no box, and unaltered photos of objects with their own boxes.
"""

import dataclasses
import functools
import pathlib
from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np

from delf_d2r.data.boxes.training_boxes import PhotoBoxes
from delf_d2r.data.photos.images import load_image
from delf_d2r.data.scenes import pasting
from delf_d2r.protos import detection_data_pb2

Config = detection_data_pb2.DetectionScenesConfig

# Least number of pixels of a piece's shorter side; long and thin pieces are enlarged to it.
_MIN_SIDE = 16
# A piece is placed at random. It is left out if this many random places would all hide more than _MAX_OVERLAP
# of an object that is already in the scene.
_MAX_PLACEMENTS = 20
_MAX_OVERLAP = 0.25
# An object is labelled only if its visible pixels span at least this many rows and columns.
_MIN_VISIBLE_SIDE = 4
# Photos are cached at a few times the size of the scene: objects are pasted smaller than that, and the cache
# stays small.
_PHOTO_FACTOR = 4
_CACHED_PHOTOS = 64
# A part of a background: its share of each side, and the bounds of its aspect, width over height.
_BACKGROUND_PART = (0.6, 1.0)
_BACKGROUND_ASPECT = (0.6, 1.7)
# The size of a decoy, as a share of the sides of the background that it is cut from.
_DECOY_PART = (0.15, 0.7)
# Greatest margin that is pasted along with a boxed object, as a share of the sides of the box, and the width
# of soft edges, as a share of half a side.
_MARGIN = 0.1
_FEATHER = (0.05, 0.25)
# How far an occluder extends beyond the edge of its object, as a share of the sides of the object.
_OVERHANG = 0.1


@dataclasses.dataclass(frozen=True)
class SceneSources:
  """The photos that scenes are composed of.

  Attributes:
    objects: photos of objects, each with at least one box.
    backgrounds: photos that show no object to be found.
  """

  objects: tuple[PhotoBoxes, ...]
  backgrounds: tuple[pathlib.Path, ...]

  @functools.cached_property
  def groups(self) -> dict[str, list[tuple[int, int]]]:
    """The objects of each group, as pairs (position in `objects`, number of the box in that photo).

    The boxes of a photo that belong to no group form a group of the name of the photo. Groups are sorted by
    name.
    """
    members = defaultdict(list)
    for number, photo in enumerate(self.objects):
      for box, group in enumerate(photo.groups):
        members[group or photo.name].append((number, box))
    return dict(sorted(members.items()))


@dataclasses.dataclass(frozen=True)
class Scene:
  """A composed scene.

  Attributes:
    pixels: uint8 [H, W, 3], RGB.
    boxes: float32 [R, 4], the box around the visible part of each object: `[ymin, xmin, ymax, xmax]`,
      normalised to [0, 1].
    groups: the group of each of the R objects; '' for none.
    kind: 'background', 'photo' or 'pasted'.
    jpeg_quality: the quality to encode the scene with, 1 to 100.
  """

  pixels: np.ndarray
  boxes: np.ndarray
  groups: tuple[str, ...]
  kind: str
  jpeg_quality: int


def compose(sources: SceneSources, config: Config, number: int) -> Scene:
  """Composes one scene. The same arguments give the same scene.

  Args:
    sources: the photos to compose it of.
    config: kinds of scenes and their shares, sizes, occlusion, light and camera.
    number: number of the scene, which seeds its generator together with `config.seed`.

  Raises:
    ImageError: a photo cannot be decoded.
  """
  return _Composer(sources, config, np.random.default_rng((config.seed, number))).scene()


class _Composer:
  """Composes one scene: holds the sources, the config and the generator of every random choice."""

  def __init__(self, sources: SceneSources, config: Config, rng: np.random.Generator):
    self._sources = sources
    self._config = config
    self._rng = rng

  def scene(self) -> Scene:
    rng, config = self._rng, self._config
    draw = rng.uniform()
    if draw < config.background_share:
      kind, canvas, boxes, groups = 'background', self._background(), [], []
    elif draw < config.background_share + config.photo_share:
      kind, (canvas, boxes, groups) = 'photo', self._photo()
    else:
      kind, (canvas, boxes, groups) = 'pasted', self._pasted()
    return Scene(
      pixels=_apply_camera_effects(canvas, config, rng),
      boxes=np.array(boxes, np.float32).reshape(-1, 4),
      groups=tuple(groups),
      kind=kind,
      jpeg_quality=int(rng.integers(config.min_jpeg_quality, config.max_jpeg_quality, endpoint=True)),
    )

  def _load(self, path: pathlib.Path) -> np.ndarray:
    return _load_photo(path, _PHOTO_FACTOR * self._config.image_size)

  def _background(self) -> np.ndarray:
    """Returns a part of a background at the size of a scene, mirrored or not: float32 [H, W, 3]."""
    pixels = self._part(_BACKGROUND_PART)
    height, width = pixels.shape[:2]
    aspect = np.clip(width / height, *_BACKGROUND_ASPECT)
    scene = _resize(pixels, aspect, self._config.image_size)
    return scene[:, :: self._rng.choice((-1, 1))].copy()

  def _part(self, share: tuple[float, float]) -> np.ndarray:
    """Returns a random part of a random background: uint8 [h, w, 3].

    Args:
      share: range of the share of each side that the part spans.
    """
    rng, backgrounds = self._rng, self._sources.backgrounds
    pixels = self._load(backgrounds[rng.integers(len(backgrounds))])
    size = np.array(pixels.shape[:2])
    sides = np.maximum(size * rng.uniform(*share, 2), 2).astype(int)
    top, left = rng.integers(0, size - sides, endpoint=True)
    return pixels[top : top + sides[0], left : left + sides[1]]

  def _photo(self):
    """Returns a photo of an object, cut at random around all its boxes, with its boxes and their groups."""
    photo, _ = self._draw_object()
    pixels = self._load(photo.path)
    height, width = pixels.shape[:2]
    low, high = photo.boxes[:, :2].min(axis=0), photo.boxes[:, 2:].max(axis=0)
    # Half of the photos stay complete; the others are cropped, at most to the hull of their objects.
    cut = self._rng.uniform(0, 1, 4) * self._rng.integers(0, 2)
    top, left = np.floor(low * cut[:2] * (height, width)).astype(int)
    bottom, right = np.ceil((1 - (1 - high) * cut[2:]) * (height, width)).astype(int)
    window = np.array([top, left, bottom, right])
    boxes = (photo.boxes * (height, width, height, width) - np.tile(window[:2], 2)) / np.tile(
      window[2:] - window[:2], 2
    )
    canvas = _resize(pixels[top:bottom, left:right], (right - left) / (bottom - top), self._config.image_size)
    return canvas, boxes.clip(0, 1), photo.groups

  def _draw_object(self) -> tuple[PhotoBoxes, int]:
    """Draws a group, then one of its objects; returns the photo and the number of the box in it."""
    groups = list(self._sources.groups.values())
    weights = np.array([len(members) for members in groups]) ** self._config.group_exponent
    members = groups[self._rng.choice(len(groups), p=weights / weights.sum())]
    number, box = members[self._rng.integers(len(members))]
    return self._sources.objects[number], box

  def _pasted(self):
    """Pastes objects and decoys into a background, in random order.

    Returns:
      The canvas, float32 [H, W, 3], and the boxes and groups of the objects that can be seen in it.
    """
    rng, config = self._rng, self._config
    canvas = self._background()
    num_objects = rng.integers(config.min_objects, config.max_objects, endpoint=True)
    num_decoys = rng.integers(0, config.num_decoys, endpoint=True)
    if not num_objects:
      num_decoys = max(num_decoys, min(config.num_decoys, 1))
    seen, groups = [], []
    for is_object in rng.permutation([True] * num_objects + [False] * num_decoys):
      if is_object:
        photo, box = self._draw_object()
        pixels, inner = _crop_with_margin(self._load(photo.path), photo.boxes[box], rng.uniform(0, _MARGIN))
      else:
        pixels, inner = self._part(_DECOY_PART), None
      quad = self._place(canvas.shape, pixels, seen)
      if quad is None:
        continue
      coverage = self._paste(canvas, pixels, quad)
      seen = [mask * (1 - coverage) for mask in seen]
      if is_object:
        shown = _project_box(inner, quad)
        hidden = self._occlude(canvas, shown)
        seen = [mask * (1 - hidden) for mask in seen]
        seen.append(coverage * pasting.coverage_mask(canvas.shape, shown) * (1 - hidden))
        groups.append(photo.groups[box])
    boxes = [pasting.mask_box(mask >= 0.5, min_side=_MIN_VISIBLE_SIDE) for mask in seen]
    kept = [number for number, box in enumerate(boxes) if box is not None]
    return canvas, [boxes[number] for number in kept], [groups[number] for number in kept]

  def _place(self, shape, pixels, seen) -> np.ndarray | None:
    """Returns a quadrilateral for a piece that covers at most _MAX_OVERLAP of each object placed so far.

    Args:
      shape: of the canvas.
      pixels: the piece.
      seen: the visible coverage of each object, float32 [H, W].

    Returns:
      float [4, 2], `(x, y)` in pixels of the canvas; None if none of the random places was free.
    """
    rng, config = self._rng, self._config
    size = np.array(shape[1::-1])
    jitter = config.aspect_jitter ** rng.uniform(-1, 1)
    aspect = pixels.shape[1] / pixels.shape[0] * jitter
    quad = pasting.tilted_quad(rng, aspect, tilt=config.tilt, perspective=config.perspective)
    extent = np.ptp(quad, axis=0)
    fitting = (size / extent).min()
    factor = fitting * rng.uniform(config.min_scale, config.max_scale)
    factor = min(max(factor, _MIN_SIDE / extent.min()), fitting)
    quad, extent = factor * (quad - quad.min(axis=0)), factor * extent
    is_truncated = rng.uniform() < config.truncated_share
    for _ in range(_MAX_PLACEMENTS):
      corner = rng.uniform(0, 1, 2) * (size - extent)
      if is_truncated:
        axis, at_end = rng.integers(0, 2, 2)
        corner[axis] = (size - extent)[axis] * at_end
        corner[axis] += (2 * at_end - 1) * rng.uniform(0, config.max_truncated) * extent[axis]
      placed = quad + corner
      covered = pasting.coverage_mask(shape, placed)
      if all((mask * covered).sum() <= _MAX_OVERLAP * mask.sum() for mask in seen):
        return placed
    return None

  def _occlude(self, canvas, quad) -> np.ndarray:
    """Hides a corner of some objects behind a piece of a background; returns the coverage of the piece."""
    rng, config = self._rng, self._config
    if not (config.max_hidden and rng.uniform() < config.occluded_share):
      return np.zeros(canvas.shape[:2], np.float32)
    corner = pasting.corner_rectangle(rng, rng.uniform(0.05, 1) * config.max_hidden)
    # The occluder extends beyond the edge of the object, so that no seam stays visible.
    corner += _OVERHANG * (np.isclose(corner, 1).astype(float) - np.isclose(corner, 0))
    corner = cv2.perspectiveTransform(corner[None], pasting.homography((1, 1), quad))[0]
    return self._paste(canvas, self._part(_DECOY_PART), corner)

  def _paste(self, canvas, pixels, quad) -> np.ndarray:
    """Pastes a piece with light, sharpness and edges of its own; returns its coverage, float32 [H, W]."""
    rng, config = self._rng, self._config
    pixels = pasting.shrink(pasting.relight(rng, pixels, strength=config.relight), quad)
    if config.max_blur and rng.uniform() < 0.5:
      pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(min(0.2, config.max_blur), config.max_blur))
    opacity = None
    if rng.uniform() < config.feather_share:
      opacity = _soft_edges(pixels.shape, exponent=rng.uniform(4, 16), width=rng.uniform(*_FEATHER))
    return pasting.paste(canvas, pixels, quad, opacity=opacity)


@functools.lru_cache(maxsize=_CACHED_PHOTOS)
def _load_photo(path: pathlib.Path, long_side: int) -> np.ndarray:
  """Loads a photo, read-only, shrunk until its longer side has at most `long_side` pixels."""
  pixels = load_image(path)
  factor = long_side / max(pixels.shape[:2])
  if factor < 1:
    pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
  pixels = np.ascontiguousarray(pixels)
  pixels.setflags(write=False)
  return pixels


def _resize(pixels: np.ndarray, aspect: float, long_side: int) -> np.ndarray:
  """Scales pixels to a longer side and to `aspect`, width over height: float32 [H, W, 3]."""
  width, height = (long_side, long_side / aspect) if aspect >= 1 else (long_side * aspect, long_side)
  size = max(round(width), 2), max(round(height), 2)
  shrinks = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
  interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  return cv2.resize(pixels, size, interpolation=interpolation).astype(np.float32)


def _crop_with_margin(
  pixels: np.ndarray, box: Sequence[float], margin: float
) -> tuple[np.ndarray, np.ndarray]:
  """Crops a box with a margin around it, as far as the photo extends.

  Args:
    pixels: uint8 [H, W, 3].
    box: `[ymin, xmin, ymax, xmax]`, normalised.
    margin: as a share of the sides of the box.

  Returns:
    The crop, uint8 [h, w, 3], and the box within it, normalised by the sides of the crop.
  """
  size = np.array(pixels.shape[:2])
  low, high = np.reshape(box, (2, 2)) * size
  sides = high - low
  outer_low = np.floor(np.maximum(low - margin * sides, 0)).astype(int)
  outer_high = np.ceil(np.minimum(high + margin * sides, size)).astype(int)
  extent = outer_high - outer_low
  inner = np.concatenate([(low - outer_low) / extent, (high - outer_low) / extent])
  return pixels[outer_low[0] : outer_high[0], outer_low[1] : outer_high[1]], inner


def _project_box(inner: np.ndarray, quad: np.ndarray) -> np.ndarray:
  """Returns the corners, [4, 2] in pixels of the scene, of a box inside a piece that is pasted to `quad`."""
  top, left, bottom, right = inner
  corners = np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]])
  return cv2.perspectiveTransform(corners, pasting.homography((1, 1), quad))[0]


def _soft_edges(shape: tuple[int, ...], *, exponent: float, width: float) -> np.ndarray:
  """Returns an opacity, float32 [h, w], that falls to 0 at the edge of a superellipse |x|^p + |y|^p = 1.

  Args:
    shape: shape of the piece.
    exponent: p; the greater it is, the closer the superellipse is to a rectangle.
    width: width of the slope, as a share of half a side.
  """
  y, x = (np.abs((np.arange(side) + 0.5) / side * 2 - 1) for side in shape[:2])
  radius = (x[None] ** exponent + y[:, None] ** exponent) ** (1 / exponent)
  return ((1 - radius) / width).clip(0, 1).astype(np.float32)


def _apply_camera_effects(canvas: np.ndarray, config: Config, rng: np.random.Generator) -> np.ndarray:
  """Applies the light, blur and noise of a camera to a scene.

  Args:
    canvas: float32 [H, W, 3], RGB from 0 to 255.
    config: the greatest strength of each effect.
    rng: source of the actual strengths.

  Returns:
    uint8 [H, W, 3].
  """
  pixels = pasting.relight(rng, np.rint(canvas).clip(0, 255).astype(np.uint8), strength=config.relight)
  if config.max_blur and rng.uniform() < 0.5:
    pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.1, 1) * config.max_blur)
  if config.max_noise and rng.uniform() < 0.5:
    noise = rng.normal(0, 255 * rng.uniform(0, config.max_noise), pixels.shape)
    pixels = np.rint(pixels + noise).clip(0, 255).astype(np.uint8)
  return pixels
