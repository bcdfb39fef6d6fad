"""build_index: aggregated descriptors to an inverted index that answers photos by itself.

The artefact holds all that a search needs: `inverted/` (delf_d2r.index), the codebook, the configs (in the
manifest) and the boxes of every image, for people to look at.

Workers make its segments, which are put together at the end (index.joining): the index has the same bytes
however many they are, and wherever. A run that is killed keeps its finished segments.
"""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from absl import logging

from delf_d2r import aggregator
from delf_d2r.data.artefacts import artefact_writer, codebook_files, index_files
from delf_d2r.data.artefacts.artefact import Artefact, Plan, with_comparison
from delf_d2r.data.photos import photo_folders
from delf_d2r.errors import UserError
from delf_d2r.index import joining
from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.protos import aggregation_pb2, experiment_pb2
from delf_d2r.runtime import progress, worker_pool
from delf_d2r.stages import index_segments
from delf_d2r.stages.shared.compatibility import require_same_making


def run(
  config: experiment_pb2.ExperimentConfig,
  descriptors: Artefact,
  codebook: Artefact,
  output: pathlib.Path,
  *,
  distractors: Artefact | None = None,
  workers: worker_pool.Workers = None,
  memory_budget: int = DEFAULT_MEMORY_BUDGET,
  redo: bool = False,
) -> Artefact:
  """Builds the index.

  Args:
    config: its part `aggregation` says how scores are computed; the rest is taken from the descriptors.
    descriptors: what aggregate_features made.
    codebook: the codebook that it used.
    output: the artefact directory.
    distractors: aggregated descriptors of photos that no ground truth names; they follow the others.
    workers: processes (None: one for each segment, at most one for each core), or those of a cluster.
    memory_budget: bytes for sorting, without effect on the result: of all processes of this machine together,
      of each worker of a cluster; see index.builder.SegmentBuilder.
    redo: replace what another config made.

  Raises:
    UserError: the distractors were aggregated differently, a shard is damaged, workers died, or the output
      cannot be written.
  """
  merged = with_comparison(descriptors.config, config.aggregation)
  inputs = (descriptors.as_input('descriptors'), codebook.as_input('codebook'), descriptors.input('images'))
  artefacts = [descriptors]
  if distractors:
    require_same_making(descriptors, distractors)
    inputs += (distractors.as_input('distractors'), *photo_folders.of_distractors(distractors))
    artefacts.append(distractors)
  plan = Plan('index', merged, inputs)
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      logging.info('index: %s is up to date, skipped', output)
      return Artefact.open(output, 'index')
    shutil.rmtree(output / index_files.INVERTED, ignore_errors=True)
    index = _build(artefacts, codebook, merged.aggregation, output, workers, memory_budget)
    codebook_files.copy(codebook.path, output)
    logging.info('index: %r', index)
    counts = {
      'images': len(index),
      'entries': index.num_entries,
      'postings': index.num_postings,
      'index_bytes': index.nbytes,
      'distractors': distractors.counts['images'] if distractors else 0,
    }
    return writer.finish(counts, upstream=descriptors)


def _build(
  artefacts: Sequence[Artefact],
  codebook: Artefact,
  config: aggregation_pb2.AggregationConfig,
  output: pathlib.Path,
  workers: worker_pool.Workers,
  memory_budget: int,
) -> InvertedIndex:
  # One pass for what is small, a second one for the postings: descriptors need not fit into memory.
  survey = index_segments.Survey.of(artefacts)
  index_files.save_boxes(survey.boxes, output)
  num_words, dimensions = codebook_files.load_centroids(codebook.path).shape
  sizes = {'num_words': num_words, 'dimensions': dimensions, 'kernel': aggregator.kernel(config)}
  parts = output / index_files.PARTS
  jobs = index_segments.jobs(survey, parts)
  _make_segments(jobs, parts, sizes, workers, memory_budget)
  is_regional = config.regions == aggregation_pb2.AggregationConfig.REGIONAL_SEARCH
  index = joining.join(
    [job.part for job in jobs],
    survey.names,
    entry_images=np.repeat(np.arange(len(survey.names)), survey.entries) if is_regional else None,
    directory=output / index_files.INVERTED,
    **sizes,
  )
  shutil.rmtree(parts)
  return index


def _make_segments(
  jobs: Sequence[index_segments.Job],
  parts: pathlib.Path,
  sizes: Mapping[str, Any],
  workers: worker_pool.Workers,
  memory_budget: int,
) -> None:
  """Has every segment made that no earlier run has finished."""
  parts.mkdir(exist_ok=True)
  missing = [job for job in jobs if not joining.is_built(job.part)]
  for leftover in set(parts.iterdir()) - {job.part for job in jobs} | {job.part for job in missing}:
    shutil.rmtree(leftover, ignore_errors=True)
  if workers is None or isinstance(workers, int):
    workers = max(min(workers or worker_pool.available_cores(), len(missing)), 1)
    memory_budget //= workers
  made = worker_pool.map_groups(
    index_segments.Maker(memory_budget=memory_budget, **sizes),
    [[job] for job in missing],
    num_groups=len(missing),
    workers=workers,
    lost=_lost,
  )
  total, left = (sum(job.entries for job in some) for some in (jobs, missing))
  with progress.bar(total=total, what='index', unit='entries', done=total - left) as bar:
    for job, _ in zip(missing, made, strict=True):
      bar.update(job.entries)


def _lost(job: index_segments.Job, reason: str) -> NoReturn:
  raise UserError(
    f'segment {job.number} of the index, {job.entries} entries, {reason}. Give each worker more of a machine'
    ' by --cpus_per_worker, or have it sort in less by --sorting_gb; finished segments are kept'
  )
