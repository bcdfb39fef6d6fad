"""extract_features: photos and boxes to local features of every region, and query crops to theirs."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from absl import logging

from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, records, shard_ledger
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.artefact_writer import ERRORS
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.errors import UserError
from delf_d2r.extractors import registry
from delf_d2r.protos import experiment_pb2, extraction_pb2
from delf_d2r.runtime import progress, worker_pool
from delf_d2r.stages.extraction_jobs import Job, Maker, Outcome
from delf_d2r.stages.shared import unreadable
from delf_d2r.structures import Boxes


def run(
  config: experiment_pb2.ExperimentConfig,
  dataset: Dataset,
  output: pathlib.Path,
  *,
  boxes: Artefact | None,
  workers: worker_pool.Workers = None,
  strict: bool = False,
  redo: bool = False,
) -> Artefact:
  """Extracts the whole of every index image and every box.

  A photo that cannot be decoded is named in `errors.jsonl` and left out of the artefact.

  Args:
    config: its part `extraction` says how.
    dataset: the photos.
    output: the artefact directory.
    boxes: what detect_boxes made of the same photos; None: no boxes.
    workers: processes (None: one for each core), or those of a cluster.
    strict: stop at the first photo that cannot be decoded.
    redo: replace what another config made.

  Raises:
    UserError: no photo could be decoded, or the output cannot be written.
    ImageError: with `strict`, for the first photo that cannot be decoded.
  """
  photos = dataset.images
  merged = experiment_pb2.ExperimentConfig(extraction=config.extraction)
  inputs = [photos.as_input()]
  if boxes:
    merged.regions.CopyFrom(boxes.config.regions)
    inputs.append(boxes.as_input('boxes'))
  jobs = (
    Job(name, photos.path(name), boxes=found)
    for name, found in zip(photos.names, _boxes_of(photos.names, boxes), strict=True)
  )
  options = _Options('index images', workers=workers, strict=strict, redo=redo)
  return _extract(merged, inputs, jobs, len(photos), output, options)


def run_queries(
  config: experiment_pb2.ExperimentConfig,
  queries: Queries,
  output: pathlib.Path,
  *,
  workers: worker_pool.Workers = None,
  strict: bool = False,
  redo: bool = False,
) -> Artefact:
  """Extracts the query images, each cut to its box first; records carry the queries' names.

  Arguments and errors as of `run`.
  """
  merged = experiment_pb2.ExperimentConfig(extraction=config.extraction)
  jobs = [Job(query.name, queries.images.path(name), query=query) for query, name in queries.items()]
  inputs = [queries.as_input()]
  options = _Options('query images', workers=workers, strict=strict, redo=redo)
  return _extract(merged, inputs, jobs, len(jobs), output, options)


def _boxes_of(names: Sequence[str], artefact: Artefact | None) -> Iterator[Boxes]:
  """Yields the boxes of every name.

  They come in the order of the names, most likely; boxes of other names are kept until these are asked for.
  """
  stored = map(records.decode_boxes, artefact.records() if artefact else ())
  failed = {error['name'] for error in artefact_writer.read_errors(artefact)}
  kept: dict[str, Boxes] = {}
  for name in names:
    while name not in kept and name not in failed and (record := next(stored, None)):
      kept.update([record])
    yield kept.pop(name, Boxes.empty())


@dataclasses.dataclass(frozen=True)
class _Options:
  what: str
  workers: worker_pool.Workers
  strict: bool
  redo: bool


def _extract(
  config: experiment_pb2.ExperimentConfig,
  inputs: Sequence[Input],
  jobs: Iterable[Job],
  total: int,
  output: pathlib.Path,
  options: _Options,
) -> Artefact:
  what = options.what
  plan = Plan('features', config, (*inputs, *_models(config.extraction)))
  with artefact_writer.writing(output, plan, redo=options.redo) as writer:
    if writer.finished:
      logging.info('features of %s: %s is up to date, skipped', what, output)
      return Artefact.open(output, 'features')
    shards = list(writer.ledger.missing(total, config.extraction.images_per_shard))
    left = sum(len(shard.items) for shard in shards)
    done = total - left
    if writer.resumed:
      logging.info('features of %s: going on, %d of %d are done', what, done, total)
    note = ''
    outcomes = worker_pool.map_groups(
      Maker(config.extraction),
      ([job] for job in shard_ledger.items_of(shards, jobs)),
      num_groups=left,
      workers=options.workers,
      lost=lambda job, reason: Outcome(job.name, error=f'{job.path}: {reason}'),
      uses_network=registry.record(config.extraction.extractor).uses_network,
    )
    with progress.bar(total=total, what=f'features of {what}', unit='images', done=done) as bar:
      for shard in shards:
        with writer.ledger.write(shard) as file:
          for _ in shard.items:
            outcome = next(outcomes)
            _keep(outcome, file, options.strict)
            if outcome.note and not note:
              logging.warning('%s: %s', outcome.name, outcome.note)
              note = outcome.note
            bar.update()
    _require_features(writer, what, note)
    artefact = writer.finish()
  _tell(artefact, what)
  return artefact


def _models(config: extraction_pb2.ExtractionConfig) -> list[Input]:
  """The files of a network and its PCA: other weights at the same place make features stale."""
  return [Input(role, files.fingerprint(path), path) for role, path in registry.model_files(config).items()]


def _keep(outcome: Outcome, file: shard_ledger.ShardWriter, strict: bool) -> None:
  if outcome.error:
    unreadable.leave_out(file, outcome.name, outcome.error, strict=strict)
    return
  file.add(
    outcome.record,
    images=1,
    features=outcome.features,
    whole_features=outcome.whole_features,
    regions=outcome.regions,
    without_features=not outcome.features,
  )


def _require_features(writer: artefact_writer.ArtefactWriter, what: str, note: str) -> None:
  """Refuses to finish an artefact that nothing can be found with."""
  unreadable.require_some(writer, what)
  if not writer.ledger.counts['features']:
    images = writer.ledger.counts['images']
    writer.discard()
    remedy = note or (
      'Lower extraction.min_attention or root_sift.contrast_threshold, or let small photos be enlarged by'
      ' extraction.min_image_size'
    )
    raise UserError(f'no features at all in {images} {what}. {remedy}')


def _tell(artefact: Artefact, what: str) -> None:
  names = ('features', 'regions', 'images', 'without_features', 'failed')
  logging.info(
    'features of %s: %d features in %d regions of %d photos; %d without features, %d could not be read',
    what,
    *(artefact.counts.get(name, 0) for name in names),
  )
  if artefact.counts['failed']:
    logging.warning('%d photos could not be read: %s', artefact.counts['failed'], artefact.path / ERRORS)
