"""The search engine: an index directory that answers photos.

engine = SearchEngine.load('output')
for result in engine.search('photo.jpg', top_k=10, verify=True).results:
  print(result.name, result.score, result.inliers)
"""

import itertools
import pathlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from delf_d2r import aggregator
from delf_d2r import config as configs
from delf_d2r.answer import Answer, SearchResult, results_of
from delf_d2r.candidates import Candidates
from delf_d2r.data import artefacts, codebook_files, images
from delf_d2r.data.artefacts import Artefact
from delf_d2r.data.boxes_file import check_box
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.extractors import factory, region_source
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.index.storage import IndexFormatError
from delf_d2r.indexed_features import IndexedFeatures
from delf_d2r.live_index import LiveIndex
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.structures import AggregatedDescriptor, Boxes, ImageFeatures, LocalFeatures, Match, Ranking
from delf_d2r.verifier import reordered

# The config of a run, beside its index.
_RUN_CONFIG = 'config.pbtxt'

Photo = str | pathlib.Path | bytes | np.ndarray


class SearchEngine:
  """Photos in, ranked index images out. Loading imports neither TensorFlow nor any photo.

  Threads may search at once, also while another one adds and removes images: a search answers from the images
  that there were when it began.

  Attributes:
    images_path: the folder of the indexed photos, as it was when they were indexed; None where that is not
      known. To be set if it has moved.
  """

  def __init__(self, live: LiveIndex, aggregation: AggregationConfig, verification: VerificationConfig):
    """For `load`."""
    self._live = live
    photos = live.artefact.input('images')
    self.images_path = photos.path if photos else None
    centroids = np.ascontiguousarray(codebook_files.load_centroids(self.artefact.path))
    recall = codebook_files.load_recall(self.artefact.path)
    assign = aggregator.assigner(aggregation.query_assignment, centroids, recall=recall)
    self._aggregator = aggregator.Aggregator(aggregation, centroids, assign)
    self._search_options = aggregator.search_options(aggregation)
    self._features = IndexedFeatures(self.artefact, self._extract)
    self._candidates = Candidates(
      verification,
      lambda snapshot, image_id: self._features.read(snapshot, image_id, photos=self.images_path),
    )
    self._extractor = None
    self._find_boxes = None
    self._index_aggregator = None
    self._making = threading.Lock()

  @classmethod
  def load(
    cls,
    directory: str | pathlib.Path,
    *,
    aggregation: AggregationConfig | None = None,
    verification: VerificationConfig | None = None,
    one_photo: bool = False,
  ) -> 'SearchEngine':
    """Opens an index.

    Args:
      directory: that of build_index or of run_experiment.
      aggregation: its alpha, tau, normalize, use_idf, compat, query_num_assignments and query_assignment
        take the place of those that the index was built with.
      verification: how to verify; None: as the run's config says, else by default. Its junk has no effect.
      one_photo: the engine will answer one photo at most: assign exactly, without preparing anything.

    Raises:
      ArtefactError: there is no finished index, or a file of it is damaged.
    """
    directory = pathlib.Path(directory)
    if verification is None:
      run = directory / _RUN_CONFIG
      config = configs.load(run, ['verification']) if run.is_file() else configs.default('verification')
      verification = config.verification
    if not (directory / artefacts.MANIFEST).is_file() and (directory / 'index').is_dir():
      directory = directory / 'index'
    artefact = Artefact.open(directory, 'index')
    merged = artefacts.with_comparison(artefact.config, aggregation)
    if one_photo:
      merged.aggregation.query_assignment = AggregationConfig.EXACT
    try:
      return cls(LiveIndex(artefact), merged.aggregation, verification)
    except (IndexFormatError, OSError, ValueError) as error:
      raise ArtefactError(f'{directory}: the index cannot be opened: {error}') from None

  def __len__(self) -> int:
    return len(self.index)

  def __repr__(self) -> str:
    return f'SearchEngine({self.artefact.path}, {self.index!r})'

  @property
  def artefact(self) -> Artefact:
    """The index artefact, as it was loaded or last saved."""
    return self._live.artefact

  @property
  def index(self) -> InvertedIndex:
    """The index with all changes so far; for reading only. A change puts another one in its place."""
    return self._live.snapshot.index

  def describe(self, query: ImageFeatures) -> AggregatedDescriptor:
    """The aggregated descriptor of a query's features."""
    return self._aggregator.query(query)

  def describe_expanded(
    self,
    query: ImageFeatures,
    others: Sequence[LocalFeatures],
    weights: Sequence[float],
    *,
    min_images_per_word: int = 1,
  ) -> AggregatedDescriptor:
    """The same with what other images show of the query's object; see Aggregator.expanded_query."""
    return self._aggregator.expanded_query(query, others, weights, min_images_per_word=min_images_per_word)

  def rank(self, query: AggregatedDescriptor, *, top_k: int, name: str = '') -> Ranking:
    """The ranking for an aggregated descriptor.

    Args:
      query: from `describe`.
      top_k: its length; 0 ranks all index images.
      name: the query's name.
    """
    return self.index.search(query, top_k=top_k, name=name, **self._search_options)

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
      UserError: the box is not within the photo.
    """
    if box is not None:
      check_box(box, '--box')
    if top_k < 0:
      raise UserError(f'top_k is {top_k}; it must be at least 0')
    marks = [('', time.perf_counter())]
    snapshot = self._live.snapshot
    pixels = photo if isinstance(photo, np.ndarray) else self.load_photo(photo)
    marks.append(('decode', time.perf_counter()))
    features = self._get_extractor().extract_query('', pixels, box)
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
    return Answer(results_of(snapshot, ranking, matches), features, seconds)

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
      photos: by name; or files, whose names then are relative to `images_path`, or the last part of their
        paths where they lie elsewhere.
      boxes: by name, [R - 1, 4] of those photos that have boxes of their own. Others have what the run's
        grid or detector gives them, or none if the run has no boxes.

    Raises:
      ImageError: a photo cannot be decoded.
      UserError: a name is in the index already, a box is not within its photo, or the run's boxes came from
        a file and a photo has none of its own.
    """
    photos = photos if isinstance(photos, Mapping) else self._named(photos)
    boxes = dict(boxes or {})
    for name, own in boxes.items():
      if name not in photos:
        raise UserError(f'boxes of {name}, which is not among the {len(photos)} photos')
      for box in own:
        check_box(box, f'boxes of {name}')
    find_boxes = self._get_find_boxes() if photos.keys() - boxes.keys() else None
    index_aggregator = self._get_index_aggregator()

    def describe(name: str):
      photo = photos[name]
      pixels = photo if isinstance(photo, np.ndarray) else self.load_photo(photo, name=name)
      found = Boxes.from_coordinates(boxes[name]) if name in boxes else find_boxes(pixels)
      features = self._get_extractor().extract(name, pixels, found)
      return features, index_aggregator.index_image(features)

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

  def word_scores(
    self, query: AggregatedDescriptor, image_id: int, *, region: int = -1
  ) -> tuple[np.ndarray, np.ndarray]:
    """The visual words that a query shares with an index image and what each adds to the score.

    See `InvertedIndex.word_scores`.
    """
    return self.index.word_scores(query, image_id, region=region, **self._search_options)

  def words(self, features: LocalFeatures, *, of_query: bool) -> np.ndarray:
    """The visual words int32 [N, m] of local features, of a query or of an index image."""
    return self._aggregator.words(features.descriptors, of_query=of_query)

  def prepare(self) -> None:
    """Makes the extractor now instead of at the first photo: a network takes seconds to load."""
    self._get_extractor()

  def features(self, image_id: int) -> ImageFeatures:
    """The features of an index image: as they were stored or, where they are gone, anew from its photo.

    Raises:
      ImageError: neither they nor the photo are at hand.
      ArtefactError: their record is damaged.
    """
    return self._features.read(self._live.snapshot, image_id, photos=self.images_path)

  def load_photo(self, photo: str | pathlib.Path | bytes, *, name: str = '') -> np.ndarray:
    """uint8 [H, W, 3]: a photo decoded as the index's own were; see `data.images.load_image`."""
    config = self.artefact.config.extraction
    return images.load_image(
      photo,
      name=name,
      apply_exif_orientation=config.apply_exif_orientation,
      max_megapixels=config.max_megapixels,
    )

  def results(self, ranking: Ranking) -> tuple[SearchResult, ...]:
    """A ranking with names and boxes."""
    return results_of(self._live.snapshot, ranking)

  def boxes(self, image_id: int) -> np.ndarray:
    """float32 [R - 1, 4]: the boxes of an index image, the whole image left out."""
    return self._live.snapshot.boxes(image_id)

  # Inside --------------------------------------------------------------------------------------------

  def _extract(self, name: str, photo: pathlib.Path, boxes: Boxes) -> ImageFeatures:
    return self._get_extractor().extract(name, self.load_photo(photo), boxes)

  def _named(self, paths: Iterable[str | pathlib.Path]) -> dict[str, pathlib.Path]:
    """Photos by their names."""
    if isinstance(paths, str):
      raise TypeError(f'expected paths, found the string {paths!r}; give [{paths!r}]')
    named: dict[str, pathlib.Path] = {}
    for path in map(pathlib.Path, paths):
      inside = self.images_path is not None and path.resolve().is_relative_to(self.images_path.resolve())
      name = path.resolve().relative_to(self.images_path.resolve()).as_posix() if inside else path.name
      if name in named:
        raise UserError(f'{named[name]} and {path} would both be called {name}. Give photos by name')
      named[name] = path
    return named

  def _get_extractor(self):
    # Made at the first photo: ranking features that are there already needs none.
    with self._making:
      if self._extractor is None:
        self._extractor = factory.build(self.artefact.config.extraction)
    return self._extractor

  def _get_index_aggregator(self) -> aggregator.Aggregator:
    # As the index was built, whatever queries are assigned and compared by.
    with self._making:
      if self._index_aggregator is None:
        config = self.artefact.config.aggregation
        centroids = np.ascontiguousarray(codebook_files.load_centroids(self.artefact.path))
        recall = codebook_files.load_recall(self.artefact.path)
        assign = aggregator.assigner(config.assignment, centroids, recall=recall)
        self._index_aggregator = aggregator.Aggregator(config, centroids, assign)
      return self._index_aggregator

  def _get_find_boxes(self):
    with self._making:
      if self._find_boxes is None:
        self._find_boxes = region_source.build(self.artefact.config.regions)
    return self._find_boxes
