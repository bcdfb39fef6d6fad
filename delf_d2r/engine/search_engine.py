"""The search engine: an index directory that answers photos.

engine = SearchEngine.load('output')
for result in engine.search('photo.jpg', top_k=10, verify=True).results:
  print(result.name, result.score, result.inliers)
"""

import dataclasses
import functools
import itertools
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from absl import logging

from delf_d2r import aggregator
from delf_d2r import config as configs
from delf_d2r.aggregator import Aggregator, SearchOptions
from delf_d2r.data.artefacts import artefact as artefacts
from delf_d2r.data.artefacts import codebook_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.data.boxes.csv_file import check_box
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import fused_search
from delf_d2r.engine.fused_search import FusedSearch
from delf_d2r.engine.indexed_features import IndexedFeatures
from delf_d2r.engine.live_index import LiveIndex, RebuiltIndexError, Snapshot
from delf_d2r.engine.paired_index import PairedIndex, PairedSnapshot
from delf_d2r.engine.photo_reader import Photo, PhotoReader, named_photos
from delf_d2r.engine.spatial_verification import SpatialVerification
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.index import IndexFormatError
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.sharding import layout
from delf_d2r.structures import (
  AggregatedDescriptor,
  Boxes,
  ImageFeatures,
  LocalFeatures,
  Match,
  Ranking,
  require_several,
)
from delf_d2r.verifier import reordered

if TYPE_CHECKING:
  # It needs httpx, which only an engine with shards needs.
  from delf_d2r.sharding.sharded_index import ShardedIndex

__all__ = ['Answer', 'Photo', 'SearchEngine', 'SearchResult']


@dataclasses.dataclass(frozen=True)
class SearchResult:
  """One index image of an answer.

  Attributes:
    rank: position in the answer, from 1.
    name: the name of the image.
    score: its similarity to the query; 0 if the two images share no visual word. In a run with fusion, the
      sum of `local_score` and `global_score`, or their norm of the order that the config gives.
    boxes: float32 [R - 1, 4], `[ymin, xmin, ymax, xmax]` normalised to [0, 1]; the whole image is left out.
    best_region: with regional search or region masks the region that scored best: 0 for the whole image, r
      for the box r - 1. Otherwise -1.
    match: the result of spatial verification; None if this image was not verified.
    local_score, global_score: in a run with fusion, the parts of the score: of the first search, by local
      features, and of the other one, by global descriptors. Otherwise None.
  """

  rank: int
  name: str
  score: float
  boxes: np.ndarray
  best_region: int
  match: Match | None = None
  local_score: float | None = None
  global_score: float | None = None

  @property
  def inliers(self) -> int | None:
    """The number of consistent matches; None if this image was not verified."""
    return None if self.match is None else len(self.match)


@dataclasses.dataclass(frozen=True)
class Answer:
  """The results of one search.

  Attributes:
    results: the index images, best first.
    features: the local features of the query. If there are none, every score is 0, but for the part of the
      other search in a run with fusion.
    seconds: wall time in seconds of each step: decode, extract, describe, search, verify.
    missing_shards: numbers of the shards of a split index that did not answer. Their images have no scores.
    other_features: in a run with fusion, the features of the query for the other search. Otherwise None.
  """

  results: tuple[SearchResult, ...]
  features: ImageFeatures
  seconds: dict[str, float]
  missing_shards: tuple[int, ...] = ()
  other_features: ImageFeatures | None = None

  @property
  def num_features(self) -> int:
    """The number of local features of the query."""
    return len(self.features.features)

  @property
  def can_find(self) -> bool:
    """Whether the query has any features. If it has none, all images have the same score."""
    return bool(self.num_features or (self.other_features and len(self.other_features.features)))


@dataclasses.dataclass(frozen=True)
class _Opened:
  """An index, or two with fusion, and the configs of its searches."""

  live: LiveIndex | PairedIndex
  aggregation: AggregationConfig
  verification: VerificationConfig
  verifies: bool
  fused: FusedSearch | None = None


@dataclasses.dataclass(frozen=True)
class _Parts:
  """What a search needs, for one index. Another index in its place has other parts."""

  live: LiveIndex | PairedIndex
  aggregator: Aggregator
  search_options: SearchOptions
  reader: PhotoReader
  features: IndexedFeatures
  verification: SpatialVerification
  fused: FusedSearch | None


@dataclasses.dataclass
class _Photos:
  """The folders of the photos, which may be set while an engine is used."""

  folders: PhotoFolders


