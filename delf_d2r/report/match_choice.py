"""Which pairs of query and result are worth a look: what was found first, and what went wrong."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pair:
  """A query, by its position, and the place of a result in its ranking, from 0."""

  query: int
  place: int


@dataclasses.dataclass(frozen=True)
class Choice:
  """Pairs for each of three reasons, one for each query at most, most telling first.

  Attributes:
    first_right: the first right result of a query.
    first_wrong: the first wrong result that stands above a right one.
    last_right: the last right result, below a wrong one.
  """

  first_right: tuple[Pair, ...]
  first_wrong: tuple[Pair, ...]
  last_right: tuple[Pair, ...]


def choose(labels: Sequence[np.ndarray], scores: Sequence[np.ndarray], *, count: int) -> Choice:
  """At most `count` pairs, evenly of each reason as far as there are some.

  Best first results are those of highest rank, worst last results those of lowest; equal ranks stand by
  descending score, then in the order of the queries. No pair is chosen twice.

  Args:
    labels: for each query str [k], of its ranking ('right', 'wrong'; others do not count).
    scores: for each query float32 [k].
    count: pairs in all.
  """
  first_right, first_wrong, last_right = [], [], []
  for query, ranked in enumerate(labels):
    right, wrong = (np.flatnonzero(ranked == label).tolist() for label in ('right', 'wrong'))
    has_failed = bool(wrong) and (not right or wrong[0] < right[-1])
    if has_failed:
      first_wrong.append(Pair(query, wrong[0]))
    if has_failed and right:
      last_right.append(Pair(query, right[-1]))
    if right and not (has_failed and len(right) == 1):
      first_right.append(Pair(query, right[0]))

  def by_rank(pair: Pair) -> tuple:
    return pair.place, -scores[pair.query][pair.place], pair.query

  reasons = [
    sorted(first_right, key=by_rank),
    sorted(first_wrong, key=by_rank),
    sorted(last_right, key=lambda pair: (-pair.place, -scores[pair.query][pair.place], pair.query)),
  ]
  # In turns, so that what one reason lacks is left to the others.
  turns = [
    reason
    for pairs in itertools.zip_longest(*reasons)
    for reason, pair in enumerate(pairs)
    if pair is not None
  ][:count]
  return Choice(*(tuple(reasons[reason][: turns.count(reason)]) for reason in range(3)))
