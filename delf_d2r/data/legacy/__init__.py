"""File formats of the tensorflow/models DELF code, read and written."""
