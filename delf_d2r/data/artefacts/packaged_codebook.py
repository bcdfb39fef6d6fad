"""A codebook in the form that comes with the package: small files, and the same float32 values everywhere.

codebook.pbtxt       how it was made: extraction and codebook of an ExperimentConfig
values.npy           int8 [K, D], the visual words: word k of kind p is values[k] * scales[p] + offsets[p]
scales.npy           float32 [P, D]
offsets.npy          float32 [P, D]
word_kinds.npy       uint8 [K], the kind of local features of each word
projections.npy      float32 [P, D, B], of residuals before their signs are taken, if there are any
report.json          that of the artefact, measured again with the values as they are stored
codebook_card.json   name, notes on data and licence, the networks that it was trained for, what rounding lost

Each dimension of each kind has 255 steps between the least and the largest value of a word there. Product and
sum are rounded to float32 one after the other, which gives the same bytes on every machine.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import text_format

from delf_d2r.config import shipped_codebook
from delf_d2r.data import files
from delf_d2r.data.artefacts import codebook_files
from delf_d2r.errors import ArtefactError
from delf_d2r.kernels.projection import Projection
from delf_d2r.protos import experiment_pb2

VALUES = 'values.npy'
SCALES = 'scales.npy'
OFFSETS = 'offsets.npy'
CARD = 'codebook_card.json'

_STEPS = 127
_ARRAYS = (VALUES, SCALES, OFFSETS, codebook_files.WORD_KINDS)
_REMEDY = 'Install the package again, or export the codebook again'


@dataclasses.dataclass(frozen=True)
class QuantisedWords:
  """Visual words in one byte a dimension.

  Attributes:
    values: int8 [K, D].
    scales, offsets: float32 [P, D], of the P kinds of local features.
    kinds: uint8 [K], the kind of each word.
  """

  values: np.ndarray
  scales: np.ndarray
  offsets: np.ndarray
  kinds: np.ndarray

  @classmethod
  def of(cls, centroids: np.ndarray, kinds: np.ndarray, num_kinds: int) -> 'QuantisedWords':
    """Quantises centroids float32 [K, D] of the kinds uint8 [K] below `num_kinds`."""
    scales = np.ones((num_kinds, centroids.shape[1]), np.float32)
    offsets = np.zeros_like(scales)
    values = np.zeros(centroids.shape, np.int8)
    for kind in range(num_kinds):
      own = kinds == kind
      if own.any():
        least, most = centroids[own].min(axis=0), centroids[own].max(axis=0)
        offsets[kind] = (least + most) / 2
        # Where all words have one value, it is the offset.
        scales[kind] = np.where(most > least, (most - least) / (2 * _STEPS), 1)
        steps = np.rint((centroids[own] - offsets[kind]) / scales[kind])
        values[own] = np.clip(steps, -_STEPS, _STEPS)
    return cls(values, scales, offsets, kinds)

  @property
  def centroids(self) -> np.ndarray:
    """The visual words, float32 [K, D]."""
    found = self.values.astype(np.float32)
    found *= self.scales[self.kinds]
    found += self.offsets[self.kinds]
    return found


@dataclasses.dataclass(frozen=True)
class PackagedCodebook:
  """A codebook of the package.

  Attributes:
    config: how it was made: its parts `extraction` and `codebook`.
    words: the visual words.
    projection: of residuals before their signs are taken, or None.
    report: of its training; see codebook_files.
    card: name, notes, `models` (the fingerprints of the networks by role) and the loss of the quantisation.
    digest: of what decides its descriptors: words, projection and config; '' before it is stored.
  """

  config: experiment_pb2.ExperimentConfig
  words: QuantisedWords
  projection: Projection | None
  report: Mapping[str, Any]
  card: Mapping[str, Any]
  digest: str = ''


def save(codebook: PackagedCodebook, directory: pathlib.Path) -> None:
  """Writes a codebook into an existing folder."""
  words = codebook.words
  arrays = {VALUES: words.values, SCALES: words.scales, OFFSETS: words.offsets}
  arrays[codebook_files.WORD_KINDS] = words.kinds
  if codebook.projection is not None:
    arrays[codebook_files.PROJECTIONS] = codebook.projection.matrices
  for name, array in arrays.items():
    files.save_array(directory / name, array)
  for name, document in ((codebook_files.REPORT, codebook.report), (CARD, codebook.card)):
    files.write_atomically(directory / name, json.dumps(document, indent=1) + '\n')
  text = text_format.MessageToString(codebook.config)
  files.write_atomically(directory / shipped_codebook.CONFIG, text)


def load(directory: pathlib.Path) -> PackagedCodebook:
  """Reads a codebook.

  Raises:
    ArtefactError: a file is missing, damaged or does not fit the others.
  """
  try:
    text = (directory / shipped_codebook.CONFIG).read_text(encoding='utf-8')
    config = text_format.Parse(text, experiment_pb2.ExperimentConfig())
    report, card = (
      files.parse_json((directory / name).read_text(encoding='utf-8'))
      for name in (codebook_files.REPORT, CARD)
    )
    if not (isinstance(report, dict) and isinstance(card, dict) and isinstance(card.get('models'), dict)):
      raise ValueError(f'{codebook_files.REPORT} or {CARD} is no object, or the latter has no models')
  except (OSError, ValueError, text_format.ParseError) as error:
    raise ArtefactError(f'{directory}: missing or damaged ({error}). {_REMEDY}') from None
  found = {name: np.array(files.load_array(directory / name)) for name in _ARRAYS}
  words = QuantisedWords(*(found[name] for name in _ARRAYS))
  _check(words, directory)
  projection = None
  if codebook_files.is_projected(config.codebook):
    matrices = np.array(files.load_array(directory / codebook_files.PROJECTIONS))
    found[codebook_files.PROJECTIONS] = matrices
    try:
      projection = Projection(matrices, words.kinds)
      if projection.dimensions != words.values.shape[1] or not np.isfinite(matrices).all():
        raise ValueError(f'projections {matrices.shape} for words {words.values.shape}, or not finite')
    except ValueError as error:
      raise ArtefactError(f'{directory}: damaged ({error}). {_REMEDY}') from None
  digest = hashlib.sha256(text.encode())
  for name, array in found.items():
    digest.update(f'{name} {array.dtype.str} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array).data)
  return PackagedCodebook(config, words, projection, report, card, digest.hexdigest()[:16])


def _check(words: QuantisedWords, directory: pathlib.Path) -> None:
  """Raises ArtefactError unless the arrays are of the forms that QuantisedWords says."""
  arrays = words.values, words.scales, words.offsets, words.kinds
  fits = (
    [array.dtype for array in arrays] == [np.int8, np.float32, np.float32, np.uint8]
    and words.values.ndim == words.scales.ndim == 2
    and 0 not in words.values.shape
    and words.scales.shape == words.offsets.shape
    and words.scales.shape[1] == words.values.shape[1]
    and words.kinds.shape == words.values.shape[:1]
    and words.kinds.max() < len(words.scales)
  )
  with np.errstate(over='ignore', invalid='ignore'):
    fits = fits and bool(np.isfinite(words.centroids).all())
  if not fits:
    found = ', '.join(f'{name} {a.dtype} {a.shape}' for name, a in zip(_ARRAYS, arrays, strict=True))
    raise ArtefactError(
      f'{directory}: files that do not fit each other or are not finite: {found}. {_REMEDY}'
    )
