"""Checks of the inputs of artefacts: changes since they were made, and artefacts that do not fit together.

Missing inputs are checked in missing.py.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from delf_d2r.data import files
from delf_d2r.data.artefacts import read_photos
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, Input, read_manifest
from delf_d2r.data.artefacts.artefact_writer import read_errors
from delf_d2r.data.artefacts.read_photos import Use
from delf_d2r.data.artefacts.shard_ledger import ShardLedger
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.photos import photo_listing
from delf_d2r.data.photos.dataset import Queries
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.photos.photo_state import Trust
from delf_d2r.doctor import missing
from delf_d2r.doctor.findings import Finding, FindingCounter, Severity, error, note, warning
from delf_d2r.errors import ArtefactError, UserError

_AGAIN = 'Run the same command again with --redo, or with another --output'


@dataclasses.dataclass(frozen=True)
class ArtefactFacts:
  """Facts about the contents of an artefact, for comparison with other artefacts.

  Attributes:
    names: digest of the names of its images in order; '' if it has none.
    num_images: number of its images.
    dimensions, num_words: D of local descriptors, and K; 0 if it has none.
    bits: dimensions of aggregated descriptors; 0 if it has none.
    centroids: digest of its codebook; '' if it has none.
  """

  names: str = ''
  num_images: int = 0
  dimensions: int = 0
  num_words: int = 0
  bits: int = 0
  centroids: str = ''


def stale(
  artefact: Artefact, siblings: Sequence[Artefact], names: Sequence[str], gone: Collection[pathlib.Path] = ()
) -> Iterator[Finding]:
  """Yields findings on inputs that have changed since the artefact was made.

  Args:
    artefact: the artefact.
    siblings: artefacts of the same run, which may have been moved since.
    names: the names of its images, if it was made from photos.
    gone: missing inputs, which missing.py reports.
  """
  told: list[Finding] = []
  for was in artefact.inputs:
    if was.role in _NOT_COMPARED:
      continue
    place = missing.place_of(artefact, was, siblings)
    if place in gone:
      continue
    if (place / MANIFEST).is_file():
      yield from _artefact_input(artefact, was, place)
    elif not place.exists() and was.role == read_photos.ROLE:
      continue  # The folder of photos is another input, and told with that one.
    elif not place.exists():
      yield note(artefact.path, f'its input {was.role}, {was.path}, is missing and not compared', 'Nothing')
    elif was.role == 'images' and artefact.manifest.kind in ('boxes', 'features'):
      told += (found := list(_photos(artefact, was, names)))
      yield from found
    elif was.role == read_photos.ROLE:
      # A photo that was replaced has told so by its size, head or tail already.
      if all(finding.severity is not Severity.ERROR for finding in told):
        yield from _contents(artefact, was)
    elif was.role == 'queries':
      told += (found := list(_queries(artefact, was, siblings)))
      yield from found
    elif was.role in _BY_BYTES:
      yield from _files(artefact, was)


def _artefact_input(artefact: Artefact, was: Input, place: pathlib.Path) -> Iterator[Finding]:
  try:
    found = read_manifest(place / MANIFEST).fingerprint
  except ArtefactError:
    yield warning(artefact.path, f'its input {was.role} cannot be read', f'Repair {place}, if it is needed')
    return
  if found != was.fingerprint:
    yield error(
      artefact.path,
      f'stale: made from {was.role} {was.fingerprint}, {place} now holds {found}',
      'Run the command that made it again with --redo',
    )


def _photos(artefact: Artefact, was: Input, names: Sequence[str]) -> Iterator[Finding]:
  known = [*names, *(failure['name'] for failure in read_errors(artefact))]
  try:
    folder = _folder(artefact, was.path, known)
    now = folder.fingerprint
  except UserError as problem:
    yield error(artefact.path, f'stale: {problem}', _AGAIN)
    return
  yield from _left_out(artefact, was, folder)
  if now == was.fingerprint:
    return
  gone = sorted(name for name in known if not folder.path(name).is_file())
  if gone:
    yield error(
      artefact.path,
      f'stale: {len(gone)} of its photos are missing in {was.path}, for example {gone[0]}',
      _AGAIN,
    )
  # A ground truth may have chosen some photos of the folder, in another order.
  elif was.fingerprint not in (
    ImageList(was.path, tuple(order)).fingerprint for order in (known, sorted(known))
  ):
    yield error(artefact.path, f'stale: photos in {was.path} have changed since', _AGAIN)
  else:
    new = sorted(set(folder.names) - set(known))
    if new:
      yield note(
        artefact.path,
        f'{len(new)} photos of {was.path} are not in it, for example {new[0]}',
        'Nothing, if --exclude, a ground truth or a list omits them; if they are new, run the command again'
        ' with --redo',
      )


def _left_out(artefact: Artefact, was: Input, folder: ImageList) -> Iterator[Finding]:
  """Yields a note on the files that are no photos: once for a run, of the boxes if it has any."""
  if folder.left_out and artefact.input('boxes') is None:
    yield note(
      artefact.path,
      f'{sum(folder.left_out.values()):,} files or folders of {was.path} are left out:'
      f' {photo_listing.describe(folder.left_out)}',
      'Nothing, unless they are photos: convert those to a format that Pillow reads, or make them readable',
    )


def _contents(artefact: Artefact, was: Input) -> Iterator[Finding]:
  """Yields findings on photos that have other bytes than those that were read; all of them are read."""
  ledger = ShardLedger(artefact.path, artefact.manifest.kind)
  digest = read_photos.ContentDigest()
  changed = FindingCounter()
  try:
    for _, photos in ledger.photos([shard.file for shard in artefact.manifest.shards]):
      for photo in photos:
        digest.add(photo)
        path = files.safe_join(was.path, photo.name)
        if photo.use is Use.READ and photo.state and not photo.state.confirmed(path, trust=Trust.NOTHING):
          changed.add(photo.name)
  except ArtefactError as problem:
    yield note(artefact.path, f'its photos are not compared byte by byte: {problem}', 'Nothing')
    return
  if digest.as_input(was).fingerprint != was.fingerprint:
    yield error(artefact.path, 'the list of its photos is not that of its manifest', _AGAIN)
  if changed:
    yield error(
      artefact.path,
      f'stale: photos in {was.path} that have other bytes than those that were read: {changed}',
      _AGAIN,
    )


def _folder(artefact: Artefact, root: pathlib.Path, known: Sequence[str]) -> ImageList:
  """Returns the photos below `root`; of distractors, whose `root` is the parent, those in their folder."""
  tops = sorted({name.partition('/')[0] for name in known})
  if not missing.are_distractors(artefact) or len(tops) != 1:
    return ImageList.from_folder(root)
  own = ImageList.from_folder(root / tops[0])
  return ImageList(root, tuple(f'{tops[0]}/{name}' for name in own.names), own.left_out)


def _queries(artefact: Artefact, was: Input, siblings: Sequence[Artefact]) -> Iterator[Finding]:
  truths = [other.input('ground_truth') for other in siblings if other.manifest.kind == 'metrics']
  path = next((truth.path for truth in truths if truth and truth.path.is_file()), None)
  if path is None:
    yield note(
      artefact.path, 'its queries cannot be compared: no metrics of a ground truth beside it', 'Nothing'
    )
    return
  try:
    truth = ground_truth.load(path)
    photos = ImageList.from_folder(was.path).select(
      [query.image for query in truth.queries], source=str(path)
    )
  except UserError as problem:
    yield error(artefact.path, f'stale: {problem}', _AGAIN)
    return
  if Queries(photos, truth).as_input().fingerprint != was.fingerprint:
    yield error(
      artefact.path, f'stale: query photos in {was.path}, or boxes in {path}, have changed since', _AGAIN
    )


def _files(artefact: Artefact, was: Input) -> Iterator[Finding]:
  # The fingerprint of a single file is that of its bytes; that of a model includes the names of its files.
  known = {files.fingerprint(was.path)}
  if was.path.is_file():
    known.add(files.content_fingerprint(was.path))
  if was.fingerprint not in known:
    yield error(artefact.path, f'stale: its input {was.role}, {was.path}, has changed since', _AGAIN)


# Roles of inputs that are not compared: the part of a whole that an artefact is, the distractors' folder, and
# the codebook of the package, of which an artefact has a copy.
_NOT_COMPARED = frozenset(('number', 'part', 'split', 'distractor_images', 'shipped_codebook'))

# Roles whose fingerprint is that of the bytes of a file or folder.
_BY_BYTES = frozenset(
  (
    'ground_truth',
    'boxes_file',
    'detector',
    'model',
    'pca',
    'pca_mean',
    'pca_components',
    'pca_variances',
    'delf_files',
    'boxes_files',
    'mapping',
  )
)


def check_provenance(
  facts: Mapping[pathlib.Path, ArtefactFacts], artefacts: Sequence[Artefact]
) -> Iterator[Finding]:
  """Yields findings on artefacts whose contents do not fit the artefacts that they were made from.

  Args:
    facts: of each artefact by its path.
    artefacts: of one run.
  """
  for child, parent in itertools.permutations(artefacts, 2):
    for item in child.manifest.inputs:
      is_this = item.fingerprint == parent.manifest.fingerprint
      if is_this and child.path in facts and parent.path in facts:
        yield from _mismatch(child, facts[child.path], parent, facts[parent.path], item.role)


def _mismatch(
  child: Artefact, ours: ArtefactFacts, parent: Artefact, theirs: ArtefactFacts, role: str
) -> Iterator[Finding]:
  remedy = f'Delete {child.path} and run the same command again'
  for field, what in (
    ('dimensions', 'dimensions'),
    ('num_words', 'visual words'),
    ('bits', 'dimensions of aggregated descriptors'),
  ):
    found, expected = getattr(ours, field), getattr(theirs, field)
    if found and expected and found != expected:
      yield error(child.path, f'{found} {what}, {parent.path} has {expected}', remedy)
  if ours.centroids and theirs.centroids and ours.centroids != theirs.centroids:
    yield error(child.path, f'its codebook is not that of {parent.path}', remedy)
  has_more = child.input('distractors') or child.input('distractor_features')
  same_images = role in ('features', 'descriptors', 'index') and not has_more
  if same_images and ours.names and theirs.names and ours.names != theirs.names:
    yield error(
      child.path, f'its {ours.num_images} images are not the {theirs.num_images} of {parent.path}', remedy
    )


def changed_copies(artefacts: Sequence[Artefact]) -> Iterator[Finding]:
  """Yields findings on artefacts of one run that were made from different states of the same photos."""
  seen: dict[tuple[str, bool], tuple[Artefact, Input]] = {}
  for artefact in artefacts:
    images = artefact.input('images')
    if images is None:
      continue
    # Names of distractors are relative to the parent of their folder, which may be that of the other photos.
    key = (str(images.path), missing.are_distractors(artefact))
    other, other_images = seen.setdefault(key, (artefact, images))
    if other_images.fingerprint != images.fingerprint:
      yield warning(
        artefact.path,
        f'made from photos {images.fingerprint}, {other.path} from {other_images.fingerprint} of the'
        f' same folder {images.path}',
        'Run the same command again with --redo',
      )
