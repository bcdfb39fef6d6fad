"""The kind of a SavedModel, read from its `saved_model.pb` without loading it.

TensorFlow refuses damaged variables by their checksums. A graph has none: nearly all damage to it is refused
by some exception, but a graph changed on purpose can end the process. Load models from sources you trust.
"""

import os
import pathlib
import warnings
from collections.abc import Callable

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from delf_d2r.errors import UserError


def load_by_form(path: str, load_tf1: Callable, load_tf2: Callable):
  """Loads a SavedModel with the function for the TensorFlow that wrote it.

  Args:
    path: a directory, or a handle of TensorFlow Hub.
    load_tf1, load_tf2: called with `path`, its directory and its graph.

  Raises:
    UserError: nothing is there, it is damaged, or the function raises it.
  """
  directory = directory_of(path)
  graph = read_graph(directory)
  try:
    return (load_tf1 if is_tf1(graph) else load_tf2)(path, directory, graph)
  except UserError:
    raise
  except Exception as error:  # A damaged graph or variable raises nearly any exception.
    raise UserError(
      f'{path}: TensorFlow cannot use this SavedModel ({type(error).__name__}: {_reason(error)}).'
      ' It is damaged or incomplete; fetch or export it again'
    ) from error


def _reason(error: Exception) -> str:
  """Returns the reason in an error of TensorFlow, without the trace of the graph around it."""
  lines = [line for line in str(error).splitlines() if line.strip()]
  # The last line of an error of execution names the graph's function.
  reasons = [line for line in lines if not line.startswith(('Graph execution error', 'Detected at node'))]
  return (reasons or lines or ['no reason given'])[0].strip().rstrip('.')


def directory_of(path: str) -> str:
  """Returns the directory of a SavedModel: `path` itself, or the copy of TensorFlow Hub if it is a handle.

  Raises:
    UserError: there is no SavedModel, or `path` is no handle either.
  """
  if (pathlib.Path(path) / 'saved_model.pb').is_file():
    return path
  if pathlib.Path(path).exists():
    raise UserError(f'{path}: no SavedModel, for it has no file saved_model.pb')
  try:
    # It imports pkg_resources, which warns that it is deprecated.
    with warnings.catch_warnings(action='ignore'):
      import tensorflow_hub
  except ImportError:
    raise UserError(
      f'{path}: no such directory. If it is a handle of TensorFlow Hub, install tensorflow-hub first'
    ) from None
  try:
    return os.fspath(tensorflow_hub.resolve(path))
  except Exception as error:  # Each of its resolvers raises errors of its own.
    raise UserError(
      f'{path}: neither a directory nor a handle that TensorFlow Hub resolves ({error})'
    ) from None


def read_graph(directory: str) -> meta_graph_pb2.MetaGraphDef:
  """Returns the graph with the tag `serve`, the one that inference uses.

  Raises:
    UserError: the file is damaged or has no such graph.
  """
  path = pathlib.Path(directory, 'saved_model.pb')
  try:
    graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
  except DecodeError as error:
    raise UserError(f'{path}: damaged ({error}); fetch or export it again') from None
  serving = [graph for graph in graphs if 'serve' in graph.meta_info_def.tags]
  if not serving:
    tags = [list(graph.meta_info_def.tags) for graph in graphs]
    raise UserError(f'{directory}: expected a SavedModel with the tag serve, found tags {tags}')
  return serving[0]


def is_tf1(graph: meta_graph_pb2.MetaGraphDef) -> bool:
  """Returns whether TensorFlow 1 wrote it: it has no objects, only names of tensors."""
  return not graph.HasField('object_graph_def')


def signatures_text(graph: meta_graph_pb2.MetaGraphDef) -> str:
  """Returns a sentence for error messages: the signatures of the model."""
  signatures = {
    key: f'{sorted(value.inputs)} -> {sorted(value.outputs)}'
    for key, value in graph.signature_def.items()
    if not key.startswith('__')
  }
  return f'Its signatures are {signatures or "none"}'
