"""export_delf: a trained network to a SavedModel with its model card."""

import dataclasses
import datetime
import json
import pathlib

from absl import logging
from google.protobuf import text_format

from delf_d2r.data import files
from delf_d2r.data.artefacts import pca_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import UserError
from delf_d2r.protos import delf_model_pb2
from delf_d2r.stages.shared import training_run
from delf_d2r.version import VERSION

WEIGHTS = 'delf.weights.h5'
BEST = 'best.json'


@dataclasses.dataclass(frozen=True)
class Options:
  """How to export.

  Attributes:
    name: of the model, for its card.
    notes: data, licence and whatever else a user should know, for the card.
    pca: directory of train_pca, built into the graph; '' = descriptors are not reduced.
    dimensions: components of the PCA to keep; 0 = all.
    whitening: divide each component by its standard deviation.
    nms_iou: see DelfConfig.nms_iou, as a constant of the graph.
    half_weights: store the backbone's weights in half precision: half the size, features differ slightly.
  """

  name: str = 'DELF'
  notes: str = ''
  pca: str = ''
  dimensions: int = 0
  whitening: bool = False
  nms_iou: float = 1.0
  half_weights: bool = False


def run_trained(trained: Artefact, output: pathlib.Path, options: Options) -> pathlib.Path:
  """Exports the network that train_delf made; arguments and errors are those of `run`."""
  config = trained.config.training
  facts = training_run.card_facts(trained, config)
  if (trained.path / BEST).is_file():
    best = json.loads((trained.path / BEST).read_text(encoding='utf-8'))
    facts['chosen checkpoint'] = f'step {best["step"]}, best by validation: {best["value"]:.4g}'
  return run(config.model, trained.path / WEIGHTS, output, options, facts=facts)


def run(
  config: delf_model_pb2.DelfModelConfig,
  weights: str | pathlib.Path,
  output: pathlib.Path,
  options: Options,
  *,
  facts: dict | None = None,
) -> pathlib.Path:
  """Writes a SavedModel directory with model card.

  Args:
    config: of the network.
    weights: its file; '' = the initial weights of the config's backbone, for a network without training.
    output: must not exist.
    options: how.
    facts: more for the model card.

  Raises:
    UserError: weights or PCA do not fit, or the output exists.
  """
  if not 0 < options.nms_iou <= 1:
    raise UserError(f'nms_iou is {options.nms_iou:g}; it must be in (0, 1]')
  # Before the network is built.
  pca = _truncated(options) if options.pca else None
  from delf_d2r.models.delf import export, network
  from delf_d2r.models.saved_models import directory

  directory.require_absent(output)
  built = delf_model_pb2.DelfModelConfig()
  built.CopyFrom(config)
  if weights:
    built.ClearField('backbone_weights')
  model = network.Delf(built)
  if weights:
    model.load(weights)
  module = export.LocalFeatureModule(
    model,
    pca=pca,
    whitening=options.whitening,
    nms_iou=options.nms_iou,
    half_weights=options.half_weights,
  )
  card = {
    'name': options.name,
    'notes': options.notes,
    'model': text_format.MessageToString(config),
    'descriptor': {
      'dimensions': pca.dimensions if pca else model.dimensions,
      **({'dimensions of the global one': config.global_dimensions} if config.global_dimensions else {}),
      'stride': model.receptive_field.stride,
      'receptive field': model.receptive_field.size,
      'PCA': files.fingerprint(pathlib.Path(options.pca)) if pca else 'none',
      'whitening': 'on' if pca and options.whitening else 'off',
      'nms_iou': options.nms_iou,
      'stored weights': 'float16' if options.half_weights else 'float32',
    },
    **(facts or {}),
    'weights': {'fingerprint': files.fingerprint(pathlib.Path(weights)) if weights else 'not trained'},
    'made': {'library': f'delf_d2r {VERSION}', 'date': datetime.date.today().isoformat()},
  }
  export.save(module, config, output, card=card)
  size = sum(file.stat().st_size for file in output.rglob('*') if file.is_file())
  logging.info('export: %s, %.1f MiB', output, size / 2**20)
  return output


def _truncated(options: Options):
  try:
    return pca_files.load(options.pca).truncated(options.dimensions)
  except UserError:
    raise
  except ValueError as error:
    raise UserError(f'{options.pca}: {error}') from None
