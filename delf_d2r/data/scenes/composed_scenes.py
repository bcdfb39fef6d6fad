"""Scenes with exact boxes: photos of objects pasted into backgrounds, to train a landmark detector on.

A detector that learns from pasted objects alone learns what pasting looks like. So pieces of other
backgrounds are pasted in the same way and have no box (decoys), edges are hard or soft, light, blur, noise
and JPEG artefacts of the piece and of the scene vary, and some scenes are not pasted at all: parts of
backgrounds, which have no box, and photos of objects as they are, with their own boxes.
"""

import dataclasses
import functools
import pathlib
from collections import defaultdict

import cv2
import numpy as np

from delf_d2r.data import scene_pieces
from delf_d2r.data.boxes.training_boxes import PhotoBoxes
from delf_d2r.data.scenes import pasting
from delf_d2r.protos import detection_data_pb2

Config = detection_data_pb2.DetectionScenesConfig

# Pixels of a piece's shorter side: long and thin ones are made larger than the lot says.
_MIN_SIDE = 16
# A piece gets its place by lot, and is left out where all these lots would hide too much of an object.
_MAX_LOTS = 20
_MAX_OVERLAP = 0.25
# Photos are kept at a few times the scene's size: objects are pasted smaller, and many fit into memory.
_PHOTO_FACTOR = 4
# A part of a background: its share of each side, and bounds of its width over its height.
_BACKGROUND_PART = (0.6, 1.0)
_BACKGROUND_ASPECT = (0.6, 1.7)
# Decoys: share of the background's sides that a piece is.
_DECOY_PART = (0.15, 0.7)
# What is pasted around a boxed object, as a share of the box's sides; and the width of soft edges, as a share
# of half a side.
_MARGIN = 0.1
_FEATHER = (0.05, 0.25)
# How far what hides an object reaches over its edge, as a share of its sides.
_OVERHANG = 0.1


