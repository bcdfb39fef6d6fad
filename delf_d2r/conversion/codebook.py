"""Conversion of codebook checkpoints of the tensorflow/models DELF code to artefacts, and back."""

import hashlib
import pathlib

import numpy as np
from absl import logging

from delf_d2r import config as configs
from delf_d2r.conversion import foreign_files
from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer, codebook_files
from delf_d2r.data.artefacts.artefact import Artefact, Input, Plan
from delf_d2r.errors import UserError
from delf_d2r.models import codebook_checkpoint
from delf_d2r.protos import experiment_pb2
from delf_d2r.stages.shared.compatibility import require_no_projection


def read(
  source: pathlib.Path, config: experiment_pb2.ExperimentConfig, output: pathlib.Path, *, redo: bool = False
) -> Artefact:
  """Converts a checkpoint of TensorFlow 1 or 2 to a codebook, and returns the artefact.

  Args:
    source: prefix, `.index` file or folder of the checkpoint.
    config: its part `extraction` describes the features that the words were trained on.
    output: the artefact directory.
    redo: whether to replace the artefact of another checkpoint.

  Raises:
    UserError: the checkpoint has no codebook, or the output cannot be written.
  """
  words = codebook_checkpoint.read(source)
  merged = configs.default('codebook')
  merged.extraction.CopyFrom(config.extraction)
  merged.codebook.num_words = len(words)
  digest = hashlib.sha256(words.tobytes()).hexdigest()[:16]
  plan = Plan('codebook', merged, (Input('checkpoint', digest, source.resolve()),))
  with artefact_writer.writing(output, plan, redo=redo) as writer:
    if writer.finished:
      logging.info('codebook: %s is up to date, skipped', output)
      return Artefact.open(output, 'codebook')
    codebook_files.save_centroids(words, output)
    logging.info('codebook: %d visual words of %d dimensions', *words.shape)
    return writer.finish({'words': len(words), 'descriptors': 0})


def write(codebook: Artefact, output: pathlib.Path, *, name_based: bool, redo: bool = False) -> None:
  """Writes a checkpoint.

  Args:
    codebook: artefact of train_codebook.
    output: prefix of the files, the `codebook_path` of the DELF code.
    name_based: whether to write the form of TensorFlow 1 instead of that of TensorFlow 2.
    redo: whether to replace a checkpoint of other contents.

  Raises:
    UserError: the codebook has a projection, there is a checkpoint of other contents, or the output cannot be
      written.
  """
  index = output.with_name(output.name + '.index')
  require_no_projection(codebook)
  words = codebook_files.load_centroids(codebook.path)
  if index.exists():
    if _is_written(output, words, name_based=name_based):
      return
    foreign_files.require_absent(index, redo=redo, why='already, with other contents')
  with files.user_errors('cannot write', output):
    output.parent.mkdir(parents=True, exist_ok=True)
    codebook_checkpoint.write(output, words, name_based=name_based)
  foreign_files.note(output)


def _is_written(prefix: pathlib.Path, words: np.ndarray, *, name_based: bool) -> bool:
  """Returns whether there is a checkpoint of this form with these words."""
  try:
    same_form = codebook_checkpoint.is_name_based(prefix) == name_based
    return same_form and np.array_equal(codebook_checkpoint.read(prefix), words)
  except UserError:  # It is damaged, or of something else.
    return False
