"""Writing a graph as TensorFlow 1 wrote SavedModels."""

import tensorflow as tf


def save(session, path, found, *, outputs, moved, tag='serve') -> str:
  """Saves a session's graph: named outputs, and a variable (zero) that is added to the one called `moved`."""
  v1 = tf.compat.v1
  found[moved] += v1.get_variable('offset', [], initializer=v1.zeros_initializer())
  for name in outputs:
    tf.identity(found[name], name=name)
  session.run(v1.global_variables_initializer())
  builder = v1.saved_model.builder.SavedModelBuilder(str(path))
  builder.add_meta_graph_and_variables(session, [tag])
  builder.save()
  return str(path)
