"""The published files in ../shared/data, with made weights where their own are missing.

They are not part of this project; tests that use them skip where the folder is absent.
"""

import pathlib
import shutil
from collections.abc import Callable

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
  mean, variances = (datum.read(source / f'pca/{name}.datum').ravel() for name in ('mean', 'pca_variances'))
  write_pca(folder, mean=mean, variances=variances)


def write_pca(folder: pathlib.Path, *, mean: np.ndarray, variances: np.ndarray) -> None:
  """Writes the PCA of that model with a made projection, mean and variances as rows [1, D]."""
  target = folder / 'parameters' / DELF / 'pca'
  target.mkdir(parents=True)
  rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(len(mean), len(mean))))[0]
  for name, array in {'mean': mean[None], 'pca_proj_mat': rotation, 'pca_variances': variances[None]}.items():
    datum.write(target / f'{name}.datum', array.astype(np.float32))


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


def detector_session(directory: pathlib.Path) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """Returns the function from uint8 [H, W, 3] to boxes [R, 4] and scores [R] of a session of a detector."""
  v1 = tf.compat.v1
  session = v1.Session(graph=tf.Graph())
  with session.graph.as_default():
    v1.saved_model.loader.load(session, ['serve'], str(directory))

  def run(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = ['detection_boxes:0', 'detection_scores:0', 'num_detections:0']
    boxes, scores, count = session.run(names, {'image_tensor:0': image[None]})
    return boxes[0, : int(count[0])], scores[0, : int(count[0])]

  return run
