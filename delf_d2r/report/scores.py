"""Scores of results as text, and what the two parts of a fused score mean."""

import math
from collections.abc import Sequence

from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.report.views import ResultView

# What the number of inliers of a result is.
INLIERS = (
  'matches of local features that one geometric transform between the photos confirms; photos with more of'
  ' them come first, whatever their score.'
)
_LOCAL = 'how well details of both photos agree (local features)'
_GLOBAL = 'how alike both photos are as a whole (one global descriptor each)'
_UNITS = {
  FusionConfig.BACKGROUND: (
    'Both parts are in standard deviations; 0 is what a photo of something else has on average.'
  ),
  FusionConfig.Z_SCORE: 'Both parts are in standard deviations; 0 is the mean of all photos of the index.',
  FusionConfig.NONE: 'Both parts are similarities without a unit.',
}


def meanings(fusion: FusionConfig | None) -> dict[str, str]:
  """Returns what `local`, `global` and `score` mean on a page, in this order; nothing without fusion.

  Args:
    fusion: how the run joins the scores of its two searches.
  """
  if fusion is None:
    return {}
  found = {'local': _LOCAL, 'global': _GLOBAL + _weighting(fusion), 'score': _joining(fusion)}
  return {term: f'{meaning}.' for term, meaning in found.items()} | {
    'score': f'{found["score"]}. {_UNITS[fusion.normalization]}'
  }


def _weighting(fusion: FusionConfig) -> str:
  powered = f', to the power of {fusion.power:g}' if fusion.HasField('power') and fusion.power != 1 else ''
  return powered + ('' if fusion.weight == 1 else f', times {fusion.weight:g}')


def _joining(fusion: FusionConfig) -> str:
  order = fusion.norm_order if fusion.HasField('norm_order') else 1
  if order == 1:
    return 'the sum of local and global'
  norm = '√(local² + global²)' if order == 2 else f'(local^{order:g} + global^{order:g})^(1/{order:g})'
  return f'{norm}; a part below 0 is added as it is'


def decimals(results: Sequence[ResultView]) -> int:
  """Returns the decimals that give the largest score four significant digits, so that scores align.

  Scores in two parts have one decimal at least: a query that finds itself scores thousands, other photos
  tens.
  """
  largest = max((abs(result.score) for result in results if math.isfinite(result.score)), default=0.0)
  if largest == 0:
    return 4
  least = 1 if any(result.local_score is not None for result in results) else 0
  return min(max(3 - math.floor(math.log10(largest)), least), 9)


def number(score: float, places: int) -> str:
  """Returns a score with `places` decimals; what rounds to zero has no sign."""
  return f'{score:z.{places}f}'


def both_parts(local_score: float | None, global_score: float | None, places: int) -> tuple[str, ...]:
  """Returns the two parts of a fused score as texts; () if there are none."""
  if local_score is None or global_score is None:
    return ()
  return f'local {number(local_score, places)}', f'global {number(global_score, places)}'


def fused(result: ResultView) -> str:
  """Returns the fused score of one result with its parts as text; '' without fusion."""
  places = decimals([result])
  both = both_parts(result.local_score, result.global_score, places)
  return f'score {number(result.score, places)}: {", ".join(both)}' if both else ''
