"""The search engine: an index directory that answers photos.

engine = SearchEngine.load('output')
for result in engine.search('photo.jpg', top_k=10, verify=True).results:
  print(result.name, result.score, result.inliers)
"""

import itertools
import pathlib
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact as artefacts
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.boxes.csv_file import check_box
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine.answer import Answer, SearchResult, results_of
from delf_d2r.engine.indexed_features import IndexedFeatures
from delf_d2r.engine.live_index import LiveIndex
from delf_d2r.engine.photo_reader import Photo, PhotoReader, named_photos
from delf_d2r.engine.ranking_engine import RankingEngine
from delf_d2r.engine.spatial_verification import Candidates
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.index.array_files import IndexFormatError
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.sharding import layout
from delf_d2r.structures import Boxes, ImageFeatures, LocalFeatures, Match
from delf_d2r.verifier import reordered

__all__ = ['Answer', 'Photo', 'SearchEngine', 'SearchResult']


class SearchEngine(RankingEngine):
  """Photos in, ranked index images out. Loading imports neither TensorFlow nor any photo.

  Threads may search at once, also while another one adds and removes images: a search answers from the images
  that there were when it began.

  Attributes:
    photos: the folders of the indexed photos, as they were when they were indexed. To be set if they moved.
    verifies: whether the run that made the index verifies its results, so that a user expects it of a search.
  """

  def __init__(self, live: LiveIndex, aggregation: AggregationConfig, verification: VerificationConfig):
    """For `load`."""
    super().__init__(live, aggregation)
    self.verifies = False
    self.photos = PhotoFolders.of_index(live.artefact)
    self._reader = PhotoReader(live.artefact)
    self._features = IndexedFeatures(live.artefact, self._reader.extract)
    self._candidates = Candidates(
      verification,
      live.artefact.config.extraction,
      lambda snapshot, image_id: self._features.read(snapshot, image_id, photos=self.photos),
    )

  @classmethod
  def load(
    cls,
    directory: str | pathlib.Path,
    *,
    aggregation: AggregationConfig | None = None,
    verification: VerificationConfig | None = None,
    one_photo: bool = False,
    index: InvertedIndex | None = None,
    warm: bool = False,
  ) -> 'SearchEngine':
    """Opens an index.

    Args:
      directory: that of build_index or of run_experiment.
      aggregation: its alpha, tau, normalize, use_idf, compat, query_num_assignments and query_assignment
        take the place of those that the index was built with.
      verification: how to verify; None: as the run's config says, else by default. Its junk has no effect.
      one_photo: the engine will answer one photo at most: assign exactly, without preparing anything.
      index: what to search instead of the directory's own postings: a sharding.ShardedIndex.
      warm: read the index in a row first, so that no search waits for a disk to seek; see `warm`.

    Raises:
      ArtefactError: there is no finished index, or a file of it is damaged.
    """
    directory = pathlib.Path(directory)
    run = directory / artefacts.RUN_CONFIG
    verifies = verification is None and run.is_file() and configs.load(run).HasField('verification')
    if verification is None:
      config = configs.load(run) if verifies else configs.default('verification')
      verification = config.verification
    if not (directory / artefacts.MANIFEST).is_file() and (directory / 'index').is_dir():
      directory = directory / 'index'
    artefact = Artefact.open(directory, 'index')
    if index is None and (directory / layout.SPLIT).is_file():
      raise ArtefactError(f'{directory}: the front of a split index; `d2r serve` searches it with --shards')
    merged = artefacts.with_comparison(artefact.config, aggregation)
    if one_photo:
      merged.aggregation.query_assignment = AggregationConfig.EXACT
    try:
      engine = cls(LiveIndex(artefact, index), merged.aggregation, verification)
      engine.verifies = verifies and not engine.cannot_verify
      if warm:
        engine.warm()
      return engine
    except (IndexFormatError, OSError, ValueError) as error:
      raise ArtefactError(f'{directory}: the index cannot be opened: {error}') from None

  def search(
    self, photo: Photo, *, box: Sequence[float] | None = None, top_k: int = 10, verify: bool = False
  ) -> Answer:
    """The index images most similar to a photo.

    Args:
      photo: a file, its contents, or uint8 [H, W, 3] RGB.
      box: `[ymin, xmin, ymax, xmax]`, normalised: search for what is inside; None: the whole photo.
      top_k: number of results; 0 = all.
      verify: look at the best `num_images` of the verification's config and put first what one transform
        between the photos confirms, most inliers ahead; images of equal inliers, and those not looked at,
        stand as they did.

    Raises:
      ImageError: the photo cannot be decoded; or, to verify, neither features nor photo of an index image
        are at hand.
      UserError: the box is not within the photo, the array is no photo, or `cannot_verify` says why not.
    """
    if box is not None:
      check_box(box, 'box')
    if top_k < 0:
      raise UserError(f'top_k is {top_k}; it must be at least 0')
    marks = [('', time.perf_counter())]
    snapshot = self._live.snapshot
    pixels = _checked(photo) if isinstance(photo, np.ndarray) else self.load_photo(photo)
    marks.append(('decode', time.perf_counter()))
    features = self._reader.query_features(pixels, box)
    marks.append(('extract', time.perf_counter()))
    descriptor = self.describe(features)
    marks.append(('describe', time.perf_counter()))
    wanted = max(top_k, self._candidates.num_images) if verify and top_k else top_k
    ranking = snapshot.index.search(descriptor, top_k=wanted, **self._search_options)
    marks.append(('search', time.perf_counter()))
    matches = ()
    if verify:
      matches = self._candidates.verify(snapshot, features.features, ranking)
      ranking = reordered(ranking, matches, length=top_k or None)
      marks.append(('verify', time.perf_counter()))
    seconds = {what: end - start for (_, start), (what, end) in itertools.pairwise(marks)}
    return Answer(results_of(snapshot, ranking, matches), features, seconds, ranking.missing_shards)

  def match(self, query: LocalFeatures, image_id: int) -> Match:
    """What spatial verification finds between a query's features and an index image."""
    return self._candidates.match(self._live.snapshot, query, image_id)

  # Changing ------------------------------------------------------------------------------------------

  def add(
    self,
    photos: Mapping[str, Photo] | Iterable[str | pathlib.Path],
    *,
    boxes: Mapping[str, Sequence[Sequence[float]]] | None = None,
  ) -> None:
    """Indexes more photos, all or, if one of them fails, none. Others may search meanwhile.

    Args:
      photos: by name; or files, whose names then are relative to one of the folders `photos`, or the last
        part of their paths where they lie elsewhere.
      boxes: by name, [R - 1, 4] of those photos that have boxes of their own. Others have what the run's
        grid or detector gives them, or none if the run has no boxes.

    Raises:
      ImageError: a photo cannot be decoded.
      UserError: a name is in the index already, a box is not within its photo, or the run's boxes came from
        a file and a photo has none of its own.
    """
    photos = photos if isinstance(photos, Mapping) else named_photos(photos, self.photos)
    boxes = dict(boxes or {})
    for name, own in boxes.items():
      if name not in photos:
        raise UserError(f'boxes of {name}, which is not among the {len(photos)} photos')
      for box in own:
        check_box(box, f'boxes of {name}')
    if photos.keys() - boxes.keys():
      self._reader.prepare_boxes()

    def describe(name: str):
      photo = photos[name]
      pixels = _checked(photo) if isinstance(photo, np.ndarray) else self.load_photo(photo, name=name)
      own = Boxes.from_coordinates(boxes[name]) if name in boxes else None
      return self._reader.index_image(name, pixels, own)

    self._live.add(list(photos), describe)
    self._candidates.forget()

  def remove(self, names: Iterable[str]) -> None:
    """Removes images; nothing if the index lacks one of them, which is a UserError."""
    if isinstance(names, str):
      raise TypeError(f'expected names, found the string {names!r}; give [{names!r}]')
    self._live.remove(list(names))
    self._candidates.forget()

  def save(self) -> None:
    """Writes what was added and removed back to the directory, where `load` finds it.

    A kill at any moment leaves the old index or the new one.

    Raises:
      UserError: it cannot be written, or another process has changed it.
    """
    self._live.save()

  # Parts ---------------------------------------------------------------------------------------------

  @property
  def cannot_verify(self) -> str:
    """Why a search with `verify` is refused; empty if it is not."""
    return self._candidates.refusal

  def prepare(self) -> None:
    """Makes the extractor now instead of at the first photo: a network takes seconds to load."""
    self._reader.prepare()

  def features(self, image_id: int) -> ImageFeatures:
    """The features of an index image: as they were stored or, where they are gone, anew from its photo.

    Raises:
      ImageError: neither they nor the photo are at hand.
      ArtefactError: their record is damaged.
    """
    return self._features.read(self._live.snapshot, image_id, photos=self.photos)

  def load_photo(self, photo: str | pathlib.Path | bytes, *, name: str = '') -> np.ndarray:
    """uint8 [H, W, 3]: a photo decoded as the index's own were; see `data.images.load_image`."""
    return self._reader.load(photo, name=name)


def _checked(photo: np.ndarray) -> np.ndarray:
  if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
    raise UserError(f'photo: expected uint8 [H, W, 3] RGB, found {photo.dtype} {list(photo.shape)}')
  return photo
