"""The published files in ../shared/data, with made weights where their own are missing.

They are not part of this project; tests that use them skip where the folder is absent.
"""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from delf_d2r.data.legacy import datum

PUBLISHED = pathlib.Path(__file__).resolve().parents[3] / 'shared/data/published'
needs_published = pytest.mark.skipif(
  not PUBLISHED.is_dir(), reason='../shared/data/published is not beside the checkout'
)

DELF = 'delf_gld_20190411'
_OUTPUTS = ('boxes', 'features', 'scales', 'scores')


def write_delf(folder: pathlib.Path) -> None:
  """Writes `parameters/delf_gld_20190411`, where the published configs expect the model and its PCA.

  The graph, the mean and the variances are the published ones. The weights and the projection are made: of
  the published names and shapes, with attention on both sides of the threshold of the configs, 100.
  """
  source, target = PUBLISHED / DELF, folder / 'parameters' / DELF
  (target / 'model/variables').mkdir(parents=True)
  (target / 'pca').mkdir()
  shutil.copyfile(source / 'model/saved_model.pb', target / 'model/saved_model.pb')
  shapes = tf.train.load_checkpoint(str(source / 'model/variables/variables')).get_variable_to_shape_map()
  generator = np.random.default_rng(0)
  weights = {name: _made(name, shapes[name], generator) for name in sorted(shapes)}
  tf.raw_ops.SaveV2(
    prefix=str(target / 'model/variables/variables'),
    tensor_names=list(weights),
    shape_and_slices=[''] * len(weights),
    tensors=list(weights.values()),
  )
  for name in ('mean', 'pca_variances'):
    shutil.copyfile(source / f'pca/{name}.datum', target / f'pca/{name}.datum')
  rotation = np.linalg.qr(generator.normal(size=(1024, 1024)))[0]
  datum.write(target / 'pca/pca_proj_mat.datum', rotation.astype(np.float32))


def _made(name: str, shape: list[int], generator: np.random.Generator) -> np.ndarray:
  if name.endswith('attention/compute/conv2/biases'):
    values = np.full(shape, 100.0)
  elif name.endswith('weights'):
    values = generator.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
  elif name.endswith(('gamma', 'moving_variance')):
    values = generator.uniform(0.8, 1.2, shape)
  else:
    values = generator.normal(0, 0.1, shape)
  return values.astype(np.float32)


class DelfSession:
  """A TF1 session of a DELF model, as the extractor of the tensorflow/models DELF code has it."""

  def __init__(self, directory: pathlib.Path):
    v1 = tf.compat.v1
    self._session = v1.Session(graph=tf.Graph())
    with self._session.graph.as_default():
      v1.saved_model.loader.load(self._session, ['serve'], str(directory))

  def __call__(self, image: np.ndarray, scales, *, threshold: float, max_features: int) -> dict:
    """Returns the outputs by their names."""
    values = self._session.run(
      [f'{name}:0' for name in _OUTPUTS],
      {
        'input_image:0': image,
        'input_scales:0': scales,
        'input_abs_thres:0': threshold,
        'input_max_feature_num:0': max_features,
      },
    )
    return dict(zip(_OUTPUTS, values, strict=True))