# How often a search begins again because another process has saved the index meanwhile.
_ATTEMPTS = 5


class SearchEngine:
  """Takes photos, returns ranked index images.

  Loading an engine imports neither TensorFlow nor the libraries that decode photos into features. Threads may
  search at the same time, also while another thread adds and removes images: a search answers from the images
  that were in the index when it began.

  Other processes may change and save the index meanwhile; every search begins with `refresh`.

  The folder of a run with fusion holds two indexes of the same images, which an engine searches and changes
  as one: the first, by local features, and the other one, by global descriptors. Scores join those of both;
  boxes, features, words, matches and `index` are those of the first.

  Attributes:
    photos: the folders of the indexed photos, as recorded in the index. Set it if they have moved.
    verifies: whether the run that made the index verifies its results. It is the default that a user expects
      of a search.
  """

  def __init__(self, opened: _Opened):
    """Builds an engine from an index that is open; use `SearchEngine.load`."""
    self._photos = _Photos(PhotoFolders.of_index(opened.live.artefact))
    self._open_again: Callable[[], _Opened] | None = None
    self._loading = threading.Lock()
    self._parts = self._make_parts(opened)
    self.verifies = opened.verifies and not self.why_unverifiable

  def _make_parts(self, opened: _Opened) -> _Parts:
    live, aggregation = opened.live, opened.aggregation
    centroids = np.ascontiguousarray(codebook_files.load_centroids(live.artefact.path))
    recall = codebook_files.load_recall(live.artefact.path)
    assign = aggregator.assigner(aggregation.query_assignment, centroids, recall=recall)
    reader = PhotoReader(live.artefact)
    features = IndexedFeatures(live.artefact, reader.extract)
    # Not the engine, so that an engine that nobody uses any more, and its lock, end at once.
    photos = self._photos
    return _Parts(
      live,
      Aggregator(aggregation, centroids, assign, codebook_files.load_projection(live.artefact.path)),
      aggregator.search_options(aggregation),
      reader,
      features,
      SpatialVerification(
        opened.verification,
        live.artefact.config.extraction,
        lambda snapshot, image_id: features.read(snapshot, image_id, photos=photos.folders),
      ),
      opened.fused,
    )

  @classmethod
  def load(
    cls,
    directory: str | pathlib.Path,
    *,
    aggregation: AggregationConfig | None = None,
    verification: VerificationConfig | None = None,
    fusion: FusionConfig | None = None,
    one_photo: bool = False,
    index: 'InvertedIndex | ShardedIndex | None' = None,
    preload: bool = False,
  ) -> Self:
    """Opens an index.

    The path is resolved once: neither another working folder nor a link that is turned to another directory
    leads the engine to another index.

    Args:
      directory: an output directory of `build_index` or of `run_experiment`. That of a run with fusion has
        two indexes, which are searched as one; each of them may be opened alone, as `directory/index` and
        `directory/other/index`.
      aggregation: its alpha, tau, normalize, use_idf, compat, query_num_assignments and query_assignment
        replace those that the index was built with.
      verification: how to verify. None takes the run's own verification, or the defaults if it has none. Its
        field `junk` has no effect.
      fusion: how the scores of both indexes of a run with fusion are added. None takes the run's own fusion.
        Its parts extraction, codebook and aggregation have no effect.
      one_photo: the engine will answer at most one photo, so it assigns descriptors exactly instead of
        preparing an approximate search of the codebook.
      index: searched instead of the postings in the directory, for example a `sharding.ShardedIndex`.
      preload: reads the index sequentially first, so that no search waits for disk seeks; see `preload`.

    Returns:
      The engine.

    Raises:
      ArtefactError: there is no finished index, one of its files is damaged, or the two indexes of a run with
        fusion are not of the same images.
    """
    place = pathlib.Path(directory).absolute()
    if not (place / artefacts.MANIFEST).is_file() and (place / 'index').is_dir():
      place = place.resolve()  # once, so that config and index are of one run
    open_again = functools.partial(_open, place, aggregation, verification, fusion, one_photo=one_photo)
    try:
      engine = cls(open_again(index=index))
      if index is None:
        engine._open_again = open_again
      if preload:
        engine.preload()
      return engine
    except (IndexFormatError, OSError, ValueError) as error:
      raise ArtefactError(f'{place}: the index cannot be opened: {error}') from None

  def __len__(self) -> int:
    """Returns the number of index images."""
    return len(self.index)

  def __repr__(self) -> str:
    return f'{type(self).__name__}({self.artefact.path}, {self.index!r})'

  @property
  def photos(self) -> PhotoFolders:
    """The folders of the indexed photos."""
    return self._photos.folders

  @photos.setter
  def photos(self, folders: PhotoFolders) -> None:
    self._photos.folders = folders

  @property
  def artefact(self) -> Artefact:
    """The index artefact as it was loaded or last saved."""
    return self._parts.live.artefact

  @property
  def index(self) -> 'InvertedIndex | ShardedIndex':
    """The index with all changes so far, for reading only. Every change replaces it by another object."""
    return self._parts.live.snapshot.index

  @property
  def fusion(self) -> FusionConfig | None:
    """How the scores of the two indexes of a run with fusion are added; None where there is one index."""
    return None if self._parts.fused is None else self._parts.fused.config

  @property
  def why_unverifiable(self) -> str:
    """The reason why a search with `verify` is refused; empty if it is not."""
    return self._parts.verification.why_unverifiable

  # Searching -----------------------------------------------------------------------------------------

  def search(
    self, photo: Photo, *, box: Sequence[float] | None = None, top_k: int = 10, verify: bool = False
  ) -> Answer:
    """Returns the index images most similar to a photo.

    The photo is decoded, described by local features and aggregated as the config of the index says; then the
    index is searched and, if wanted, the best results are verified.

    Args:
      photo: the path of a file, its contents, or an array uint8 [H, W, 3] RGB.
      box: `[ymin, xmin, ymax, xmax]` normalised to [0, 1], the part of the photo to search for; None for the
        whole photo.
      top_k: number of results; 0 for all index images.
      verify: matches the local features of the query with those of the best `num_images` results (a field of
        the verification config) and ranks these by the number of matches that agree on one transform, most
        inliers first. Images with equally many inliers, and images that are not verified, keep their order.

    Returns:
      The ranked results with the features of the query and the time of each step.

    Raises:
      ImageError: the photo cannot be decoded; or, with `verify`, neither the features nor the photo of an
        index image can be found.
      UserError: the box is not within the photo, the array is no photo, or `why_unverifiable` gives a reason.
    """
    if box is not None:
      check_box(box, 'box')
    if top_k < 0:
      raise UserError(f'top_k is {top_k}; it must be at least 0')
    started = time.perf_counter()
    pixels = self._pixels(photo)
    decoded = time.perf_counter()
    for _ in range(_ATTEMPTS):
      self.refresh()
      parts = self._parts
      snapshot = parts.live.snapshot
      try:
        answer = _search(parts, snapshot, pixels, box, top_k, verify=verify)
        return dataclasses.replace(answer, seconds={'decode': decoded - started, **answer.seconds})
      except (ArtefactError, IndexFormatError):
        self.refresh(wait=True)
        if self._parts.live.snapshot is snapshot:
          raise
        # Files of the snapshot were removed, because another process has saved the index.
    return _search(parts, snapshot, pixels, box, top_k, verify=verify)

  def refresh(self, *, wait: bool = False) -> None:
    """Takes over the changes that another process has saved, as every search does when it begins.

    Changes of this engine that are not saved yet are kept; they keep other processes from saving. If the
    saved index cannot be loaded, the engine goes on with the one that it has, and the reason is logged.

    Args:
      wait: wait for a change or a save in another thread first.
    """
    parts = self._parts
    before = parts.live.snapshot
    try:
      if parts.live.refresh(wait=wait) is not before:
        parts.verification.clear_cache()
    except RebuiltIndexError as error:
      try:
        self._load_rebuilt(parts)
      except (UserError, IndexFormatError, OSError, ValueError) as problem:
        logging.warning('%s: %s', error, problem)

  def prepare(self) -> None:
    """Loads the extractor now instead of at the first photo; a network takes seconds to load."""
    self._parts.reader.prepare()
    if self._parts.fused is not None:
      self._parts.fused.reader.prepare()

  def preload(self, report: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Reads all files of the index sequentially, so that searches find them in memory.

    Args:
      report: called with the number of bytes read so far and in total.

    Returns:
      The number of bytes.
    """
    snapshot = self._parts.live.snapshot
    if not isinstance(snapshot, PairedSnapshot):
      return snapshot.index.preload(report)
    first, other = snapshot.indexes
    read = first.preload(lambda done, total: report(done, total + other.nbytes))
    return read + other.preload(lambda done, total: report(read + done, read + total))

  def load_photo(self, photo: str | pathlib.Path | bytes, *, name: str = '') -> np.ndarray:
    """Decodes a photo as those of the index were decoded.

    Args:
      photo: the path of a file, or its contents.
      name: how error messages call it; by default its path.

    Returns:
      uint8 [H, W, 3] RGB.

    Raises:
      ImageError: the photo cannot be decoded.
    """
    return self._parts.reader.load(photo, name=name)

  # The steps of a search, for queries whose features exist ---------------------------------------------

  def describe(self, query: ImageFeatures) -> AggregatedDescriptor:
    """Aggregates the local features of a query."""
    return self._parts.aggregator.query(query)

  def describe_other(self, query: ImageFeatures) -> AggregatedDescriptor:
    """Aggregates the features of a query for the other search of a run with fusion (`Answer.other_features`).

    Raises:
      UserError: there is one search alone.
    """
    return self._fused.aggregator.query(query)

  def describe_expanded(
    self,
    query: ImageFeatures,
    others: Sequence[LocalFeatures],
    weights: Sequence[float],
    *,
    min_images_per_word: int = 1,
  ) -> AggregatedDescriptor:
    """Aggregates the features of a query with those of other images; see `Aggregator.expanded_query`."""
    return self._parts.aggregator.expanded_query(
      query, others, weights, min_images_per_word=min_images_per_word
    )

  def rank(
    self,
    query: AggregatedDescriptor,
    *,
    top_k: int,
    name: str = '',
    other: AggregatedDescriptor | None = None,
  ) -> Ranking:
    """Ranks the index images by their similarity to a query.

    Args:
      query: from `describe`.
      top_k: length of the ranking; 0 for all index images.
      name: the name of the query.
      other: from `describe_other`, for the fused ranking of both searches of a run with fusion. Without it,
        images are ranked by the first search alone.

    Returns:
      The ranking, best first.

    Raises:
      UserError: `other` is given, and there is one search alone.
    """
    snapshot, options = self._parts.live.snapshot, self._parts.search_options
    if other is None:
      return snapshot.index.search(query, top_k=top_k, name=name, **options)
    return self._fused.rank(snapshot, query, other, options, top_k=top_k, name=name)

  def results(self, ranking: Ranking) -> tuple[SearchResult, ...]:
    """Returns a ranking with the names and boxes of its images."""
    return _results(self._parts.live.snapshot, ranking)

  def word_scores(
    self, query: AggregatedDescriptor, image_id: int, *, region: int = -1
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the contribution of each visual word to a score; see `InvertedIndex.word_scores`.

    In a run with fusion it is the score of the first search alone.

    Args:
      query: from `describe`.
      image_id: an index image.
      region: with regional search the region whose score it is.

    Returns:
      uint32 [W], the visual words that the query shares with the image, and float64 [W], the term of each.
    """
    return self.index.word_scores(query, image_id, region=region, **self._parts.search_options)

  def words(self, features: LocalFeatures, *, of_query: bool) -> np.ndarray:
    """Returns int32 [N, m], the m visual words of each local feature of a query or of an index image."""
    return self._parts.aggregator.words(features.descriptors, of_query=of_query)

  def match(self, query: LocalFeatures, image_id: int) -> Match:
    """Matches the features of a query with those of an index image; see `SpatialVerification.match`."""
    return self._parts.verification.match(self._parts.live.snapshot, query, image_id)

  def boxes(self, image_id: int) -> np.ndarray:
    """Returns float32 [R - 1, 4], the boxes of an index image without the whole image."""
    return self._parts.live.snapshot.boxes(image_id)

  def features(self, image_id: int) -> ImageFeatures:
    """Returns the local features of an index image.

    They are read from the artefact that the index was made from. If that is gone, they are extracted from the
    photo again.

    Raises:
      ImageError: neither the features nor the photo can be found.
      ArtefactError: the record of the features is damaged.
    """
    return self._parts.features.read(self._parts.live.snapshot, image_id, photos=self.photos)

  # Changing the index --------------------------------------------------------------------------------

  def add(
    self,
    photos: Mapping[str, Photo] | Iterable[str | pathlib.Path],
    *,
    boxes: Mapping[str, Sequence[Sequence[float]]] | None = None,
  ) -> None:
    """Adds photos to the index: all of them or, if one fails, none. Other threads may search meanwhile.

    Args:
      photos: photos by name; or paths. The name of a path is relative to the folder of `SearchEngine.photos`
        that contains it, or else its last component.
      boxes: by name, float [R - 1, 4] normalised, for photos whose boxes are known. Other photos get the
        boxes of the run's grid or detector, or none if the run has no boxes.

    Raises:
      ImageError: a photo cannot be decoded.
      UserError: a name is in the index already, a box is not within its photo, or the boxes of the run came
        from a file and a photo has none.
    """
    named = photos if isinstance(photos, Mapping) else named_photos(photos, self.photos)
    given = dict(boxes or {})
    for name, own in given.items():
      if name not in named:
        raise UserError(f'boxes of {name}, which is not among the {len(named)} photos')
      for box in own:
        check_box(box, f'boxes of {name}')
    parts = self._parts
    if named.keys() - given.keys():
      parts.reader.prepare_boxes()

    def describe(reader: PhotoReader | FusedSearch, name: str) -> tuple[ImageFeatures, ImageDescriptors]:
      own = Boxes.from_coordinates(given[name]) if name in given else None
      return reader.index_image(name, self._pixels(named[name], name=name), own)

    by_first = functools.partial(describe, parts.reader)
    if isinstance(parts.live, PairedIndex):
      parts.live.add(list(named), by_first, functools.partial(describe, self._fused))
    else:
      parts.live.add(list(named), by_first)
    parts.verification.clear_cache()

  def remove(self, names: Iterable[str]) -> None:
    """Removes images from the index.

    Raises:
      UserError: a name is not in the index; nothing is removed.
    """
    require_several(names)
    self._parts.live.remove(list(names))
    self._parts.verification.clear_cache()

  def save(self) -> None:
    """Writes the changes since the last save to the directory that the engine was loaded from.

    Without any change, nothing is written. If the process is killed meanwhile, the directory holds either the
    old index or the new one. An error that comes after the new index is in place is logged as a warning.

    Raises:
      UserError: it cannot be written, or another process has changed it. The directory holds the old index,
        and the changes may be saved again.
    """
    self._parts.live.save()

  def reload(self) -> None:
    """Abandons the changes since the last save, and loads the index from its directory.

    Raises:
      ArtefactError: the index cannot be opened.
    """
    parts = self._parts
    try:
      parts.live.reload()
      parts.verification.clear_cache()
    except RebuiltIndexError:
      self._load_rebuilt(parts)
    except (IndexFormatError, OSError, ValueError) as error:
      raise ArtefactError(f'{self.artefact.path}: the index cannot be opened: {error}') from None

  def _load_rebuilt(self, parts: _Parts) -> None:
    """Replaces the parts by those of the index that was built in the place of theirs."""
    with self._loading:
      if self._parts is parts and self._open_again is not None:
        opened = self._open_again()
        if self.photos == PhotoFolders.of_index(parts.live.artefact):
          self.photos = PhotoFolders.of_index(opened.live.artefact)
        self._parts = self._make_parts(opened)
        self.verifies = opened.verifies and not self.why_unverifiable
        logging.info('%s: an index of another config or other inputs is searched now', self.artefact.path)

  @property
  def _verification(self) -> SpatialVerification:
    return self._parts.verification

  @property
  def _fused(self) -> FusedSearch:
    if self._parts.fused is None:
      raise UserError(f'{self.artefact.path}: one index alone. Load the folder of a run with fusion')
    return self._parts.fused

  def _pixels(self, photo: Photo, *, name: str = '') -> np.ndarray:
    """Returns a photo as uint8 [H, W, 3]."""
    if not isinstance(photo, np.ndarray):
      return self.load_photo(photo, name=name)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
      raise UserError(f'photo: expected uint8 [H, W, 3] RGB, found {photo.dtype} {list(photo.shape)}')
    return photo


def _open(
  place: pathlib.Path,
  aggregation: AggregationConfig | None,
  verification: VerificationConfig | None,
  fusion: FusionConfig | None,
  *,
  one_photo: bool,
  index: 'InvertedIndex | ShardedIndex | None' = None,
) -> _Opened:
  """Opens the index of `SearchEngine.load` at an absolute path."""
  run = place / artefacts.RUN_CONFIG
  config = configs.load(run) if run.is_file() else configs.default()
  verifies = verification is None and config.HasField('verification')
  if verification is None:
    verification = (config if verifies else configs.default('verification')).verification
  other = None
  if not (place / artefacts.MANIFEST).is_file() and (place / 'index').is_dir():
    if fused_search.is_fused(config):
      if index is not None:
        raise ArtefactError(f'{place}: a run with fusion, whose two indexes cannot be replaced by another')
      other = fused_search.open_other(place)
    place = place / 'index'
  artefact = Artefact.open(place, 'index').resolved()
  if index is None and (artefact.path / layout.SPLIT).is_file():
    raise ArtefactError(f'{place}: the front of a split index; `d2r serve` searches it with --shards')
  merged = artefacts.with_comparison(artefact.config, aggregation)
  if one_photo:
    merged.aggregation.query_assignment = AggregationConfig.EXACT
  live = LiveIndex(artefact, index)
  if index is None:
    _require_codebook(live)
  if other is None:
    if fusion is not None:
      raise UserError(f'{place}: one index alone, so there are no scores to add. Load it without fusion')
    return _Opened(live, merged.aggregation, verification, verifies)
  other_live = LiveIndex(other)
  _require_codebook(other_live)
  fused = FusedSearch.of(
    artefact,
    other,
    fusion or config.fusion,
    first_aggregation=merged.aggregation,
    one_photo=one_photo,
  )
  return _Opened(fused.paired(live, other_live), merged.aggregation, verification, verifies, fused)


def _require_codebook(live: LiveIndex) -> None:
  """Raises ArtefactError unless the codebook is the one of the postings, as far as they name it."""
  index = live.snapshot.index
  if not isinstance(index, InvertedIndex):
    return
  ours = codebook_files.load_bits(live.artefact.path)
  if index.dimensions != ours:
    raise ArtefactError(
      f'{live.artefact.path}: the codebook makes descriptors of {ours} dimensions (bits), those of the'
      f' postings have {index.dimensions}. Build the index again with the codebook of its descriptors'
    )
  if index.codebook and index.codebook != (found := codebook_files.digest(live.artefact.path)):
    raise ArtefactError(
      f'{live.artefact.path}: its codebook is {found}, but its postings are of the codebook {index.codebook}.'
      ' Build the index again with the codebook of its descriptors'
    )


def _search(
  parts: _Parts,
  snapshot: Snapshot,
  pixels: np.ndarray,
  box: Sequence[float] | None,
  top_k: int,
  *,
  verify: bool,
) -> Answer:
  """Returns the images of a snapshot that are most similar to a photo; see `SearchEngine.search`."""
  fused = parts.fused
  marks = [('', time.perf_counter())]
  features = parts.reader.query_features(pixels, box)
  other_features = None if fused is None else fused.reader.query_features(pixels, box)
  marks.append(('extract', time.perf_counter()))
  descriptor = parts.aggregator.query(features)
  other = None if fused is None or other_features is None else fused.aggregator.query(other_features)
  marks.append(('describe', time.perf_counter()))
  wanted = max(top_k, parts.verification.num_images) if verify and top_k else top_k
  if fused is None or other is None:
    ranking = snapshot.index.search(descriptor, top_k=wanted, **parts.search_options)
  else:
    ranking = fused.rank(snapshot, descriptor, other, parts.search_options, top_k=wanted)
  marks.append(('search', time.perf_counter()))
  matches: list[Match] = []
  if verify:
    matches = parts.verification.verify(snapshot, features.features, ranking)
    ranking = reordered(ranking, matches, length=top_k or None)
    marks.append(('verify', time.perf_counter()))
  seconds = {step: end - start for (_, start), (step, end) in itertools.pairwise(marks)}
  return Answer(
    _results(snapshot, ranking, matches), features, seconds, ranking.missing_shards, other_features
  )


def _results(snapshot: Snapshot, ranking: Ranking, matches: Sequence[Match] = ()) -> tuple[SearchResult, ...]:
  """Returns a ranking with names, boxes and, of verified images, matches."""
  match_of = {match.image_id: match for match in matches}
  nothing = itertools.repeat(None)
  parts = (
    nothing if part is None else part.tolist() for part in (ranking.local_scores, ranking.global_scores)
  )
  ranked = zip(ranking.image_ids.tolist(), ranking.scores, ranking.best_regions, *parts, strict=False)
  return tuple(
    SearchResult(
      rank,
      snapshot.index.image_names[image],
      float(score),
      snapshot.boxes(image),
      int(region),
      match_of.get(image),
      local_score,
      global_score,
    )
    for rank, (image, score, region, local_score, global_score) in enumerate(ranked, start=1)
  )