@dataclasses.dataclass(frozen=True)
class Material:
  """What scenes are made of.

  Attributes:
    objects: photos, each with one box at least.
    backgrounds: photos that show no object to be found.
  """

  objects: tuple[PhotoBoxes, ...]
  backgrounds: tuple[pathlib.Path, ...]

  @functools.cached_property
  def groups(self) -> dict[str, list[tuple[int, int]]]:
    """The objects of each group: numbers of photo and box. Boxes of no group are one with their photo's."""
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
    boxes: float32 [R, 4], `[ymin, xmin, ymax, xmax]` normalised, around what is seen of each object.
    groups: of R objects.
    kind: background, photo or pasted.
    jpeg_quality: the quality to encode the scene with.
  """

  pixels: np.ndarray
  boxes: np.ndarray
  groups: tuple[str, ...]
  kind: str
  jpeg_quality: int


def compose(material: Material, config: Config, number: int) -> Scene:
  """Composes scene `number`: a function of the material, the config and the number alone.

  Raises:
    ImageError: a photo cannot be decoded.
  """
  return _Composer(material, config, np.random.default_rng((config.seed, number))).scene()


class _Composer:
  """One scene in the making."""

  def __init__(self, material: Material, config: Config, rng: np.random.Generator):
    self._material = material
    self._config = config
    self._rng = rng

  def scene(self) -> Scene:
    rng, config = self._rng, self._config
    lot = rng.uniform()
    if lot < config.background_share:
      kind, canvas, boxes, groups = 'background', self._background(), [], []
    elif lot < config.background_share + config.photo_share:
      kind, (canvas, boxes, groups) = 'photo', self._photo()
    else:
      kind, (canvas, boxes, groups) = 'pasted', self._pasted()
    return Scene(
      pixels=scene_pieces.developed(canvas, config, rng),
      boxes=np.array(boxes, np.float32).reshape(-1, 4),
      groups=tuple(groups),
      kind=kind,
      jpeg_quality=int(rng.integers(config.min_jpeg_quality, config.max_jpeg_quality, endpoint=True)),
    )

  def _load(self, path: pathlib.Path) -> np.ndarray:
    return scene_pieces.load(path, _PHOTO_FACTOR * self._config.image_size)

  def _background(self) -> np.ndarray:
    """A part of a background, mirrored or not, at the size of a scene: float32 [H, W, 3]."""
    pixels = self._part(_BACKGROUND_PART)
    height, width = pixels.shape[:2]
    aspect = np.clip(width / height, *_BACKGROUND_ASPECT)
    scene = scene_pieces.resized(pixels, aspect, self._config.image_size)
    return scene[:, :: self._rng.choice((-1, 1))].copy()

  def _part(self, share: tuple[float, float]) -> np.ndarray:
    """A random part of a random background: uint8 [h, w, 3]."""
    rng, backgrounds = self._rng, self._material.backgrounds
    pixels = self._load(backgrounds[rng.integers(len(backgrounds))])
    size = np.array(pixels.shape[:2])
    sides = np.maximum(size * rng.uniform(*share, 2), 2).astype(int)
    top, left = rng.integers(0, size - sides, endpoint=True)
    return pixels[top : top + sides[0], left : left + sides[1]]

  def _photo(self):
    """A photo of an object as it is, cut at random around all its boxes."""
    photo, _ = self._draw_object()
    pixels = self._load(photo.path)
    height, width = pixels.shape[:2]
    low, high = photo.boxes[:, :2].min(axis=0), photo.boxes[:, 2:].max(axis=0)
    # Half of the photos whole, the others anywhere between that and their objects alone.
    cut = self._rng.uniform(0, 1, 4) * self._rng.integers(0, 2)
    top, left = np.floor(low * cut[:2] * (height, width)).astype(int)
    bottom, right = np.ceil((1 - (1 - high) * cut[2:]) * (height, width)).astype(int)
    window = np.array([top, left, bottom, right])
    boxes = (photo.boxes * (height, width, height, width) - np.tile(window[:2], 2)) / np.tile(
      window[2:] - window[:2], 2
    )
    canvas = scene_pieces.resized(
      pixels[top:bottom, left:right], (right - left) / (bottom - top), self._config.image_size
    )
    return canvas, boxes.clip(0, 1), photo.groups

  def _draw_object(self) -> tuple[PhotoBoxes, int]:
    """A photo and the number of a box in it; the group is drawn first."""
    groups = list(self._material.groups.values())
    weights = np.array([len(members) for members in groups]) ** self._config.group_exponent
    members = groups[self._rng.choice(len(groups), p=weights / weights.sum())]
    number, box = members[self._rng.integers(len(members))]
    return self._material.objects[number], box

  def _pasted(self):
    """Objects and decoys pasted into a background, in any order."""
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
        pixels, inner = scene_pieces.with_margin(
          self._load(photo.path), photo.boxes[box], rng.uniform(0, _MARGIN)
        )
      else:
        pixels, inner = self._part(_DECOY_PART), None
      quad = self._place(canvas.shape, pixels, seen, is_object)
      if quad is None:
        continue
      coverage = self._paste(canvas, pixels, quad)
      seen = [mask * (1 - coverage) for mask in seen]
      if is_object:
        shown = scene_pieces.transformed(inner, quad)
        hidden = self._occlude(canvas, shown)
        seen = [mask * (1 - hidden) for mask in seen]
        seen.append(coverage * pasting.cover(canvas.shape, shown) * (1 - hidden))
        groups.append(photo.groups[box])
    boxes = [scene_pieces.box_around(mask) for mask in seen]
    kept = [number for number, box in enumerate(boxes) if box is not None]
    return canvas, [boxes[number] for number in kept], [groups[number] for number in kept]

  def _place(self, shape, pixels, seen, is_object: bool) -> np.ndarray | None:
    """A quadrilateral for a piece, over at most _MAX_OVERLAP of each object so far; None if none is free."""
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
    for _ in range(_MAX_LOTS):
      corner = rng.uniform(0, 1, 2) * (size - extent)
      if is_truncated:
        axis, at_end = rng.integers(0, 2, 2)
        corner[axis] = (size - extent)[axis] * at_end
        corner[axis] += (2 * at_end - 1) * rng.uniform(0, config.max_truncated) * extent[axis]
      placed = quad + corner
      covered = pasting.cover(shape, placed)
      if all((mask * covered).sum() <= _MAX_OVERLAP * mask.sum() for mask in seen):
        return placed
    return None

  def _occlude(self, canvas, quad) -> np.ndarray:
    """Hides a corner of some objects behind a piece of a background; returns the coverage of that."""
    rng, config = self._rng, self._config
    if not (config.max_hidden and rng.uniform() < config.occluded_share):
      return np.zeros(canvas.shape[:2], np.float32)
    corner = pasting.corner_rectangle(rng, rng.uniform(0.05, 1) * config.max_hidden)
    # Over the object's edge, so that no seam of it stays in sight.
    corner += _OVERHANG * (np.isclose(corner, 1).astype(float) - np.isclose(corner, 0))
    corner = cv2.perspectiveTransform(corner[None], pasting.homography((1, 1), quad))[0]
    return self._paste(canvas, self._part(_DECOY_PART), corner)

  def _paste(self, canvas, pixels, quad) -> np.ndarray:
    """Draws a piece with its own light, sharpness and edges; returns its coverage."""
    rng, config = self._rng, self._config
    pixels = pasting.shrink(pasting.relight(rng, pixels, strength=config.relight), quad)
    if config.max_blur and rng.uniform() < 0.5:
      pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(min(0.2, config.max_blur), config.max_blur))
    opacity = None
    if rng.uniform() < config.feather_share:
      opacity = scene_pieces.soft_edges(
        pixels.shape, exponent=rng.uniform(4, 16), width=rng.uniform(*_FEATHER)
      )
    return pasting.paste(canvas, pixels, quad, opacity=opacity)
