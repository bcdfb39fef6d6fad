"""A Ray cluster of two nodes on this machine's loopback address, and photos to work on."""

import os

# Read when Ray is imported: one machine alone, whose servers listen on the loopback address; no statistics.
os.environ.setdefault('RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER', '0')
os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')

import cv2
import pytest
from support import clusters, processes
from support.synthetic_photos import texture

from delf_d2r import config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.stages import aggregate_features, extract_features, train_codebook

CONFIG = """
  extraction { max_features: 40 images_per_shard: 4 root_sift { contrast_threshold: 0.01 } }
  codebook { num_words: 16 iterations: 3 }
  aggregation { images_per_shard: 8 }
"""
PHOTOS = 32


@pytest.fixture(scope='session')
def nodes():
  """The cluster; this process is connected to it."""
  ray = pytest.importorskip('ray', reason='Ray, the extra `cluster`, is not installed')
  from ray.cluster_utils import Cluster

  cluster = Cluster(initialize_head=True, head_node_args={**clusters.NODE, 'include_dashboard': False})
  cluster.add_node(**clusters.NODE)
  ray.init(address=cluster.address, log_to_driver=False, logging_level='ERROR')
  # Workers do not find the modules of tests.
  for module in (clusters, processes):
    ray.cloudpickle.register_pickle_by_value(module)
  yield cluster
  ray.shutdown()
  cluster.shutdown()


@pytest.fixture(scope='session')
def pool(nodes):
  from delf_d2r.distributed import cluster

  return cluster.pool(nodes.address)


@pytest.fixture(scope='session')
def settings():
  return config.load_or_default(None, ['extraction', 'codebook', 'aggregation'], overrides=[CONFIG])


@pytest.fixture(scope='session')
def dataset(tmp_path_factory):
  folder = tmp_path_factory.mktemp('photos')
  for number in range(PHOTOS):
    cv2.imwrite(str(folder / f'{number:02d}.png'), texture(96, 128, seed=number))
  return Dataset.load(folder)


@pytest.fixture(scope='session')
def undisturbed(settings, dataset, tmp_path_factory):
  """What one process of this machine makes: its features, codebook and descriptors; tests only read them."""
  folder = tmp_path_factory.mktemp('undisturbed')
  features = extract_features.run(settings, dataset, folder / 'features', boxes=None, workers=1)
  codebook = train_codebook.run(settings, features, folder / 'codebook')
  aggregate_features.run(settings, features, codebook, folder / 'descriptors', workers=1)
  return folder
