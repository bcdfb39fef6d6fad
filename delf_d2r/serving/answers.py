"""The engine's answers as bodies of the API's."""

from collections.abc import Sequence

from delf_d2r.engine import Answer, SearchResult
from delf_d2r.serving import schemas

_NO_FEATURES = (
  'No local features were found in the query: the photo or its box is too small or too smooth. Choose a'
  ' larger box, or another photo.'
)


def search_answer(
  key: str,
  name: str,
  box: Sequence[float] | None,
  answer: Answer,
  image_ids: Sequence[int],
) -> schemas.SearchAnswer:
  """The answer of the engine for the web; `image_ids` are those of its results."""
  features = answer.features
  results = zip(answer.results, image_ids, strict=True) if answer.num_features else ()
  return schemas.SearchAnswer(
    query=key,
    name=name,
    height=features.height,
    width=features.width,
    box=list(box) if box else None,
    num_features=answer.num_features,
    note=_note(answer),
    seconds=answer.seconds,
    results=[_result(*result) for result in results],
    missing_shards=list(answer.missing_shards),
  )


def _note(answer: Answer) -> str | None:
  if not answer.num_features:
    return _NO_FEATURES
  if answer.missing_shards:
    numbers = ', '.join(map(str, answer.missing_shards))
    return f'Incomplete: of the parts of the index, {numbers} did not answer; their photos were not searched.'
  return None


def _result(result: SearchResult, image_id: int) -> schemas.Result:
  return schemas.Result(
    rank=result.rank,
    id=image_id,
    name=result.name,
    score=result.score,
    boxes=result.boxes.tolist(),
    best_region=None if result.best_region < 0 else result.best_region,
    inliers=result.inliers,
  )
