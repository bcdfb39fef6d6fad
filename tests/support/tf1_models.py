"""Writes graphs as SavedModels of TensorFlow 1."""

import tensorflow as tf


def save(session, path, found, *, outputs, moved, tag='serve') -> str:
  """Saves the graph of a session with named outputs; a variable with the value 0 is added to `moved`."""
  v1 = tf.compat.v1
  found[moved] += v1.get_variable('offset', [], initializer=v1.zeros_initializer())
  for name in outputs:
    tf.identity(found[name], name=name)
  session.run(v1.global_variables_initializer())
  builder = v1.saved_model.builder.SavedModelBuilder(str(path))
  builder.add_meta_graph_and_variables(session, [tag])
  builder.save()
  return str(path)
