"""Writes graphs as SavedModels of TensorFlow 1."""

import tensorflow as tf


def save(session, path, found, *, outputs, moved, tag='serve', signatures=None, variable='offset') -> str:
  """Saves the graph of a session with named outputs; a variable of the value 0 is added to `moved`.

  The variable is a reference variable, as those of TensorFlow 1 are. `signatures` returns them of the graph.
  """
  v1 = tf.compat.v1
  found[moved] += v1.get_variable(variable, [], initializer=v1.zeros_initializer(), use_resource=False)
  for name in outputs:
    tf.identity(found[name], name=name)
  session.run(v1.global_variables_initializer())
  builder = v1.saved_model.builder.SavedModelBuilder(str(path))
  builder.add_meta_graph_and_variables(
    session, [tag], signature_def_map=signatures(session.graph) if signatures else None
  )
  builder.save()
  return str(path)
