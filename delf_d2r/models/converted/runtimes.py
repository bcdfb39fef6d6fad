"""Runtimes that run a converted network: onnxruntime and OpenVINO, on the CPU."""

import importlib.util
import os
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from delf_d2r.errors import UserError
from delf_d2r.models.converted.network_file import ConvertedNetwork
from delf_d2r.protos import extraction_pb2, onnx_graph_pb2

Extraction = extraction_pb2.ExtractionConfig
# From float32 [B, 3, H, W] to the outputs in the order that was asked for.
Run = Callable[[np.ndarray], list[np.ndarray]]

# The Python packages of the runtimes.
PACKAGES = {Extraction.ONNXRUNTIME: 'onnxruntime', Extraction.OPENVINO: 'openvino'}
# Worker processes are given one thread each by this variable, whichever runtime they have.
_THREADS = 'TF_NUM_INTRAOP_THREADS'
_QUIET = 3


def is_installed(runtime: Extraction.Runtime) -> bool:
  """Returns whether the package of a runtime of PACKAGES is installed."""
  return importlib.util.find_spec(PACKAGES[runtime]) is not None


def open_network(
  network: ConvertedNetwork,
  outputs: Sequence[str],
  *,
  runtime: Extraction.Runtime,
  precision: Extraction.Precision,
) -> Run:
  """Returns the function that computes some outputs of a network.

  Args:
    network: the network; for INT8 it has been quantised (quantization.py).
    outputs: names of its outputs; what leads to no other is not computed.
    runtime: one of PACKAGES.
    precision: BFLOAT16 only with OPENVINO.

  Raises:
    UserError: the runtime is not installed or refuses the network.
  """
  package = PACKAGES[runtime]
  if not is_installed(runtime):
    raise UserError(
      f'extraction.runtime: {Extraction.Runtime.Name(runtime)} needs the package {package}. Install it (pip'
      f' install {package}), or set extraction.runtime: TENSORFLOW and extraction.precision: FLOAT32'
    )
  model = network.with_outputs(*outputs)
  open_runtime = _open_openvino if runtime == Extraction.OPENVINO else _open_onnxruntime
  try:
    return open_runtime(model, list(outputs), precision)
  except Exception as error:  # Each of their classes of errors is its own.
    raise UserError(
      f'{network.path}: {package} cannot run this network ({error}). Set extraction.runtime: TENSORFLOW, or'
      f' install another version of {package}'
    ) from error


def _open_onnxruntime(
  model: onnx_graph_pb2.OnnxModel, outputs: list[str], precision: Extraction.Precision
) -> Run:
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = num_threads()
  options.inter_op_num_threads = 1
  options.log_severity_level = _QUIET
  # Threads that wait for work without sleeping would take the CPU from the other half of a query.
  options.add_session_config_entry('session.intra_op.allow_spinning', '0')
  session = onnxruntime.InferenceSession(
    model.SerializeToString(), options, providers=['CPUExecutionProvider']
  )
  return lambda images: session.run(outputs, {'images': images})


def _open_openvino(
  model: onnx_graph_pb2.OnnxModel, outputs: list[str], precision: Extraction.Precision
) -> Run:
  import openvino

  wanted = 'bf16' if precision == Extraction.BFLOAT16 else 'f32'
  core = openvino.Core()
  compiled = core.compile_model(
    core.read_model(model.SerializeToString()),
    'CPU',
    {
      'INFERENCE_PRECISION_HINT': wanted,
      'INFERENCE_NUM_THREADS': num_threads(),
      'NUM_STREAMS': 1,
      'PERFORMANCE_HINT': 'LATENCY',
    },
  )
  if wanted == 'bf16' and 'BF16' not in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
    logging.log_first_n(
      logging.WARNING, 'extraction.precision: BFLOAT16: this CPU has none, and computes in float32', 1
    )
  request = compiled.create_infer_request()

  def run(images: np.ndarray) -> list[np.ndarray]:
    found = request.infer({'images': images})
    # The request's own memory is written again by the next call.
    return [np.array(found[name]) for name in outputs]

  return run


def num_threads() -> int:
  """Returns the threads of a network: those that the process was given, or all cores that it may use."""
  given = os.environ.get(_THREADS, '')
  return int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0))
