"""aggregate_features: local features and codebook to aggregated descriptors."""

import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from delf_d2r.aggregator import Aggregator, assigner
from delf_d2r.data.artefacts import artefact_writer, codebook_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.kernels.compiled import HAVE_NUMBA
from delf_d2r.protos import aggregation_pb2, experiment_pb2
from delf_d2r.runtime.worker_pool import Workers
from delf_d2r.stages.shared import sharded
from delf_d2r.stages.shared.compatibility import (
  require_projection_kernel,
  require_same_dimensions,
  require_same_extractor,
)
from delf_d2r.stages.shared.sharded import JobBatch, Options, Outcome

# Images that are handed to a worker at a time: some megabytes of features, some tenths of a second.
_AT_ONCE = 16
# The start of a process takes as long as so many images of some thousand features.
_IMAGES_PER_PROCESS = 32


def run(
  config: experiment_pb2.ExperimentConfig,
  features: Artefact,
  codebook: Artefact,
  output: pathlib.Path,
  *,
  workers: Workers = None,
  strict: bool = False,
  redo: bool = False,
) -> Artefact:
  """Aggregates every index image.

  Args:
    config: its part `aggregation` says how.
    features: the artefact of extract_features.
    codebook: the artefact of train_codebook, of features of the same extractor.
    output: the artefact directory.
    workers: processes (None: as many as there is work for, at most one for each core), or those of a cluster.
    strict: stop at an image that kills the workers of a cluster, instead of going on without it.
    redo: replace an artefact of another config.

  Returns:
    The artefact.

  Raises:
    UserError: codebook, features and kernel do not belong together, or the output cannot be written.
    ImageError: with `strict`, for the image that kills the workers.
  """
  options = config.aggregation
  require_same_extractor(
    features.config.extraction,
    features.path,
    codebook.config.extraction,
    codebook.path,
    remedy='Train a codebook on features of this extractor',
  )
  require_same_dimensions(features, codebook)
  require_projection_kernel(codebook, options)
  merged = experiment_pb2.ExperimentConfig()
  merged.CopyFrom(features.config)
  merged.codebook.CopyFrom(codebook.config.codebook)
  merged.aggregation.CopyFrom(options)
  inputs = (features.as_input('features'), codebook.as_input('codebook'), features.require_input('images'))
  plan = Plan('descriptors', merged, inputs)
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      return writer.reuse('aggregated descriptors')
    batch = JobBatch(
      jobs=features.records(),
      total=features.counts['images'],
      make_function=functools.partial(_make_aggregation, options, codebook.path),
      lost=_lost,
      at_once=_AT_ONCE,
      per_process=_IMAGES_PER_PROCESS,
      preload=('numba', 'numba.np.arraymath') if HAVE_NUMBA else (),
    )
    sharded.write_records(
      writer,
      batch,
      what='aggregated descriptors',
      per_shard=options.images_per_shard,
      options=Options(workers, strict),
    )
    artefact = writer.finish(upstream=features)
  counts = artefact.counts
  logging.info(
    'aggregated descriptors: %d for %d images, %.0f visual words an image',
    counts['descriptors'],
    counts['images'],
    counts['words'] / max(counts['images'], 1),
  )
  return artefact


def _lost(data: bytes, reason: str) -> Outcome:
  name = records.decode_features(data).name
  return Outcome(name, errors=(f'{name}: {reason}',))


def _make_aggregation(
  config: aggregation_pb2.AggregationConfig, codebook: pathlib.Path
) -> Callable[[Sequence[bytes]], list[Outcome]]:
  """Loads a codebook and returns the function of a worker, from records of features to outcomes."""
  centroids = np.ascontiguousarray(codebook_files.load_centroids(codebook))
  recall = codebook_files.load_recall(codebook)
  assign = assigner(config.assignment, centroids, recall=recall)
  aggregator = Aggregator(config, centroids, assign, codebook_files.load_projection(codebook))
  return lambda group: [_aggregate(aggregator, data) for data in group]


def _aggregate(aggregator: Aggregator, data: bytes) -> Outcome:
  image = aggregator.index_image(records.decode_features(data))
  counts = {
    'images': 1,
    'descriptors': len(image.descriptors),
    'words': sum(map(len, image.descriptors)),
  }
  return Outcome(image.name, records.encode_descriptors(image), counts)
