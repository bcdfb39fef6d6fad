"""Conversion between artefacts and files of the tensorflow/models DELF code and of hloc."""
