"""Networks: the only package that imports TensorFlow at module level."""

import glob
import os

from delf_d2r.models import keras_on_demand

# Read when TensorFlow is imported. Its notices of how it was compiled help nobody, and without a GPU it
# reports the missing GPU as an error.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2' if glob.glob('/dev/nvidia[0-9]*') else '3')

keras_on_demand.defer()
