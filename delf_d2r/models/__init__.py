"""Networks: the only room that imports TensorFlow."""

import glob
import os

# Read when TensorFlow is imported. Its notices of how it was compiled help nobody, and without a GPU it
# reports as an error that there is none.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2' if glob.glob('/dev/nvidia[0-9]*') else '3')
