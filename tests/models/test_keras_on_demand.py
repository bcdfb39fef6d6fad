import subprocess
import sys


def run(code):
  subprocess.run([sys.executable, '-c', code], check=True)


def test_running_a_saved_model_imports_no_keras_which_is_there_when_it_is_used():
  run("""
import sys
from delf_d2r.models.saved_models import detections
heavy = {'keras.src', 'tf_keras', 'tensorflow_hub', 'official', 'sklearn', 'matplotlib', 'pandas'}
assert 'tensorflow' in sys.modules
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import tensorflow as tf
layer = tf.keras.layers.Dense(1, kernel_initializer='ones')
assert layer(tf.ones((1, 3))).numpy().item() == 3
import keras
from keras import layers
assert isinstance(layer, layers.Dense)
""")


def test_keras_may_be_imported_first():
  run("""
import delf_d2r.models
import keras
import tensorflow as tf
assert tf.keras.layers.Dense is keras.layers.Dense
""")
