"""The kind of a SavedModel and the tensors of its graph, read from `saved_model.pb`; and how it is loaded.

TensorFlow refuses damaged variables by their checksums. A graph has none: nearly all damage to it is refused
by some exception, but a graph changed on purpose can end the process. Load models from sources you trust.
"""

import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import log_suppression


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


def load(directory: str) -> Any:
  """Loads the graph with the tag `serve` and its variables, without needless warnings."""
  with log_suppression.without_reference_variables():
    return tf.saved_model.load(directory, tags=['serve'])


def prune(loaded: Any, feeds: str | Sequence[str], fetches: str | Sequence[str]) -> Callable[..., Any]:
  """Returns the function from some tensors of a loaded graph of TensorFlow 1, in order, to others."""
  with log_suppression.without_reference_variables():
    function: Callable[..., Any] = loaded.prune(feeds, fetches)
    return function


def is_tf1(graph: meta_graph_pb2.MetaGraphDef) -> bool:
  """Returns whether TensorFlow 1 wrote it: it has no objects, only names of tensors."""
  return not graph.HasField('object_graph_def')


def find_tensors(
  graph: meta_graph_pb2.MetaGraphDef, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, str]:
  """Returns the tensors of a graph of TensorFlow 1 by their meaning, such as 'boxes' to 'tower/boxes:0'.

  A signature that has all required ones says which they are. Without one, nodes of these names are taken;
  they may have a prefix in common.

  Args:
    graph: the graph.
    required: names of inputs or outputs.
    optional: further ones, which may be missing.

  Raises:
    MissingTensorsError: some are missing, or nodes with several prefixes have these names.
  """
  names, nodes = (*required, *optional), {node.name for node in graph.graph_def.node}
  for signature in signatures(graph):
    tensors = {
      name: info.name for side in (signature.inputs, signature.outputs) for name, info in side.items()
    }
    if tensors.keys() >= set(required):
      folder = _node_of(tensors[required[0]]).rpartition('/')[0]
      return _of_prefix(nodes, f'{folder}/' if folder else '', names) | {
        name: tensors[name] for name in names if name in tensors
      }
  ends = {node.removesuffix(name) for node in nodes for name in required if f'/{node}'.endswith(f'/{name}')}
  lacks = {prefix: [name for name in required if prefix + name not in nodes] for prefix in {'', *ends}}
  prefixes = sorted(prefix for prefix, missing in lacks.items() if not missing)
  if not prefixes:
    raise MissingTensorsError(min((lacks[prefix] for prefix in sorted(lacks)), key=len))
  if len(prefixes) > 1 and '' not in prefixes:
    raise MissingTensorsError(required, prefixes)
  return _of_prefix(nodes, prefixes[0], names)


class MissingTensorsError(Exception):
  """Tensors that a graph lacks, or has under several prefixes.

  Attributes:
    names: of the tensors.
    prefixes: with which the graph has all of them, if more than one.
  """

  def __init__(self, names: Sequence[str], prefixes: Sequence[str] = ()) -> None:
    several = f' under one prefix alone; it has them under {", ".join(prefixes)}' if prefixes else ''
    super().__init__(f'{", ".join(names)}{several}')
    self.names, self.prefixes = names, prefixes


def signatures(graph: meta_graph_pb2.MetaGraphDef) -> Iterator[meta_graph_pb2.SignatureDef]:
  """Yields the signatures of a graph, `serving_default` first, the others by name."""
  for key in sorted(graph.signature_def, key=lambda key: (key != 'serving_default', key)):
    yield graph.signature_def[key]


def _of_prefix(nodes: set[str], prefix: str, names: Iterable[str]) -> dict[str, str]:
  return {name: f'{prefix}{name}:0' for name in names if prefix + name in nodes}


def placeholders_of(graph: meta_graph_pb2.MetaGraphDef, tensors: Iterable[str]) -> list[Any]:
  """Returns the nodes without a value that some tensors of a graph depend on, by name."""
  nodes = {node.name: node for node in graph.graph_def.node}
  waiting, seen, found = [_node_of(tensor) for tensor in tensors], set(), {}
  while waiting:
    name = waiting.pop()
    if name in seen or name not in nodes:
      continue
    seen.add(name)
    if nodes[name].op == 'Placeholder':
      found[name] = nodes[name]
    waiting += map(_node_of, nodes[name].input)
  return [found[name] for name in sorted(found)]


def _node_of(tensor: str) -> str:
  """Returns the node of a tensor `node:0` or of an input of a node, `node`, `node:1` or `^node`."""
  return tensor.removeprefix('^').partition(':')[0]


def signatures_text(graph: meta_graph_pb2.MetaGraphDef) -> str:
  """Returns a sentence for error messages: the signatures of the model."""
  signatures = {
    key: f'{sorted(value.inputs)} -> {sorted(value.outputs)}'
    for key, value in graph.signature_def.items()
    if not key.startswith('__')
  }
  return f'Its signatures are {signatures or "none"}'
