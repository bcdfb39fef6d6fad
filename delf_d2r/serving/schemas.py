"""The bodies of the API's answers.

Boxes are `[ymin, xmin, ymax, xmax]`, places `[y, x]`, both normalised to [0, 1] in the frame of the photo
as it is shown.
"""

from pydantic import BaseModel, Field

Box = list[float]
Place = list[float]


class Health(BaseModel):
  """That the server is up."""

  status: str = 'ok'
  images: int = Field(description='Photos in the index.')


class Limits(BaseModel):
  """What the server takes."""

  images: int = Field(description='Photos in the index.')
  photos_at_hand: bool = Field(description='Whether the indexed photos can be shown.')
  annotates: bool = Field(description='Whether this server also draws boxes on photos (/annotate).')
  verifies: bool = Field(description='Whether the run that made the index verifies its results.')
  cannot_verify: str = Field(description='Why a search with verify is refused; empty if it is not.')
  max_upload_bytes: int
  max_megapixels: int
  max_results: int


class Image(BaseModel):
  """One indexed photo."""

  id: int
  name: str


class Images(BaseModel):
  """A page of the list of indexed photos."""

  total: int = Field(description='Photos whose name contains the filter.')
  images: list[Image]


class Result(BaseModel):
  """One index image of an answer."""

  rank: int = Field(description='From 1.')
  id: int = Field(description='Of the index image, for /api/photo and /api/match.')
  name: str
  score: float
  boxes: list[Box] = Field(description='Its boxes, the whole photo left out.')
  best_region: int | None = Field(
    description='With regional search the region that scored best: 0 the whole photo, r the box r - 1.'
  )
  inliers: int | None = Field(description='After spatial verification: the matches that agree.')


class SearchAnswer(BaseModel):
  """The index images most similar to a photo, or to what a box of it shows."""

  query: str = Field(description='Id of this search, for /api/query, /api/match and another box.')
  name: str
  height: int
  width: int
  box: Box | None
  num_features: int
  note: str | None = Field(description='What a user should know, for example why there are no results.')
  seconds: dict[str, float] = Field(description='Wall time of each part.')
  results: list[Result] = Field(description='Best first; empty for a query without features.')
  missing_shards: list[int] = Field(
    description='Shards of a split index that did not answer: their images are not among the results.'
  )


class Word(BaseModel):
  """A visual word that both photos have."""

  word: int = Field(description='Its number in the codebook.')
  share: float = Field(description='Of the score; the shares of all words add up to 1.')
  query: list[Place]
  index: list[Place]


class Region(BaseModel):
  """A box of the index image and the share of the words that it shows: an attribution, as boxes overlap."""

  box: Box
  share: float


class Photo(BaseModel):
  """The size of a photo in pixels."""

  height: int
  width: int


class Match(BaseModel):
  """Why an index image matched: the exact share of each visual word in its score."""

  id: int
  name: str
  score: float
  query_photo: Photo
  index_photo: Photo
  query_box: Box
  num_words: int = Field(description='Visual words that both photos have.')
  words: list[Word] = Field(description='Largest share first.')
  regions: list[Region]
  num_inliers: int
  inliers: list[tuple[Place, Place]] = Field(
    description='After spatial verification: the places in query and index image that agree on one transform.'
  )
