"""export_codebook: a trained codebook to the small files of the codebook that comes with the package."""

import dataclasses
import datetime
import pathlib

import numpy as np
from absl import logging

from delf_d2r import aggregator
from delf_d2r import codebook as codebooks
from delf_d2r.data import files
from delf_d2r.data.artefacts import codebook_files, packaged_codebook
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.packaged_codebook import PackagedCodebook, QuantisedWords
from delf_d2r.errors import UserError
from delf_d2r.extractors import registry
from delf_d2r.kernels.assignment import ExactAssigner
from delf_d2r.kernels.kmeans import mean_squared_error
from delf_d2r.kernels.projection import Projection, kinds_of_words
from delf_d2r.protos import codebook_pb2, experiment_pb2
from delf_d2r.stages import train_codebook
from delf_d2r.version import VERSION

Config = codebook_pb2.CodebookConfig

# Training descriptors that the loss is measured on.
_MEASURED = 200_000
_RECALL_MEASURED = 2000


@dataclasses.dataclass(frozen=True)
class QuantisationLoss:
  """What one byte a dimension loses, measured on training descriptors.

  Attributes:
    num_descriptors: N.
    same_word: share of the descriptors whose nearest word is the same as before.
    error_before, error_after: mean squared distance of a descriptor to its word.
    changed_bits: share of the signs of single residuals, projected if the codebook has a projection, that
      change where the word is the same.
  """

  num_descriptors: int
  same_word: float
  error_before: float
  error_after: float
  changed_bits: float


def run(
  codebook: Artefact,
  output: pathlib.Path,
  *,
  features: Artefact | None = None,
  name: str = 'Codebook',
  notes: str = '',
) -> QuantisationLoss:
  """Writes a codebook in the form that comes with the package (data/artefacts/packaged_codebook.py).

  Args:
    codebook: the artefact of train_codebook.
    output: must not exist, or be empty.
    features: what it was trained on, to measure the loss; None: where its manifest says.
    name: of the codebook, for its card.
    notes: training data, their licence and whatever else a user should know, for the card.

  Returns:
    What the quantisation loses, which is on the card, too.

  Raises:
    UserError: the codebook was not trained here, its features are missing or others, or the output exists or
      cannot be written.
  """
  trained_on = codebook.input('features')
  options = codebook.config.codebook
  if options.source != Config.K_MEANS or trained_on is None:
    raise UserError(
      f'{codebook.path}: its words were not trained here (codebook.source:'
      f' {Config.Source.Name(options.source)}). Give a codebook that train_codebook trained'
    )
  features = features or Artefact.open(trained_on.path, 'features')
  if features.manifest.fingerprint != trained_on.fingerprint:
    raise UserError(
      f'{codebook.path} was trained on the features {trained_on.fingerprint}, {features.path} holds'
      f' {features.manifest.fingerprint}. Give the features that it was trained on'
    )
  with files.user_errors('cannot write', output):
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
      raise UserError(f'{output}: is not empty. Choose another --output, or delete it')
  before = np.array(codebook_files.load_centroids(codebook.path))
  projection = codebook_files.load_projection(codebook.path)
  words = _quantised(before, codebook.config, projection)
  sample = _sample(features, options)
  loss = quantisation_loss(before, words.centroids, projection, sample)
  report = codebooks.quality_report(codebooks.Codebook(words.centroids), sample)
  assigner = aggregator.approximate_assigner(words.centroids)
  packaged = PackagedCodebook(
    experiment_pb2.ExperimentConfig(extraction=codebook.config.extraction, codebook=options),
    words,
    projection,
    {
      'approximate_recall': assigner.measure_recall(sample[:_RECALL_MEASURED]),
      **dataclasses.asdict(report),
    },
    _card(codebook, features, loss, name, notes),
  )
  with files.user_errors('cannot write', output):
    packaged_codebook.save(packaged, output)
  size = sum(file.stat().st_size for file in output.iterdir())
  logging.info(
    'export: %s, %.2f MiB; %.2f %% of %d training descriptors keep their word, mean squared error %.5g before'
    ' and %.5g after, %.2f %% of the signs of their residuals change',
    output,
    size / 2**20,
    100 * loss.same_word,
    loss.num_descriptors,
    loss.error_before,
    loss.error_after,
    100 * loss.changed_bits,
  )
  return loss


def _card(
  codebook: Artefact, features: Artefact, loss: QuantisationLoss, name: str, notes: str
) -> dict[str, object]:
  roles = registry.model_files(codebook.config.extraction)
  return {
    'name': name,
    'notes': notes,
    'models': {item.role: item.fingerprint for item in features.inputs if item.role in roles},
    'training': {
      'photos': features.counts['images'],
      'descriptors': codebook.counts['descriptors'],
      'fingerprint': codebook.manifest.fingerprint,
    },
    'loss of one byte a dimension': dataclasses.asdict(loss),
    'made': {'library': f'delf_d2r {VERSION}', 'date': datetime.date.today().isoformat()},
  }


def _quantised(
  centroids: np.ndarray, config: experiment_pb2.ExperimentConfig, projection: Projection | None
) -> QuantisedWords:
  origins = train_codebook.unit_origins(config.extraction, centroids.shape[1])
  kinds = kinds_of_words(centroids, origins) if projection is None else projection.kinds
  return QuantisedWords.of(centroids, kinds, max(len(origins), 1))


def _sample(features: Artefact, options: Config) -> np.ndarray:
  """Returns some of the descriptors that a codebook was trained on, float32 [N, D], in random order."""
  descriptors = train_codebook.sample_descriptors(features, options)
  return descriptors[np.random.default_rng(options.seed).permutation(len(descriptors))[:_MEASURED]]


def quantisation_loss(
  before: np.ndarray, after: np.ndarray, projection: Projection | None, descriptors: np.ndarray
) -> QuantisationLoss:
  """Compares visual words float32 [K, D] before and after quantisation.

  Args:
    before, after: float32 [K, D].
    projection: of residuals before their signs are taken, or None.
    descriptors: float32 [N, D], N >= 1, to measure with.
  """
  pairs = [(words, ExactAssigner(words)(descriptors, 1)[:, 0]) for words in (before, after)]
  same = np.flatnonzero(pairs[0][1] == pairs[1][1])
  signs = []
  for centroids, words in pairs:
    residuals = descriptors[same] - centroids[words[same]]
    signs.append((residuals if projection is None else projection(words[same], residuals)) > 0)
  return QuantisationLoss(
    num_descriptors=len(descriptors),
    same_word=len(same) / len(descriptors),
    error_before=mean_squared_error(descriptors, *pairs[0]),
    error_after=mean_squared_error(descriptors, *pairs[1]),
    changed_bits=float(np.mean(signs[0] != signs[1])) if len(same) else 0.0,
  )
