"""Photos for training: TFRecords in the format of Google Landmarks, a folder for each class, or a CSV file.

Each of these gives access to examples by number. The order of training can thus be a permutation made from a
seed, and an interrupted run can be resumed at any example.
"""

import dataclasses
import glob
import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError
from PIL import Image

from delf_d2r.data import csv_rows
from delf_d2r.data.artefacts import record_shards
from delf_d2r.data.artefacts.artefact import Input
from delf_d2r.data.artefacts.record_shards import RecordShards
from delf_d2r.data.photos import class_names, images
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError
from delf_d2r.protos import example_pb2

UNLABELLED = -1


@dataclasses.dataclass(frozen=True)
class Example:
  """One photo.

  Attributes:
    name: name of the photo.
    image: uint8 [H, W, 3], RGB.
    label: class number, or UNLABELLED.
  """

  name: str
  image: np.ndarray
  label: int


@dataclasses.dataclass(frozen=True)
class PhotoFiles:
  """Photos in files of their own: a folder for each class, or the rows of a CSV file.

  Attributes:
    source: the folder or the CSV file, for messages.
    names: names of n photos, in the order of their numbers.
    paths: paths of these photos.
    labels: int64 [n], class numbers, or all UNLABELLED.
    classes: names of the classes by number.
    fingerprint: digest of names, labels and photos.
  """

  source: pathlib.Path
  names: Sequence[str]
  paths: Sequence[pathlib.Path]
  labels: np.ndarray
  classes: tuple[str, ...]
  fingerprint: str

  def __len__(self) -> int:
    return len(self.names)

  @property
  def num_classes(self) -> int:
    return len(self.classes)

  def read(self, number: int, *, min_side: int = 0) -> Example:
    """Decodes the photo with that number.

    Args:
      number: from 0 to n - 1.
      min_side: JPEG photos with sides over twice this number of pixels are decoded at reduced size; 0: none.

    Raises:
      ImageError: the photo cannot be decoded.
    """
    with images.open_image(self.paths[number]) as image:
      return Example(self.names[number], _decode(image, min_side), int(self.labels[number]))

  def as_input(self, role: str) -> Input:
    """Returns the examples as an input of an artefact."""
    return Input(role, self.fingerprint, self.source.resolve())


@dataclasses.dataclass(frozen=True)
class RecordFiles:
  """TFRecord shards of tf.train.Example with `image/encoded`, `image/class/label` and `image/id`.

  Attributes:
    source: the pattern of the file names.
    shards: the files.
    num_classes: labels are in [0, num_classes).
    classes: always empty: the records contain no names of classes.
  """

  source: pathlib.Path
  shards: RecordShards
  num_classes: int
  classes: tuple[str, ...] = ()

  def __len__(self) -> int:
    return len(self.shards)

  def read(self, number: int, *, min_side: int = 0) -> Example:
    """Decodes the photo with that number; `min_side` as for PhotoFiles.

    Raises:
      UserError: the record is damaged or has no photo, or its label is out of range.
      ImageError: the photo cannot be decoded.
    """
    path, record = self.shards.place(number)
    where = f'{path}: record {record}'
    try:
      feature = example_pb2.Example.FromString(self.shards.read(number)).features.feature
    except DecodeError as error:
      raise record_shards.corrupt(path, f'record {record}', error) from error
    encoded = feature['image/encoded'].bytes_list.value
    if not encoded:
      found = ', '.join(sorted(name for name in feature if name != 'image/encoded')) or 'nothing'
      raise UserError(
        f'{where} has no image/encoded (found {found}). Make shards in the format of docs/reference.md 5.1'
      )
    names = feature['image/id'].bytes_list.value
    name = names[0].decode('utf-8', 'replace') if names else f'{path.name}:{record}'
    label = self._label(feature['image/class/label'].int64_list.value, f'{where} ({name})')
    with images.open_image(encoded[0], name=f'{where} ({name}): its photo') as image:
      return Example(name, _decode(image, min_side), label)

  def _label(self, values: Sequence[int], where: str) -> int:
    if not self.num_classes:
      return values[0] if values else UNLABELLED
    if not values:
      raise UserError(f'{where} has no image/class/label; classification needs one for every photo')
    if not 0 <= values[0] < self.num_classes:
      raise UserError(
        f'{where} has label {values[0]}, but training.model.num_classes is {self.num_classes}, so labels must'
        f' be in [0, {self.num_classes}). Set it to the number of classes in the data, or make the shards'
        ' again'
      )
    return values[0]

  def as_input(self, role: str) -> Input:
    """Returns the examples as an input of an artefact."""
    return self.shards.as_input(role, self.source.parent.resolve() / self.source.name)


