"""The mathematics of the method on NumPy arrays: no files, no protos, no TensorFlow."""
