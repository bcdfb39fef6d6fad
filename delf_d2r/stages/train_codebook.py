"""train_codebook: local features to visual words."""

import pathlib
import zlib
from collections.abc import Mapping

import numpy as np
from absl import logging

from delf_d2r import aggregator
from delf_d2r import codebook as codebooks
from delf_d2r.config import same_extractor, shipped_codebook
from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, codebook_files, feature_files, packaged_codebook
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.packaged_codebook import PackagedCodebook
from delf_d2r.errors import UserError
from delf_d2r.extractors import registry
from delf_d2r.kernels import projection as projections
from delf_d2r.kernels.assignment import ExactAssigner
from delf_d2r.kernels.projection import Projection
from delf_d2r.protos import codebook_pb2, experiment_pb2, extraction_pb2
from delf_d2r.runtime import progress

Config = codebook_pb2.ProjectionConfig

# Enough to distinguish a recall of 0.995 from one of 0.99.
_HELD_OUT = 2000
# Descriptors whose residuals a projection is learned from.
_PROJECTED = 131_072


def run(
  config: experiment_pb2.ExperimentConfig,
  features: Artefact | None,
  output: pathlib.Path,
  *,
  words: Artefact | None = None,
  redo: bool = False,
) -> Artefact:
  """Trains visual words on the whole-image features of an artefact; its boxes are not used.

  See docs/reference.md 4.5.

  Args:
    config: its part `codebook` says how; with source: ORIGIN nothing is trained, and the only word is zero;
      with source: SHIPPED the words are those of the package.
    features: the artefact of extract_features. With source: SHIPPED it only says of which extractor the
      features are; None: that of `config`, if it has one.
    output: the artefact directory.
    words: a codebook of the same features and config but for `projection` and `bits`. Its words are taken,
      which are those that would be trained, so that only the projection is learned.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

  Raises:
    UserError: `words` are of other features or another config, fewer descriptors than visual words, no
      features, the codebook of the package is of another extractor or network, or the output cannot be
      written.
  """
  options = config.codebook
  if options.source == codebook_pb2.CodebookConfig.SHIPPED:
    return _unpack(config, features, output, redo=redo)
  if features is None:
    raise UserError(
      'training visual words needs features. Give the output of extract_features, or set codebook.source:'
      ' SHIPPED for the codebook of the package'
    )
  merged = experiment_pb2.ExperimentConfig(extraction=features.config.extraction, codebook=options)
  if features.config.HasField('regions'):
    merged.regions.CopyFrom(features.config.regions)
  plan = Plan('codebook', merged, (features.as_input('features'),))
  if words is not None:
    _require_same_words(plan, words)
  available = features.counts['whole_features']
  _require_enough(min(available, most_descriptors(options) or available), options.num_words, features)
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      return writer.reuse('codebook')
    if options.source == codebook_pb2.CodebookConfig.ORIGIN:
      dimensions = next(feature_files.read(features)).features.dimensions
      codebook_files.save_centroids(np.zeros((1, dimensions)), output)
      return writer.finish({'words': 1, 'descriptors': 0})
    descriptors = sample_descriptors(features, options)
    _require_enough(len(descriptors), options.num_words, features)
    logging.info(
      'codebook: %d visual words from %d of %d descriptors', options.num_words, len(descriptors), available
    )
    descriptors, held_out = _hold_out(descriptors, options)
    if words is not None:
      codebook_files.copy_words(words.path, output)
      _save_projection(np.array(codebook_files.load_centroids(output)), descriptors, merged, output)
      return writer.finish({'words': options.num_words, 'descriptors': len(descriptors)})
    codebook = codebooks.Codebook.train(
      descriptors,
      num_words=options.num_words,
      iterations=options.iterations,
      seed=options.seed,
      # The sample above has that size already, and does not depend on the order of the images.
      max_descriptors_per_word=max(-(-len(descriptors) // options.num_words), 1),
      assignment='exact' if options.assignment == codebook_pb2.CodebookConfig.EXACT else 'approximate',
    )
    report = codebooks.quality_report(codebook, descriptors)
    logging.info(
      'codebook: loss %.5g at first, %.5g at last; %s', codebook.loss[0], codebook.loss[-1], report
    )
    recall = aggregator.approximate_assigner(codebook.centroids).measure_recall(held_out)
    logging.info('codebook: recall@1 of approximate assignment %.4f', recall)
    codebook_files.save(codebook, report, output, approximate_recall=recall)
    _save_projection(codebook.centroids, descriptors, merged, output)
    return writer.finish({'words': options.num_words, 'descriptors': len(descriptors)})


def _save_projection(
  centroids: np.ndarray,
  descriptors: np.ndarray,
  config: experiment_pb2.ExperimentConfig,
  output: pathlib.Path,
) -> None:
  origins = unit_origins(config.extraction, centroids.shape[1])
  projection = learn_projection(centroids, descriptors, origins, config.codebook)
  if projection is not None:
    codebook_files.save_projection(projection, output)
    logging.info('codebook: residuals are projected to %d bits', projection.bits)


def _require_same_words(plan: Plan, words: Artefact) -> None:
  """Raises UserError unless training by a plan would give the words of another codebook."""
  plans = []
  for config, inputs in ((plan.config, plan.inputs), (words.config, words.inputs)):
    own = experiment_pb2.ExperimentConfig()
    own.CopyFrom(config)
    own.codebook.ClearField('projection')
    own.codebook.ClearField('bits')
    plans.append(Plan('codebook', own, inputs))
  differences = plans[0].differences(plans[1].to_manifest())
  if differences:
    raise UserError(
      f'{words.path}: its visual words are not those that would be trained: {"; ".join(differences)}. Give a'
      ' codebook of these features that differs in codebook.projection and codebook.bits only'
    )


def _unpack(
  config: experiment_pb2.ExperimentConfig, features: Artefact | None, output: pathlib.Path, *, redo: bool
) -> Artefact:
  """Makes the artefact of the codebook that comes with the package; see `run`."""
  shipped = packaged_codebook.load(shipped_codebook.DIRECTORY)
  extraction = config.extraction if config.HasField('extraction') else shipped.config.extraction
  if features is not None:
    extraction = features.config.extraction
  models = {item.role: item.fingerprint for item in features.inputs} if features else None
  require_shipped_fits(config.codebook, extraction, shipped, models=models)
  merged = experiment_pb2.ExperimentConfig(extraction=extraction, codebook=config.codebook)
  plan = Plan('codebook', merged, (Input('shipped_codebook', shipped.digest, shipped_codebook.DIRECTORY),))
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      return writer.reuse('codebook')
    centroids = shipped.words.centroids
    codebook_files.save_centroids(centroids, output)
    codebook_files.save_report(shipped.report, output)
    if shipped.projection is not None:
      codebook_files.save_projection(shipped.projection, output)
    logging.info('codebook: %d visual words of the package, %s', len(centroids), shipped.digest)
    return writer.finish({'words': len(centroids), 'descriptors': 0})


def require_shipped_fits(
  options: codebook_pb2.CodebookConfig,
  extraction: extraction_pb2.ExtractionConfig,
  shipped: PackagedCodebook | None = None,
  *,
  models: Mapping[str, str] | None = None,
) -> None:
  """Raises UserError if the codebook of the package is not of an extractor and its networks.

  Args:
    options: with source: SHIPPED; with another source, nothing is required.
    extraction: the extractor.
    shipped: the codebook; None: read it.
    models: fingerprints of networks by role; None: those of the files that `extraction` names.
  """
  if options.source != codebook_pb2.CodebookConfig.SHIPPED:
    return
  shipped = shipped or packaged_codebook.load(shipped_codebook.DIRECTORY)
  remedy = (
    "Train one on these photos (--override='codebook { source: K_MEANS num_words: 1024 }'), or use the"
    ' extractor that it was trained for'
  )
  for field, found, expected in shipped_codebook.contradictions(options, shipped.config.codebook):
    raise UserError(
      f'codebook.{field} is {found}, but codebook.source is SHIPPED, and the codebook of this release has'
      f' {expected}. Remove codebook.{field}, or install the release that the config is of'
    )
  difference = same_extractor.difference(extraction, shipped.config.extraction)
  if difference:
    field, found, expected = difference
    raise UserError(
      f'the codebook of the package was trained for extraction.{field} {expected}, found {found}. {remedy}'
    )
  if models is None:
    files_of_models = registry.model_files(extraction)
    models = {role: files.fingerprint(path) for role, path in files_of_models.items()}
  for role, fingerprint in shipped.card['models'].items():
    if models.get(role) != fingerprint:
      raise UserError(
        f'the codebook of the package was trained for the {role} {fingerprint}, found {models.get(role)}.'
        f' {remedy}'
      )


def sample_descriptors(features: Artefact, options: codebook_pb2.CodebookConfig) -> np.ndarray:
  """Returns float32 [N, D]: the same share of the whole-image features of every image.

  There are at most `most_descriptors`.

  The generator of an image is seeded with the config's seed and the image's name, so the sample depends
  neither on shards nor on the order of the images.
  """
  available = features.counts['whole_features']
  most = most_descriptors(options) or available
  share = min(1.0, most / max(available, 1))
  parts = []
  images = progress.track(
    feature_files.read(features),
    total=features.counts['images'],
    what='descriptors for the codebook',
    unit='images',
  )
  for image in images:
    descriptors = image.region(0).descriptors
    if share < 1:
      generator = np.random.default_rng([options.seed, zlib.crc32(image.name.encode())])
      # The fractional part of share * N is a probability; rounding would favour large or small images.
      count = int(share * len(descriptors) + generator.random())
      chosen = generator.choice(len(descriptors), min(count, len(descriptors)), replace=False)
      descriptors = descriptors[np.sort(chosen)]
    parts.append(descriptors)
  descriptors = np.concatenate(parts)
  return descriptors[:most]


def _hold_out(descriptors: np.ndarray, options: codebook_pb2.CodebookConfig) -> tuple[np.ndarray, np.ndarray]:
  """Divides descriptors into those to train on and those to measure the recall of approximate assignment on.

  Small codebooks, and codebooks of few descriptors, are trained on all of them, and the recall is measured on
  a part of these.
  """
  chosen = np.random.default_rng(options.seed).permutation(len(descriptors))[:_HELD_OUT]
  held_out = descriptors[np.sort(chosen)]
  if len(descriptors) >= max(options.num_words + _HELD_OUT, 100 * _HELD_OUT):
    descriptors = np.delete(descriptors, chosen, axis=0)
  return descriptors, held_out


def unit_origins(extraction: extraction_pb2.ExtractionConfig, dimensions: int) -> np.ndarray:
  """Returns float32 [P, D]: the origins of the kinds of features of an extractor (ExtractorRecord)."""
  return registry.record(extraction.extractor).unit_origins(dimensions)


def learn_projection(
  centroids: np.ndarray, descriptors: np.ndarray, origins: np.ndarray, options: codebook_pb2.CodebookConfig
) -> Projection | None:
  """Learns the projection of residuals that a config asks for.

  Args:
    centroids: float32 [K, D], the visual words.
    descriptors: float32 [N, D] to take residuals of, each from its nearest word; at most 131,072 are drawn.
    origins: float32 [P, D], the origins of the kinds of features.
    options: its `projection` and `bits`.

  Returns:
    The projection, or None if residuals are to be taken as they are.

  Raises:
    UserError: there are more bits than dimensions, or another number of kinds than the extractor has.
  """
  if not codebook_files.is_projected(options):
    return None
  num_kinds, dimensions = max(len(origins), 1), centroids.shape[1]
  bits = options.bits or dimensions
  kinds = list(options.projection.kinds) or [Config.NONE]
  if bits > dimensions:
    raise UserError(
      f'codebook.bits is {bits}, but descriptors have only {dimensions} dimensions. Set it to at most'
      f' {dimensions}, or to 0 for all'
    )
  if len(kinds) not in (1, num_kinds):
    raise UserError(
      f'codebook.projection.kinds has {len(kinds)} values, but the extractor has {num_kinds} kinds of local'
      ' features. Give one for each, or one for all'
    )
  word_kinds = projections.kinds_of_words(centroids, origins)
  residuals = None
  matrices = []
  for kind, how in enumerate(kinds * (num_kinds // len(kinds))):
    rng = np.random.default_rng([options.projection.seed, kind])
    if how == Config.NONE:
      matrices.append(projections.identity(dimensions, bits))
    elif how == Config.ROTATION:
      matrices.append(projections.rotation(dimensions, bits, rng))
    else:
      if residuals is None:
        residuals, words = _residuals(centroids, descriptors, options.projection.seed)
      learn = projections.pca_rotation if how == Config.PCA_ROTATION else projections.itq
      matrices.append(learn(residuals[word_kinds[words] == kind], bits, rng))
  return Projection(np.stack(matrices), word_kinds)


def _residuals(centroids: np.ndarray, descriptors: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns residuals of some of the descriptors, float32 [n, D], and their words, int32 [n]."""
  if len(descriptors) > _PROJECTED:
    chosen = np.random.default_rng(seed).choice(len(descriptors), _PROJECTED, replace=False)
    descriptors = descriptors[np.sort(chosen)]
  words = ExactAssigner(centroids)(descriptors, 1)[:, 0]
  return descriptors - centroids[words], words


def most_descriptors(options: codebook_pb2.CodebookConfig) -> int:
  """Returns the number of descriptors that a config trains on at most; 0 = no limit."""
  limits = (options.max_descriptors, options.max_descriptors_per_word * options.num_words)
  return min((limit for limit in limits if limit), default=0)


def _require_enough(num_descriptors: int, num_words: int, features: Artefact) -> None:
  if num_descriptors < num_words:
    raise UserError(
      f'codebook.num_words is {num_words}, but {features.path} has only {num_descriptors} descriptors to'
      f' train on. Lower codebook.num_words to at most {num_descriptors} (better a tenth of it), or train on'
      ' more photos'
    )
