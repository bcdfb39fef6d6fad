"""Conversion of aggregated descriptors of the tensorflow/models DELF code to artefacts, and back."""

import pathlib

import numpy as np
from absl import logging

from delf_d2r import aggregator
from delf_d2r import config as configs
from delf_d2r.conversion import foreign_files
from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, codebook_files, records
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.data.artefacts.records import ImageDescriptors
from delf_d2r.data.legacy import descriptor_files
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import UserError
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.protos import aggregation_pb2, experiment_pb2
from delf_d2r.runtime import progress
from delf_d2r.stages.shared.compatibility import require_no_projection
from delf_d2r.structures import WHOLE_IMAGE

Aggregation = aggregation_pb2.AggregationConfig


def extensions_in(folder: pathlib.Path) -> list[str]:
  """Returns the extensions of aggregated descriptors that occur in a folder and its subfolders."""
  return [name for name in descriptor_files.EXTENSIONS if next(folder.rglob(f'*{name}'), None)]


def read(
  source: pathlib.Path, dataset: Dataset, codebook: Artefact, output: pathlib.Path, *, redo: bool = False
) -> Artefact:
  """Converts files of aggregated descriptors of index images, and returns the artefact.

  The extension of the files tells the kernel, and whether regions were aggregated. Photos without a file are
  named in `errors.jsonl` and are not in the artefact.

  Args:
    source: folder of files of one extension.
    dataset: the photos.
    codebook: the visual words that were used.
    output: the artefact directory.
    redo: whether to replace the artefact of other files.

  Raises:
    UserError: there are files of several extensions, a file is damaged or of another codebook, or the output
      cannot be written.
  """
  extension, *others = extensions_in(source)
  if others:
    raise UserError(
      f'{source}: has {extension} files and {", ".join(others)} files; keep those of one extension there'
    )
  found = foreign_files.find(source, extension)
  photos = dataset.images
  file_of = foreign_files.of_images(found, photos.names, source=str(source))
  require_no_projection(codebook)
  num_words, dimensions = codebook_files.load_centroids(codebook.path).shape
  plan = Plan(
    'descriptors',
    _config(codebook, extension),
    (
      Input('descriptor_files', files.fingerprint(source), source.resolve()),
      codebook.as_input('codebook'),
      photos.as_input(),
    ),
  )
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      logging.info('aggregated descriptors: %s is up to date, skipped', output)
      return Artefact.open(output, 'descriptors')
    shards = list(writer.ledger.missing(len(photos), plan.config.aggregation.images_per_shard))
    done = len(photos) - sum(len(shard.items) for shard in shards)
    with progress.bar(total=len(photos), what='aggregated descriptors', unit='images', done=done) as bar:
      for shard in shards:
        with writer.ledger.write(shard) as file:
          for name in photos.names[shard.items.start : shard.items.stop]:
            if name in file_of:
              only = descriptor_files.read(file_of[name], num_words=num_words, dimensions=dimensions)
              # The files do not have the boxes.
              image = ImageDescriptors(name, np.array([WHOLE_IMAGE], np.float32), [only])
              file.add(records.encode_descriptors(image), images=1, descriptors=1, words=len(only))
            else:
              file.add_error(name, f'{source}: no {extension} file of {name!r}')
            bar.update()
    artefact = writer.finish()
  logging.info(
    'aggregated descriptors: %d images; %d photos without a file',
    artefact.counts['images'],
    artefact.counts['failed'],
  )
  return artefact


def _config(codebook: Artefact, extension: str) -> experiment_pb2.ExperimentConfig:
  kernel, is_regional = descriptor_files.EXTENSIONS[extension]
  config = configs.default('aggregation')
  config.extraction.CopyFrom(codebook.config.extraction)
  config.codebook.CopyFrom(codebook.config.codebook)
  config.aggregation.MergeFrom(Aggregation(kernel=kernel.name))
  if is_regional:
    config.aggregation.regions = Aggregation.REGIONAL_AGGREGATION
  return config


def write(descriptors: Artefact, output: pathlib.Path, *, redo: bool = False) -> int:
  """Writes a file for each image, with the extension of the kernel; returns the number of files.

  Args:
    descriptors: artefact of aggregate_features, not of regional search.
    output: a folder.
    redo: whether to replace files of other contents.

  Raises:
    UserError: the descriptors are of regional search, projected or have region masks, the names of two images
      differ only in the extension, or there is a file of other contents.
  """
  options = descriptors.config.aggregation
  if options.regions == Aggregation.REGIONAL_SEARCH:
    raise UserError(
      f'{descriptors.path}: aggregation.regions is REGIONAL_SEARCH, but the tensorflow/models DELF code has'
      ' one descriptor for each image. Aggregate with WHOLE_IMAGE or REGIONAL_AGGREGATION'
    )
  if options.region_masks:
    raise UserError(
      f'{descriptors.path}: aggregation.region_masks is true, but the files of the tensorflow/models DELF'
      ' code have no masks. Aggregate without region_masks'
    )
  if codebook_files.is_projected(descriptors.config.codebook):
    raise UserError(
      f'{descriptors.path}: residuals were projected (codebook.projection, codebook.bits), which the'
      ' tensorflow/models DELF code does not know. Aggregate with a codebook without projection'
    )
  kernel: Kernel = aggregator.kernel(options)
  regional = options.regions == Aggregation.REGIONAL_AGGREGATION
  extension = descriptor_files.extension(kernel, regional=regional)
  names = (records.Record(data).name for data in descriptors.records())
  writer = foreign_files.Writer(output, ((name, ['']) for name in names), redo=redo)
  total = descriptors.counts['images']
  for image in progress.track(
    map(records.decode_descriptors, descriptors.records()), total=total, what=extension, unit='images'
  ):
    (only,) = image.descriptors
    num_words = descriptors.config.codebook.num_words
    writer.add(image.name, extension, descriptor_files.encode(only, kernel=kernel, num_words=num_words))
  return total
