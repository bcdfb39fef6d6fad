"""Revisited Oxford, Paris and the million distractors on the disk: where they come from and belong.

    DIR/gnd_roxford5k.pkl or .mat     as published, for rparis6k likewise
    DIR/jpg/                          all photos; subfolders do not matter
    DIR/revisitop1m.txt, DIR/jpg/     the distractors

DIR may also be the folder around such a folder of the data set's name. Addresses are those of the data sets'
own pages and of the benchmark's code (Radenovic et al., CVPR 2018; github.com/filipradenovic/revisitop). The
archives of photos had others before, which stand beside. Nothing here fetches anything.
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
  """Files to fetch: their address, what becomes of them below DIR, and the address that they had before."""

  address: str
  becomes: str
  former_address: str = ''


@dataclasses.dataclass(frozen=True)
class RevisitedFolder:
  """What belongs in the folder of one data set.

  Attributes:
    name: of the data set, and of its folder.
    sources: what to fetch.
    num_images, num_queries: what the ground truth names; 0 where a list does.
    note: what a reader should know.
  """

  name: str
  sources: tuple[Source, ...]
  num_images: int = 0
  num_queries: int = 0
  note: str = ''

  def instructions(self) -> str:
    """What to fetch and where to put it, for people."""
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
    """The folder that holds the ground truth or list: `root`, or that of the data set's name in it.

    Raises:
      UserError: neither does.
    """
    for folder in (pathlib.Path(root), pathlib.Path(root) / self.name):
      if self.lists(folder):
        return folder
    wanted = f'gnd_{self.name}.pkl or .mat' if self.has_ground_truth else distractor_list.LIST
    raise UserError(
      f'{root}: expected {wanted} in there or in {self.name}/, found neither.\n{self.instructions()}'
    )

  def lists(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """The files in a folder that say which photos there are, the one to use first."""
    names = (
      [f'gnd_{self.name}.pkl', f'gnd_{self.name}.mat'] if self.has_ground_truth else [distractor_list.LIST]
    )
    return [folder / name for name in names if (folder / name).is_file()]

  def photos(self, folder: pathlib.Path) -> pathlib.Path:
    """The folder of the photos: `jpg/`, or where that is missing the folder itself."""
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
      note='Photos beyond these are in the archives, too; they are not used.',
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
