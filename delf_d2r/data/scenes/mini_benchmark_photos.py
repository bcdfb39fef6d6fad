"""The photos of the miniature landmark benchmark, which are part of two installed packages.

The wheels of scikit-image and scikit-learn contain some freely licensed sample photos. They are located on
disk without importing the packages and without network access.
"""

import dataclasses
import functools
import importlib.util
from pathlib import Path

import numpy as np

from delf_d2r.data.photos.images import load_image
from delf_d2r.errors import UserError

_PUBLIC = 'no known copyright restrictions'
_CC0 = 'CC0 1.0'

# The folder of the photos in each package, and the name to install the package by.
_PHOTO_FOLDERS = {'skimage': ('data', 'scikit-image'), 'sklearn': ('datasets/images', 'scikit-learn')}


@dataclasses.dataclass(frozen=True)
class Photo:
  """A photo inside an installed package.

  Attributes:
    package: top-level package that contains the file.
    filename: name of the file in the folder of photos of the package.
    credit: author or source, and licence, as stated in the documentation of the package.
  """

  package: str
  filename: str
  credit: str

  @property
  def name(self) -> str:
    return Path(self.filename).stem


@dataclasses.dataclass(frozen=True)
class ObjectPhoto:
  """An object to search for.

  Attributes:
    name: name of the object and of its query.
    scene_photo: the photo that the object is cut from for the index scenes.
    scene_box: `(ymin, xmin, ymax, xmax)` of the object in `scene_photo`, normalised.
    query_photo: the photo of the query: another view if there is one, otherwise `scene_photo`.
    query_box: `(ymin, xmin, ymax, xmax)` of the object in `query_photo`, normalised.
  """

  name: str
  scene_photo: Photo
  scene_box: tuple[float, float, float, float]
  query_photo: Photo
  query_box: tuple[float, float, float, float]


_PHOTOS = {
  photo.name: photo
  for photo in (
    Photo('skimage', 'astronaut.png', f'NASA Great Images database; {_PUBLIC}, public domain'),
    Photo('skimage', 'brick.png', f'CC0Textures, Bricks25; {_CC0}'),
    Photo('skimage', 'camera.png', f'Lav Varshney; {_CC0}'),
    Photo('skimage', 'chelsea.png', f'Stefan van der Walt; {_CC0}'),
    Photo('skimage', 'coffee.png', f'Rachel Michetti, courtesy of Pikolo Espresso Bar; {_CC0}'),
    Photo('skimage', 'coins.png', f'Brooklyn Museum Collection; {_PUBLIC}'),
    Photo('skimage', 'grass.png', f'linolafett (DeviantArt), Grass 01; {_CC0}'),
    Photo('skimage', 'gravel.png', f'CC0Textures, Gravel04; {_CC0}'),
    Photo('skimage', 'hubble_deep_field.jpg', 'NASA, HubbleSite; public domain'),
    Photo('skimage', 'ihc.png', f'Center for Microscopy And Molecular Imaging (CMMI); {_PUBLIC}'),
    Photo('skimage', 'moon.png', 'scikit-image sample data; no source stated there'),
    Photo('skimage', 'motorcycle_left.png', 'Middlebury Stereo 2014 (Scharstein et al., GCPR 2014)'),
    Photo('skimage', 'motorcycle_right.png', 'Middlebury Stereo 2014 (Scharstein et al., GCPR 2014)'),
    Photo('skimage', 'page.png', 'scikit-image sample data; no source stated there'),
    Photo('skimage', 'retina.jpg', f'Mikael Häggström (Wikimedia Commons); {_CC0}'),
    Photo('skimage', 'rocket.jpg', 'SpaceX; public domain'),
    Photo('skimage', 'text.png', f'Wikipedia, Corner.png; {_PUBLIC}, public domain'),
    Photo(
      'sklearn',
      'china.jpg',
      'danielbuechele, flickr.com/photos/danielbuechele/6061409035; CC BY 2.0',
    ),
    Photo('sklearn', 'flower.jpg', 'vultilion, flickr.com/photos/vultilion/6056698931; CC BY 2.0'),
  )
}


