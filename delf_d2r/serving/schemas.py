"""The bodies of the responses of the API.

Boxes are `[ymin, xmin, ymax, xmax]` and places `[y, x]`, both normalised to [0, 1] in the frame of the photo
as it is shown.
"""

from pydantic import BaseModel, Field

_VERSION = 'Changes when the file of the photo does; empty if the photo cannot be found.'

Box = list[float]
Place = list[float]


class Health(BaseModel):
  """The server is running."""

  status: str = 'ok'
  images: int = Field(description='Photos in the index.')


class Limits(BaseModel):
  """The limits and abilities of the server."""

  images: int = Field(description='Photos in the index.')
  photos_at_hand: bool = Field(description='Whether the indexed photos can be shown.')
  annotates: bool = Field(description='Whether the server has the page for drawing boxes (/annotate).')
  verifies: bool = Field(description='Whether the run that made the index verifies its results.')
  cannot_verify: str = Field(description='Why a search with verify is refused; empty if it is not.')
  score_meanings: dict[str, str] = Field(
    description='In a run with fusion, what local, global and score mean, for the page; otherwise empty.'
  )
  inliers_meaning: str = Field(description='What the number of inliers means, for the page.')
  max_upload_bytes: int
  max_megapixels: int
  max_results: int


class Image(BaseModel):
  """One indexed photo."""

  id: int
  name: str
  version: str = Field(description=_VERSION)


class Images(BaseModel):
  """A page of the list of indexed photos."""

  total: int = Field(description='Photos whose name contains the filter.')
  images: list[Image]


class Result(BaseModel):
  """One index image of an answer."""

  rank: int = Field(description='From 1.')
  id: int = Field(description='Of the index image, for /api/photo and /api/match.')
  name: str
  version: str = Field(description=_VERSION)
  score: float = Field(
    description='Of a run with fusion, local_score and global_score joined as /api/limits says.'
  )
  local_score: float | None = Field(description='In a run with fusion, the part of local features.')
  global_score: float | None = Field(description='In a run with fusion, the part of the other search.')
  boxes: list[Box] = Field(description='Its boxes, without the whole photo.')
  best_region: int | None = Field(
    description='With regional search or region masks, the best: 0 for the whole photo, r for the box r - 1.'
  )
  inliers: int | None = Field(description='After spatial verification, the number of consistent matches.')


class SearchAnswer(BaseModel):
  """The index images most similar to a photo or to a box of it."""

  query: str = Field(description='Id of this search, for /api/query, /api/match and another box.')
  name: str
  height: int
  width: int
  box: Box | None
  num_features: int
  note: str | None = Field(description='A message for the user, for example why there are no results.')
  seconds: dict[str, float] = Field(description='Wall time of each step.')
  results: list[Result] = Field(description='Best first; empty for a query without any features.')
  missing_shards: list[int] = Field(
    description='Shards of a split index that did not answer: their images are not among the results.'
  )


class Word(BaseModel):
  """A visual word that both photos have."""

  word: int = Field(description='Its number in the codebook.')
  share: float = Field(description='Share of the word in the score; the shares of all words add up to 1.')
  query: list[Place]
  index: list[Place]


class Region(BaseModel):
  """A box of the index image and the share of the words in it; boxes overlap, so shares do not add up."""

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
  version: str = Field(description=_VERSION)
  score: float = Field(description='Of local features, in a run with fusion before it is fused.')
  query_photo: Photo
  index_photo: Photo
  query_box: Box
  num_words: int = Field(description='Visual words that both photos have.')
  words: list[Word] = Field(description='Largest share first.')
  regions: list[Region] = Field(description='Boxes of the part of the index image that was compared.')
  boxes: list[Box] = Field(description='All boxes of the index image, without the whole photo.')
  best_region: int | None = Field(
    description='The part that was compared: 0 for the whole photo, r for the box r - 1; null if all were.'
  )
  num_inliers: int
  inliers: list[tuple[Place, Place]] = Field(
    description='After spatial verification, the places in query and index image that agree on one transform.'
  )
