"""Which runtime runs the network of an extractor: extraction.runtime and extraction.precision.

The model of the package has a converted form (models/converted/); all other models are TensorFlow's.
"""

import glob
import importlib.util

from delf_d2r.config.rules import extraction as rules
from delf_d2r.errors import UserError
from delf_d2r.extractors import registry
from delf_d2r.protos import extraction_pb2

Extraction = extraction_pb2.ExtractionConfig

_PACKAGES = {Extraction.ONNXRUNTIME: 'onnxruntime', Extraction.OPENVINO: 'openvino'}


def chosen(config: Extraction) -> Extraction.Runtime:
  """Returns the runtime of the network of a config; what AUTO chooses is the first that is installed.

  Raises:
    UserError: the runtime is not installed, or none that has the precision.
  """
  if config.runtime != Extraction.AUTO:
    if not _is_installed(config.runtime):
      package = _PACKAGES.get(config.runtime, 'tensorflow')
      raise UserError(
        f'extraction.runtime: {_name(config.runtime)} needs the package {package}. Install it (pip install'
        f' {package}), or set another extraction.runtime'
      )
    return config.runtime
  if config.precision == Extraction.FLOAT32 and (not registry.is_shipped_model(config) or _has_gpu()):
    return Extraction.TENSORFLOW
  for runtime in rules.RUNTIMES[config.precision]:
    if _is_installed(runtime):
      return runtime
  packages = ' or '.join(_PACKAGES[runtime] for runtime in rules.RUNTIMES[config.precision])
  raise UserError(
    f'extraction.precision: {Extraction.Precision.Name(config.precision)} needs the package {packages}.'
    ' Install one of them, or set extraction.precision: FLOAT32'
  )


def resolved(config: Extraction) -> Extraction:
  """Returns a config that names what AUTO chooses, as artefacts record it; others as they are.

  Raises:
    UserError: as `chosen` does.
  """
  if config.runtime == Extraction.TENSORFLOW:
    return config
  named = Extraction()
  named.CopyFrom(config)
  named.runtime = chosen(config)
  if named.runtime == Extraction.TENSORFLOW:
    # As if it had never been asked for: the features are those of such a config.
    named.ClearField('runtime')
  return named


def _is_installed(runtime: Extraction.Runtime) -> bool:
  package = _PACKAGES.get(runtime, 'tensorflow')
  return importlib.util.find_spec(package) is not None


def _has_gpu() -> bool:
  return bool(glob.glob('/dev/nvidia[0-9]*'))


def _name(runtime: Extraction.Runtime) -> str:
  return Extraction.Runtime.Name(runtime)
