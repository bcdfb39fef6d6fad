"""Networks: the only room that imports TensorFlow."""