Examples = PhotoFiles | RecordFiles


def load(
  source: str | pathlib.Path,
  *,
  num_classes: int = 0,
  classes: Sequence[str] = (),
  needs_labels: bool = True,
  exclude: Sequence[str] = (),
) -> Examples:
  """Loads examples from a folder, a `.csv` file or TFRecord shards.

  Args:
    source: a folder with one subfolder for each class; a CSV file with the header `path,label` and paths
      relative to it; or a file name or pattern like `gld/train*`.
    num_classes: number of classes in the config; 0: any number. Shards need it if labels are needed.
    classes: names of all classes by number; empty: the sorted names that occur.
    needs_labels: if False, the photos of a folder may be in any subfolder.
    exclude: globs of files and folders of a folder to leave out, see `ImageList.from_folder`.

  Raises:
    UserError: there are no examples, a label is unknown, the number of classes is another one, or a shard is
      damaged.
  """
  path = pathlib.Path(source)
  if path.is_dir():
    found = _from_folder(path, classes, needs_labels, exclude)
  elif path.suffix.lower() == '.csv':
    found = _from_csv(path, classes)
  elif not glob.glob(str(path)):
    raise UserError(
      f'{path}: no such folder, no .csv file, and no TFRecord shards of that pattern (quote patterns with *)'
    )
  else:
    return RecordFiles(path, RecordShards.find([path]), num_classes)
  if num_classes and found.num_classes != num_classes:
    raise UserError(
      f'{source}: has {found.num_classes} classes, but training.model.num_classes is {num_classes}. Set it to'
      f' {found.num_classes}, or to 0 for as many as there are'
    )
  return found


def _from_folder(
  folder: pathlib.Path, classes: Sequence[str], needs_labels: bool, exclude: Sequence[str]
) -> PhotoFiles:
  photos = ImageList.from_folder(folder, exclude=exclude)
  names = [name.rpartition('/')[0] for name in photos.names]
  paths = [photos.path(name) for name in photos.names]
  if not (needs_labels and any(names)):
    labels = np.full(len(names), UNLABELLED)
    return PhotoFiles(folder, photos.names, paths, labels, (), photos.fingerprint)
  if not all(names):
    loose = next(photo for photo, name in zip(photos.names, names, strict=True) if not name)
    raise UserError(
      f'{folder}: {loose} is in no class folder, others are. Move it into the folder of its class'
    )
  labels, known = class_names.to_numbers(names, photos.names, classes, folder)
  return PhotoFiles(folder, photos.names, paths, labels, known, photos.fingerprint)


def _from_csv(file: pathlib.Path, classes: Sequence[str]) -> PhotoFiles:
  rows = csv_rows.read_labels(file)
  names = [name for name, _ in rows]
  if len(set(names)) < len(names):
    raise UserError(f'{file}: {next(n for n in names if names.count(n) > 1)} appears twice. Keep one line')
  missing = [name for name in names if not (file.parent / name).is_file()]
  if missing:
    raise UserError(
      f'{file}: {len(missing)} of {len(names)} photos do not exist, for example {missing[0]} (paths are'
      f' relative to {file.parent})'
    )
  if not names:
    raise UserError(f'{file}: lists no photos')
  labels, known = class_names.to_numbers([label for _, label in rows], names, classes, file)
  photos = ImageList(file.parent, tuple(names)).fingerprint
  digest = hashlib.sha256('\n'.join([photos, *known, *map(str, labels)]).encode()).hexdigest()[:16]
  return PhotoFiles(file, names, [file.parent / name for name in names], labels, known, digest)


def _decode(image: Image.Image, min_side: int) -> np.ndarray:
  """Decodes a photo, upright: uint8 [H, W, 3]; `min_side` as for `PhotoFiles.read`."""
  if min_side:
    image.draft('RGB', (min_side, min_side))
  return np.asarray(images.decode(image)[0])
