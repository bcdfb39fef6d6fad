"""The search engine: an index directory that answers photos.

engine = SearchEngine.load('output/index')
for result in engine.search('photo.jpg', top_k=10):
  print(result.name, result.score)
"""

import dataclasses
import itertools
import pathlib
import threading
import time
from collections.abc import Sequence

import numpy as np

from delf_d2r import aggregator
from delf_d2r.data import artefacts, codebook_files, images, index_files
from delf_d2r.data.artefacts import Artefact
from delf_d2r.data.boxes_file import check_box
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.extractors import factory
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.index.storage import IndexFormatError
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.structures import AggregatedDescriptor, Boxes, ImageFeatures, LocalFeatures, Ranking


@dataclasses.dataclass(frozen=True)
class SearchResult:
  """One index image of an answer.

  Attributes:
    rank: from 1.
    name: the image's name.
    score: its similarity to the query; 0 where they share no visual word.
    boxes: float32 [R - 1, 4], its boxes, the whole image left out.
    best_region: with regional search the region that scored best (0 the whole image, r the box r - 1),
      else -1.
  """

  rank: int
  name: str
  score: float
  boxes: np.ndarray
  best_region: int


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a search found.

  Attributes:
    results: best first.
    features: of the query; without any, every score is 0.
    seconds: wall time of each part: decode, extract, describe, search.
  """

  results: tuple[SearchResult, ...]
  features: ImageFeatures
  seconds: dict[str, float]

  @property
  def num_features(self) -> int:
    return len(self.features.features)


class SearchEngine:
  """Photos in, ranked index images out. Loading imports neither TensorFlow nor any photo.

  Threads may search at once.
  """

  def __init__(self, artefact: Artefact, index: InvertedIndex, aggregation: AggregationConfig):
    """For `load`."""
    self.artefact = artefact
    self.index = index
    centroids = np.ascontiguousarray(codebook_files.load_centroids(artefact.path))
    recall = codebook_files.load_recall(artefact.path)
    assign = aggregator.assigner(aggregation.query_assignment, centroids, recall=recall)
    self._aggregator = aggregator.Aggregator(aggregation, centroids, assign)
    self._search_options = aggregator.search_options(aggregation)
    self._extractor = None
    self._extractor_lock = threading.Lock()
    self._boxes = index_files.load_boxes(artefact.path)

  @classmethod
  def load(
    cls,
    directory: str | pathlib.Path,
    *,
    aggregation: AggregationConfig | None = None,
    one_photo: bool = False,
  ) -> 'SearchEngine':
    """Opens an index.

    Args:
      directory: that of build_index or of run_experiment.
      aggregation: its alpha, tau, normalize, use_idf, compat, query_num_assignments and query_assignment
        take the place of those that the index was built with.
      one_photo: the engine will answer one photo at most: assign exactly, without preparing anything.

    Raises:
      ArtefactError: there is no finished index, or a file of it is damaged.
    """
    directory = pathlib.Path(directory)
    if not (directory / artefacts.MANIFEST).is_file() and (directory / 'index').is_dir():
      directory = directory / 'index'
    artefact = Artefact.open(directory, 'index')
    merged = artefacts.with_comparison(artefact.config, aggregation)
    if one_photo:
      merged.aggregation.query_assignment = AggregationConfig.EXACT
    try:
      return cls(artefact, InvertedIndex.load(directory / index_files.INVERTED), merged.aggregation)
    except (IndexFormatError, OSError, ValueError) as error:
      raise ArtefactError(f'{directory}: the index cannot be opened: {error}') from None

  def __len__(self) -> int:
    return len(self.index)

  def __repr__(self) -> str:
    return f'SearchEngine({self.artefact.path}, {self.index!r})'

  @property
  def images_path(self) -> pathlib.Path | None:
    """The folder of the indexed photos, as it was when they were indexed."""
    images = self.artefact.input('images')
    return images.path if images else None

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
    self,
    photo: str | pathlib.Path | bytes | np.ndarray,
    *,
    box: Sequence[float] | None = None,
    top_k: int = 10,
  ) -> Answer:
    """The index images most similar to a photo.

    Args:
      photo: a file, its contents, or uint8 [H, W, 3] RGB.
      box: `[ymin, xmin, ymax, xmax]`, normalised: search for what is inside; None: the whole photo.
      top_k: number of results; 0 = all.

    Raises:
      ImageError: the photo cannot be decoded.
      UserError: the box is not within the photo.
    """
    if box is not None:
      check_box(box, '--box')
    if top_k < 0:
      raise UserError(f'top_k is {top_k}; it must be at least 0')
    marks = [('', time.perf_counter())]
    pixels = photo if isinstance(photo, np.ndarray) else self.load_photo(photo)
    marks.append(('decode', time.perf_counter()))
    features = self._get_extractor().extract_query('', pixels, box)
    marks.append(('extract', time.perf_counter()))
    descriptor = self.describe(features)
    marks.append(('describe', time.perf_counter()))
    ranking = self.rank(descriptor, top_k=top_k)
    marks.append(('search', time.perf_counter()))
    seconds = {what: end - start for (_, start), (what, end) in itertools.pairwise(marks)}
    return Answer(self.results(ranking), features, seconds)

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

  def extract(self, image_id: int, pixels: np.ndarray) -> ImageFeatures:
    """The features of an index image anew, from its photo uint8 [H, W, 3] and its boxes."""
    boxes = Boxes.from_coordinates(self.boxes(image_id))
    return self._get_extractor().extract(self.index.image_names[image_id], pixels, boxes)

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
    return tuple(
      SearchResult(position + 1, self.index.image_names[image], float(score), self.boxes(image), int(region))
      for position, (image, score, region) in enumerate(
        zip(ranking.image_ids.tolist(), ranking.scores, ranking.best_regions, strict=True)
      )
    )

  def boxes(self, image_id: int) -> np.ndarray:
    """float32 [R - 1, 4]: the boxes of an index image, the whole image left out."""
    return self._boxes.of(image_id)[1:]

  def _get_extractor(self):
    # Made at the first photo: ranking features that are there already needs none.
    with self._extractor_lock:
      if self._extractor is None:
        self._extractor = factory.build(self.artefact.config.extraction)
    return self._extractor
