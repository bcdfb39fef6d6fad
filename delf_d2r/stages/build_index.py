"""build_index: aggregated descriptors to an inverted index that answers photos by itself.

The artefact holds all that a search needs: `inverted/` (delf_d2r.index), the codebook, the configs (in the
manifest) and the boxes of every image, for people to look at.
"""

import itertools
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging

from delf_d2r import aggregator
from delf_d2r.data import artefact_writer, codebook_files, index_files, records
from delf_d2r.data.artefacts import Artefact, Plan, with_comparison
from delf_d2r.data.records import ImageDescriptors
from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.protos import aggregation_pb2, experiment_pb2
from delf_d2r.stages import progress
from delf_d2r.stages.compatibility import require_same_making


def run(
  config: experiment_pb2.ExperimentConfig,
  descriptors: Artefact,
  codebook: Artefact,
  output: pathlib.Path,
  *,
  distractors: Artefact | None = None,
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
    memory_budget: bytes for sorting, without effect on the result; see index.builder.SegmentBuilder.
    redo: replace what another config made.

  Raises:
    UserError: the distractors were aggregated differently, or the output cannot be written.
  """
  merged = with_comparison(descriptors.config, config.aggregation)
  inputs = (descriptors.as_input('descriptors'), codebook.as_input('codebook'), descriptors.input('images'))
  parts = [descriptors]
  if distractors:
    require_same_making(descriptors, distractors)
    inputs += (distractors.as_input('distractors'),)
    parts.append(distractors)
  plan = Plan('index', merged, inputs)
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      logging.info('index: %s is up to date, skipped', output)
      return Artefact.open(output, 'index')
    shutil.rmtree(output / index_files.INVERTED, ignore_errors=True)
    index = _build(parts, codebook, merged.aggregation, output, memory_budget)
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
  parts: Sequence[Artefact],
  codebook: Artefact,
  config: aggregation_pb2.AggregationConfig,
  output: pathlib.Path,
  memory_budget: int,
) -> InvertedIndex:
  # One pass for what is small, a second one for the postings: descriptors need not fit into memory.
  names, boxes, entries_of_image = [], [], []
  for image in _read(parts):
    names.append(image.name)
    boxes.append(image.boxes)
    entries_of_image.append(len(image.descriptors))
  index_files.save_boxes(boxes, output)
  is_regional = config.regions == aggregation_pb2.AggregationConfig.REGIONAL_SEARCH
  num_words, dimensions = codebook_files.load_centroids(codebook.path).shape
  images = progress.track(_read(parts), total=len(names), what='index', unit='images')
  return InvertedIndex.build(
    itertools.chain.from_iterable(image.descriptors for image in images),
    names,
    num_words=num_words,
    dimensions=dimensions,
    kernel=aggregator.kernel(config),
    entry_images=np.repeat(np.arange(len(names)), entries_of_image) if is_regional else None,
    directory=output / index_files.INVERTED,
    memory_budget=memory_budget,
  )


def _read(parts: Sequence[Artefact]) -> Iterator[ImageDescriptors]:
  return map(records.decode_descriptors, itertools.chain.from_iterable(part.records() for part in parts))
