"""Folders of Revisited Oxford, Paris and the million distractors: their files and their download addresses.

    DIR/gnd_roxford5k.pkl or .mat     as published; gnd_rparis6k likewise
    DIR/jpg/                          all photos, in any subfolders
    DIR/revisitop1m.txt, DIR/jpg/     the distractors

DIR may also be the folder around a folder with the name of the data set. The addresses are those of the pages
of the data sets and of the code of the benchmark (Radenovic et al., CVPR 2018;
github.com/filipradenovic/revisitop). The archives of photos have moved; their former addresses are given,
too. Nothing in this module downloads anything.
"""

import dataclasses
import pathlib

from delf_d2r.data.photos import distractor_list
from delf_d2r.errors import UserError

_ANNOTATIONS = 'http://cmp.felk.cvut.cz/revisitop/data/datasets'
_PHOTOS = 'www.robots.ox.ac.uk/~vgg/data'
_DISTRACTORS = 'http://ptak.felk.cvut.cz/revisitop/revisitop1m'
PHOTOS = 'jpg'


@dataclasses.dataclass(frozen=True)
class Source:
  """Files to download.

  Attributes:
    address: where to download them.
    becomes: where they belong below DIR.
    former_address: the address before the files were moved; '' if they were not.
  """

  address: str
  becomes: str
  former_address: str = ''


@dataclasses.dataclass(frozen=True)
class RevisitedFolder:
  """The folder of one data set.

  Attributes:
    name: name of the data set and of its folder.
    sources: the files to download.
    num_images, num_queries: how many its ground truth names; 0 for distractors, which have a list instead.
    note: a remark for the instructions.
  """

  name: str
  sources: tuple[Source, ...]
  num_images: int = 0
  num_queries: int = 0
  note: str = ''

  def instructions(self) -> str:
    """Returns instructions for downloading the data set, as text."""
    lines = [f'{self.name}: put below one folder DIR']
    for source in self.sources:
      lines.append(f'  {source.address}')
      if source.former_address:
        lines.append(f'      (before: {source.former_address})')
      lines.append(f'      -> {source.becomes}')
    if self.num_images:
      lines.append(f'  expected: {self.num_images:,} index images and {self.num_queries} query images')
    if self.note:
      lines.append(f'  {self.note}')
    return '\n'.join([*lines, f'  then: d2r datasets --name={self.name} --root=DIR'])

  @property
  def has_ground_truth(self) -> bool:
    return self.num_queries > 0

  def locate(self, root: str | pathlib.Path) -> pathlib.Path:
    """Returns the folder with the ground truth or list: `root`, or the folder of the data set within it.

    Raises:
      UserError: neither has one. The message contains the instructions.
    """
    for folder in (pathlib.Path(root), pathlib.Path(root) / self.name):
      if self.lists(folder):
        return folder
    wanted = f'gnd_{self.name}.pkl or .mat' if self.has_ground_truth else distractor_list.LIST
    raise UserError(
      f'{root}: expected {wanted} in there or in {self.name}/, found neither.\n{self.instructions()}'
    )

  def lists(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files in a folder that list the photos; the first one has precedence."""
    names = (
      [f'gnd_{self.name}.pkl', f'gnd_{self.name}.mat'] if self.has_ground_truth else [distractor_list.LIST]
    )
    return [folder / name for name in names if (folder / name).is_file()]

  def photos(self, folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the photos: `jpg/` or, if that is missing, the folder itself."""
    return folder / PHOTOS if (folder / PHOTOS).is_dir() else folder


def _photos(archive: str) -> Source:
  return Source(
    f'https://{_PHOTOS}/{archive}-v1.tgz', 'unpack in DIR/jpg/', f'http://{_PHOTOS}/{archive}.tgz'
  )


def _annotations(name: str) -> Source:
  return Source(f'{_ANNOTATIONS}/{name}/gnd_{name}.pkl (or .mat)', f'DIR/gnd_{name}.pkl (or .mat)')


FOLDERS = {
  folder.name: folder
  for folder in (
    RevisitedFolder(
      'roxford5k',
      (_photos('oxbuildings/oxbuild_images'), _annotations('roxford5k')),
      num_images=4993,
      num_queries=70,
    ),
    RevisitedFolder(
      'rparis6k',
      (
        _photos('parisbuildings/paris_1'),
        _photos('parisbuildings/paris_2'),
        _annotations('rparis6k'),
      ),
      num_images=6322,
      num_queries=70,
      note='The archives contain more photos than these; the others are not used.',
    ),
    RevisitedFolder(
      'revisitop1m',
      (
        Source(f'{_DISTRACTORS}/jpg/revisitop1m.1.tar.gz to revisitop1m.100.tar.gz', 'unpack in DIR/jpg/'),
        Source(f'{_DISTRACTORS}/revisitop1m.txt', 'DIR/revisitop1m.txt'),
      ),
      note='One million photos; used by run_experiment --distractors=DIR and reproduce --distractors=DIR.',
    ),
  )
}
