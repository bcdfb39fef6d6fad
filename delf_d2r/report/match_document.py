"""Why an index image matched, as plain values for the pages' match view (assets/match_view.js).

Boxes are `[ymin, xmin, ymax, xmax]`, places `[y, x]`, both normalised to [0, 1] in the frame of the photo as
it is shown.
"""

from typing import Any

import numpy as np

from delf_d2r.engine.attribution import Explanation
from delf_d2r.structures import ImageFeatures, Match

# A 2,000th of a photo is no pixel of any screen.
_DECIMALS = 4


def match_document(
  query: ImageFeatures,
  image: ImageFeatures,
  why: Explanation,
  found: Match,
  *,
  max_words: int | None = None,
  max_inliers: int | None = None,
) -> dict[str, Any]:
  """What the match view shows of a query and an index image; `json` writes it as it is.

  Args:
    query, image: the features of both.
    why: the score taken apart.
    found: the verified matches.
    max_words: visual words that are kept, those of largest share; None: all.
    max_inliers: verified matches that are kept, evenly chosen; None: all.

  Returns:
    `name` and `score`; `query_photo` and `index_photo`, each `height` and `width` in pixels; `query_box`;
    `num_words` shared words, of which `words` has `word`, `share` of the score and the places in `query` and
    `index`, largest share first; `regions`, `box` and `share` of each; `num_inliers` verified matches, of
    which `inliers` has pairs of places.
  """

  def share(term: float) -> float:
    return term / why.score if why.score else 0.0

  shown = np.arange(len(found))
  if max_inliers is not None and len(found) > max_inliers:
    shown = np.linspace(0, len(found) - 1, max_inliers).astype(np.int64)
  return {
    'name': image.name,
    'score': why.score,
    'query_photo': {'height': query.height, 'width': query.width},
    'index_photo': {'height': image.height, 'width': image.width},
    'query_box': query.boxes[0].tolist(),
    'num_words': len(why.words),
    'words': [
      {
        'word': word.word,
        'share': share(word.term),
        'query': _places(word.query_locations, query),
        'index': _places(word.index_locations, image),
      }
      for word in why.words[:max_words]
    ],
    'regions': [
      {'box': box.tolist(), 'share': share(term)}
      for box, term in zip(why.boxes, why.box_terms.tolist(), strict=True)
    ],
    'num_inliers': len(found),
    'inliers': list(
      zip(
        _places(found.query_locations[shown], query),
        _places(found.index_locations[shown], image),
        strict=True,
      )
    ),
  }


def _places(locations: np.ndarray, image: ImageFeatures) -> list[list[float]]:
  size = np.array([image.height, image.width], np.float64)
  return (locations.reshape(-1, 2) / size).round(_DECIMALS).tolist()
