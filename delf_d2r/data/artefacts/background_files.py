"""A background model on disk: what scores a query has with images that show something else.

background.pbtxt              how it was made: extraction, codebook and aggregation of the local descriptors
                              and, in its part `fusion`, those of the global ones
background.json               number of images, digest of the codebook, fingerprints of the networks of the
                              global descriptors, whether scores are divided by norms
presence.npy                  float32 [K], P_k of kernels/background.py
square_presence.npy           float32 [K], Q_k
similarities.npy              float16 [K], m_k
square_similarities.npy       float16 [K], t_k
global_mean.npy               float32 [D]
global_deviations.npy         float32 [D]
global_correlations.npy       float16 [D (D - 1) / 2], those above the diagonal, row by row

The artefact of train_background has a manifest beside these files; that of the package has none.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping

import numpy as np
from google.protobuf import text_format

from delf_d2r.data import files
from delf_d2r.errors import ArtefactError
from delf_d2r.extractors.registry import PACKAGED_MODELS
from delf_d2r.kernels.background import DescriptorStatistics, WordStatistics
from delf_d2r.protos.experiment_pb2 import ExperimentConfig

KIND = 'background'
# The background model that comes with the package.
SHIPPED = PACKAGED_MODELS / 'default_background'
CONFIG = 'background.pbtxt'
FACTS = 'background.json'
_WORDS = ('presence', 'square_presence', 'similarities', 'square_similarities')
_GLOBAL = ('global_mean', 'global_deviations', 'global_correlations')
_DTYPES = {
  'presence': np.float32,
  'square_presence': np.float32,
  'similarities': np.float16,
  'square_similarities': np.float16,
  'global_mean': np.float32,
  'global_deviations': np.float32,
  'global_correlations': np.float16,
}
# The least and the largest value of each; correlations are rounded.
_BOUNDS = {
  'presence': (0, 1),
  'square_presence': (0, 1),
  'similarities': (-1, 1),
  'square_similarities': (0, 1),
  'global_mean': (-1e6, 1e6),
  'global_deviations': (0, 1e6),
  'global_correlations': (-1.001, 1.001),
}


@dataclasses.dataclass(frozen=True)
class Background:
  """A background model.

  Attributes:
    config: how it was made.
    words: statistics of the visual words of local features.
    descriptors: statistics of global descriptors.
    codebook: digest of the codebook; see codebook_files.
    models: fingerprints of the networks of the global descriptors by role.
    num_images: number of background images.
  """

  config: ExperimentConfig
  words: WordStatistics
  descriptors: DescriptorStatistics
  codebook: str
  models: Mapping[str, str]
  num_images: int


def save(background: Background, directory: pathlib.Path) -> None:
  """Writes a background model into an existing folder."""
  words, descriptors = background.words, background.descriptors
  deviations = np.sqrt(np.maximum(np.diag(descriptors.covariance), 0))
  divisors = np.where(deviations > 0, deviations, 1)
  correlations = descriptors.covariance / divisors[:, None] / divisors
  arrays = {
    'presence': words.presence,
    'square_presence': words.square_presence,
    'similarities': words.means,
    'square_similarities': words.square_means,
    'global_mean': descriptors.mean,
    'global_deviations': deviations,
    'global_correlations': correlations[np.triu_indices(len(correlations), 1)],
  }
  for name, array in arrays.items():
    files.save_array(directory / f'{name}.npy', array.astype(_DTYPES[name]))
  facts = {
    'images': background.num_images,
    'codebook': background.codebook,
    'models': dict(background.models),
    'normalize': words.normalize,
  }
  files.write_atomically(directory / FACTS, json.dumps(facts, indent=1) + '\n')
  files.write_atomically(directory / CONFIG, text_format.MessageToString(background.config, as_utf8=True))


def load(directory: pathlib.Path) -> Background:
  """Reads a background model.

  Raises:
    ArtefactError: a file is missing, damaged or does not fit the others.
  """
  try:
    text = (directory / CONFIG).read_text(encoding='utf-8')
    config = text_format.Parse(text, ExperimentConfig())
    facts = files.parse_json((directory / FACTS).read_text(encoding='utf-8'))
    models = {str(role): str(found) for role, found in facts['models'].items()}
    codebook, normalize = str(facts['codebook']), bool(facts['normalize'])
    num_images = int(facts['images'])
  except (OSError, ValueError, KeyError, TypeError, AttributeError, text_format.ParseError) as error:
    raise ArtefactError(
      f'{directory}: no background model, or damaged ({error}). {_remedy(directory)}'
    ) from None
  arrays = {name: np.array(files.load_array(directory / f'{name}.npy')) for name in (*_WORDS, *_GLOBAL)}
  _check(arrays, directory)
  presence, square_presence, means, square_means = (arrays[name].astype(np.float32) for name in _WORDS)
  words = WordStatistics(presence, square_presence, means, square_means, normalize)
  mean, deviations, above = (arrays[name].astype(np.float32) for name in _GLOBAL)
  correlations = np.eye(len(mean), dtype=np.float32)
  rows, columns = np.triu_indices(len(mean), 1)
  correlations[rows, columns] = correlations[columns, rows] = above
  covariance = correlations * deviations[:, None] * deviations
  return Background(config, words, DescriptorStatistics(mean, covariance), codebook, models, num_images)


def digest(directory: pathlib.Path) -> str:
  """Returns a digest of the files of a background model.

  Raises:
    ArtefactError: a file is missing.
  """
  found = hashlib.sha256()
  for name in (CONFIG, FACTS, *(f'{name}.npy' for name in (*_WORDS, *_GLOBAL))):
    try:
      data = (directory / name).read_bytes()
    except OSError as error:
      raise ArtefactError(
        f'{directory / name}: no background model, or damaged ({error.strerror}). {_remedy(directory)}'
      ) from None
    found.update(name.encode() + len(data).to_bytes(8, 'little') + data)
  return found.hexdigest()[:16]


def _check(arrays: Mapping[str, np.ndarray], directory: pathlib.Path) -> None:
  """Raises ArtefactError unless the arrays are of the forms of the table above, and within their bounds."""
  size = len(arrays['global_mean']) if arrays['global_mean'].ndim else 0
  shapes = {name: (len(arrays['presence']) if arrays['presence'].ndim else 0,) for name in _WORDS}
  shapes |= {'global_mean': (size,), 'global_deviations': (size,)}
  shapes['global_correlations'] = (size * (size - 1) // 2,)
  for name, array in arrays.items():
    low, high = _BOUNDS[name]
    # Written so that NaN is out of bounds.
    fits = array.dtype == _DTYPES[name] and array.shape == shapes[name]
    if not fits or not ((array >= low) & (array <= high)).all():
      raise ArtefactError(
        f'{directory / name}.npy: expected {np.dtype(_DTYPES[name])} {shapes[name]} from {low:g} to {high:g},'
        f' found {array.dtype} {array.shape}{" with other values" if fits else ""}. {_remedy(directory)}'
      )


def _remedy(directory: pathlib.Path) -> str:
  if directory == SHIPPED:
    return (
      'Install the package again; or train one by d2r train_background and name it by fusion.background_path;'
      ' or set fusion.normalization: Z_SCORE'
    )
  return f'Delete {directory} and run train_background again'