def _single_view(name: str, photo: str, box: tuple[float, float, float, float]) -> ObjectPhoto:
  return ObjectPhoto(name, _PHOTOS[photo], box, _PHOTOS[photo], box)


_OBJECTS = (
  _single_view('astronaut', 'astronaut', (0.02, 0.02, 1.0, 0.96)),
  _single_view('camera', 'camera', (0.05, 0.0, 1.0, 0.85)),
  _single_view('chelsea', 'chelsea', (0.0, 0.02, 1.0, 0.86)),
  _single_view('china', 'china', (0.03, 0.2, 0.95, 0.72)),
  _single_view('coffee', 'coffee', (0.02, 0.08, 0.98, 0.86)),
  _single_view('coins', 'coins', (0.04, 0.04, 0.96, 1.0)),
  _single_view('flower', 'flower', (0.06, 0.22, 0.74, 0.72)),
  ObjectPhoto(
    'motorcycle',
    _PHOTOS['motorcycle_left'],
    (0.2, 0.02, 0.96, 0.98),
    _PHOTOS['motorcycle_right'],
    (0.2, 0.0, 0.96, 0.94),
  ),
  _single_view('page', 'page', (0.0, 0.0, 1.0, 1.0)),
  _single_view('retina', 'retina', (0.2, 0.02, 0.8, 0.6)),
  _single_view('rocket', 'rocket', (0.1, 0.1, 1.0, 0.9)),
  _single_view('text', 'text', (0.0, 0.0, 1.0, 1.0)),
)
# Photos that no query shows: clutter cut from the photo of a query would be a positive without a label.
_SURFACES = ('brick', 'grass', 'gravel')
_CLUTTER = (*_SURFACES, 'hubble_deep_field', 'ihc', 'moon')


def object_photos() -> tuple[ObjectPhoto, ...]:
  """Returns the objects of the benchmark, sorted by name; each is one query."""
  return _OBJECTS


def texture_photos() -> tuple[Photo, ...]:
  """Returns photos of plain surfaces, which fill the backgrounds and show no object."""
  return tuple(_PHOTOS[name] for name in _SURFACES)


def clutter_photos() -> tuple[Photo, ...]:
  """Returns the photos that clutter, occluders and distractors are cut from; they show no object."""
  return tuple(_PHOTOS[name] for name in _CLUTTER)


def photo_path(photo: Photo) -> Path:
  """Returns the path of a photo in the installed package, without importing it.

  Raises:
    UserError: the package is not installed, or does not contain the file.
  """
  folder, distribution = _PHOTO_FOLDERS[photo.package]
  spec = importlib.util.find_spec(photo.package)
  if spec is None or spec.origin is None:
    raise UserError(
      f'{photo.filename}: expected in the package {photo.package}, found no such package;'
      f' install it with `pip install {distribution}`'
    )
  path = Path(spec.origin).parent / folder / photo.filename
  if not path.is_file():
    raise UserError(
      f'{photo.filename}: expected in {path.parent}, found no such file; `pip install --force-reinstall'
      f' {distribution}` restores it'
    )
  return path


@functools.cache
def load_photo(photo: Photo) -> np.ndarray:
  """Loads a photo: uint8 [height, width, 3], RGB, read-only because callers share it."""
  pixels = load_image(photo_path(photo))
  pixels.setflags(write=False)
  return pixels


def crop(pixels: np.ndarray, box) -> np.ndarray:
  """Returns the view of `pixels`, [H, W, 3], in the normalised box `[ymin, xmin, ymax, xmax]`."""
  height, width = pixels.shape[:2]
  top, left, bottom, right = (round(side * size) for side, size in zip(box, (height, width) * 2, strict=True))
  return pixels[top:bottom, left:right]


def attribution() -> str:
  """Returns the source and licence of every photo as text; a generated data set must contain it."""
  lines = ['Photos from the wheels of scikit-image and scikit-learn, here cropped, warped and relit:', '']
  lines += [f'{photo.package}/{photo.filename}: {photo.credit}' for photo in _PHOTOS.values()]
  return '\n'.join(lines) + '\n'
