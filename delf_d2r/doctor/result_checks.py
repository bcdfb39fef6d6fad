"""Checks of codebooks, rankings and metrics that are not damaged but have wrong contents."""

from collections.abc import Iterator

import numpy as np

from delf_d2r.data import files
from delf_d2r.data.artefacts import background_files, codebook_files, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.doctor.findings import Finding, FindingCounter, error, note, warning
from delf_d2r.evaluation import metrics_files
from delf_d2r.extractors import registry
from delf_d2r.kernels.projection import kinds_of_words

# If more than this share of the words has no descriptor after training, K was too large.
DEAD_WORDS = 0.05
# A background model of fewer photos has shares of images that are mostly noise.
LEAST_BACKGROUND = 100
_ORTHONORMAL = 1e-3


def codebook(artefact: Artefact) -> Iterator[Finding]:
  """Yields findings on `codebook.npy` and its report."""
  centroids = codebook_files.load_centroids(artefact.path)
  again = f'Delete {artefact.path} and run train_codebook again'
  same = len(centroids) - len(np.unique(np.asarray(centroids), axis=0))
  if same:
    yield error(artefact.path, f'{same} of {len(centroids)} visual words are copies of others', again)
  yield from _projection(artefact, centroids, again)
  report = artefact.path / codebook_files.REPORT
  if not report.is_file():
    return
  codebook_files.load_recall(artefact.path)
  empty = files.parse_json(report.read_text(encoding='utf-8')).get('empty_words', 0)
  if empty > DEAD_WORDS * len(centroids):
    yield warning(
      artefact.path,
      f'{empty} of {len(centroids)} visual words have no descriptor of those that it was trained on',
      'Reduce codebook.num_words, or train on more photos',
    )


def _projection(artefact: Artefact, centroids: np.ndarray, again: str) -> Iterator[Finding]:
  """Yields findings on the projection of residuals, if the codebook has one."""
  found = codebook_files.load_projection(artefact.path)
  wanted = artefact.config.codebook.bits or centroids.shape[1]
  if found is None:
    return
  if found.bits != wanted:
    yield error(
      artefact.path, f'it projects to {found.bits} bits, its config says codebook.bits {wanted}', again
    )
  products = np.einsum('pdb,pdc->pbc', found.matrices, found.matrices)
  if np.abs(products - np.eye(found.bits)).max() > _ORTHONORMAL:
    yield error(artefact.path, 'its projections have columns that are not orthonormal', again)
  extractor = registry.record(artefact.config.extraction.extractor)
  origins = extractor.unit_origins(centroids.shape[1])
  if not np.array_equal(found.kinds, kinds_of_words(centroids, origins)):
    yield error(
      artefact.path, f'the kinds of its words are not those of the features of {extractor.name}', again
    )


def rankings(artefact: Artefact) -> Iterator[Finding]:
  """Yields findings on rankings, also on verified ones."""
  again = f'Delete {artefact.path} and run its stage again'
  stored = ranking_files.load(artefact.path)
  unordered, broken, twice, nothing = (FindingCounter() for _ in range(4))
  for ranking in stored.rankings:
    scores = ranking.scores
    # Verified rankings are ordered by inliers.
    keys = scores if ranking.inliers is None else ranking.inliers
    if not np.isfinite(scores).all():
      broken.add(ranking.query)
    elif np.any(keys[1:] > keys[:-1]):
      unordered.add(ranking.query)
    if len(np.unique(ranking.image_ids)) < len(ranking):
      twice.add(ranking.query)
    if len(ranking) and not np.any(scores):
      nothing.add(ranking.query)
  for counter, problem in (
    (broken, 'queries with scores that are not finite'),
    (unordered, 'queries whose ranking is not in descending order'),
    (twice, 'queries whose ranking has an image twice'),
  ):
    if counter:
      yield error(artefact.path, f'{problem}: {counter}', again)
  if nothing:
    yield warning(
      artefact.path,
      f'queries without results, all scores are 0: {nothing}',
      'They have no features, or share no visual word with the index: check their photos and boxes',
    )


def background(artefact: Artefact) -> Iterator[Finding]:
  """Yields findings on a background model."""
  found = background_files.load(artefact.path)
  if found.num_images < LEAST_BACKGROUND:
    yield warning(
      artefact.path,
      f'it is of {found.num_images} photos, which say little of rare visual words',
      f'Give at least {LEAST_BACKGROUND} background photos',
    )


def metrics(artefact: Artefact) -> Iterator[Finding]:
  """Yields findings on `metrics.json`."""
  for name, values in metrics_files.read_metrics_json(artefact.path / 'metrics.json').items():
    if not values.num_queries:
      yield note(
        artefact.path, f'no query has positives under {name}', 'Nothing, if the ground truth is correct'
      )
