"""aggregate_features: local features and codebook to aggregated descriptors."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import logging

from delf_d2r.aggregator import Aggregator, assigner
from delf_d2r.data.artefacts import artefact_writer, codebook_files, records, shard_ledger
from delf_d2r.data.artefacts.artefact import Artefact, Plan
from delf_d2r.data.artefacts.shard_ledger import ShardWriter
from delf_d2r.protos import aggregation_pb2, experiment_pb2
from delf_d2r.runtime import progress, worker_pool
from delf_d2r.stages.shared import unreadable
from delf_d2r.stages.shared.compatibility import require_same_dimensions, require_same_extractor

# Images handed to a worker at a time: some megabytes of features, some tenths of a second.
_AT_ONCE = 16
# To start a process takes as long as some hundred images.
_IMAGES_PER_PROCESS = 512


def run(
  config: experiment_pb2.ExperimentConfig,
  features: Artefact,
  codebook: Artefact,
  output: pathlib.Path,
  *,
  workers: worker_pool.Workers = None,
  strict: bool = False,
  redo: bool = False,
) -> Artefact:
  """Aggregates every index image.

  Args:
    config: its part `aggregation` says how.
    features: what extract_features made.
    codebook: what train_codebook made of features of the same extractor.
    output: the artefact directory.
    workers: processes (None: as many as there is work for, at most one for each core), or those of a cluster.
    strict: stop at an image that kills the workers of a cluster, instead of going on without it.
    redo: replace what another config made.

  Raises:
    UserError: codebook and features do not belong together, or the output cannot be written.
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
    total = features.counts['images']
    shards = list(writer.ledger.missing(total, options.images_per_shard))
    left = sum(len(shard.items) for shard in shards)
    outcomes = worker_pool.map_groups(
      _Maker(options, codebook.path),
      _groups(shard_ledger.items_of(shards, features.records())),
      num_groups=-(-left // _AT_ONCE),
      workers=workers or min(worker_pool.available_cores(), -(-left // _IMAGES_PER_PROCESS)),
      lost=_lost,
    )
    with progress.bar(total=total, what='aggregated descriptors', unit='images', done=total - left) as bar:
      for shard in shards:
        with writer.ledger.write(shard) as file:
          for outcome in itertools.islice(outcomes, len(shard.items)):
            _keep(outcome, file, strict)
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


@dataclasses.dataclass(frozen=True)
class _Outcome:
  """The record of one image, or the reason why there is none."""

  name: str
  record: bytes = b''
  descriptors: int = 0
  words: int = 0
  error: str = ''


def _lost(data: bytes, reason: str) -> _Outcome:
  name = records.decode_features(data).name
  return _Outcome(name, error=f'{name}: {reason}')


def _keep(outcome: _Outcome, file: ShardWriter, strict: bool) -> None:
  if outcome.error:
    unreadable.leave_out(file, outcome.name, outcome.error, strict=strict)
  else:
    file.add(outcome.record, images=1, descriptors=outcome.descriptors, words=outcome.words)


def _groups(features: Iterator[bytes]) -> Iterator[list[bytes]]:
  while group := list(itertools.islice(features, _AT_ONCE)):
    yield group


@dataclasses.dataclass(frozen=True)
class _Maker:
  """Makes the function that a worker runs; picklable, unlike what assigns words."""

  config: aggregation_pb2.AggregationConfig
  codebook: pathlib.Path

  def __call__(self) -> Callable[[Sequence[bytes]], list[_Outcome]]:
    centroids = np.ascontiguousarray(codebook_files.load_centroids(self.codebook))
    recall = codebook_files.load_recall(self.codebook)
    assign = assigner(self.config.assignment, centroids, recall=recall)
    aggregator = Aggregator(self.config, centroids, assign)
    return lambda group: [_aggregate(aggregator, data) for data in group]


def _aggregate(aggregator: Aggregator, data: bytes) -> _Outcome:
  image = aggregator.index_image(records.decode_features(data))
  return _Outcome(
    image.name,
    record=records.encode_descriptors(image),
    descriptors=len(image.descriptors),
    words=sum(map(len, image.descriptors)),
  )
