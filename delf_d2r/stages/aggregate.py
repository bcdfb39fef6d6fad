"""aggregate_features: local features and codebook to aggregated descriptors."""

import pathlib

import numpy as np
from absl import logging

from delf_d2r.aggregator import Aggregator, assigner
from delf_d2r.data import artefact_writer, codebook_files, records
from delf_d2r.data.artefacts import Artefact, Plan
from delf_d2r.protos import experiment_pb2
from delf_d2r.stages import progress
from delf_d2r.stages.compatibility import require_same_extractor


def run(
  config: experiment_pb2.ExperimentConfig,
  features: Artefact,
  codebook: Artefact,
  output: pathlib.Path,
  *,
  redo: bool = False,
) -> Artefact:
  """Aggregates every index image.

  Args:
    config: its part `aggregation` says how.
    features: what extract_features made.
    codebook: what train_codebook made of features of the same extractor.
    output: the artefact directory.
    redo: replace what another config made.

  Raises:
    UserError: codebook and features do not belong together, or the output cannot be written.
  """
  options = config.aggregation
  require_same_extractor(
    features.config.extraction,
    features.path,
    codebook.config.extraction,
    codebook.path,
    remedy='Train a codebook on features of this extractor',
  )
  merged = experiment_pb2.ExperimentConfig()
  merged.CopyFrom(features.config)
  merged.codebook.CopyFrom(codebook.config.codebook)
  merged.aggregation.CopyFrom(options)
  inputs = (features.as_input('features'), codebook.as_input('codebook'), features.input('images'))
  plan = Plan('descriptors', merged, inputs)
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      logging.info('aggregated descriptors: %s is up to date, skipped', output)
      return Artefact.open(output, 'descriptors')
    centroids = np.ascontiguousarray(codebook_files.load_centroids(codebook.path))
    recall = codebook_files.load_recall(codebook.path)
    assign = assigner(options.assignment, centroids, recall=recall)
    aggregator = Aggregator(options, centroids, assign)
    total = features.counts['images']
    shards = list(writer.missing_shards(total, options.images_per_shard))
    done = total - sum(len(shard.items) for shard in shards)
    stream = enumerate(features.records())
    with progress.bar(total=total, what='aggregated descriptors', unit='images', done=done) as bar:
      for shard in shards:
        with writer.shard(shard) as file:
          for item in shard.items:
            # Records of shards that an earlier run finished are passed over without being parsed.
            data = next(data for position, data in stream if position == item)
            image = aggregator.index_image(records.decode_features(data))
            file.add(
              records.encode_descriptors(image),
              images=1,
              descriptors=len(image.descriptors),
              words=sum(map(len, image.descriptors)),
            )
            bar.update()
    artefact = writer.finish(upstream=features)
  counts = artefact.counts
  logging.info(
    'aggregated descriptors: %d for %d images, %.0f visual words an image',
    counts['descriptors'],
    counts['images'],
    counts['words'] / max(counts['images'], 1),
  )
  return artefact
