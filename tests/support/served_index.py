"""Fixtures: a server on the loopback interface with a small index of real photos."""

import httpx
import pytest

from delf_d2r import config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.engine import SearchEngine
from delf_d2r.experiments import experiment
from delf_d2r.serving.app import create_app
from delf_d2r.serving.options import Options
from support.servers import serving

SMALL_CONFIG = """
name: "small"
regions { source: UNIFORM uniform { boxes_per_side: [2] } }
extraction { max_features: 200 max_image_size: 320 max_crop_size: 320 }
codebook { num_words: 256 iterations: 5 }
aggregation { kernel: ASMK_STAR regions: REGIONAL_AGGREGATION }
"""


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
  return mini_benchmark.generate(
    tmp_path_factory.mktemp('serving') / 'photos', seed=2, scenes_per_object=2, num_distractors=2
  )


@pytest.fixture(scope='session')
def index_dir(photos, tmp_path_factory):
  folder = tmp_path_factory.mktemp('serving-index')
  (folder / 'small.pbtxt').write_text(SMALL_CONFIG)
  experiment.run(
    config.load(folder / 'small.pbtxt', experiment.STAGES),
    Dataset.load(photos.images_dir),
    folder / 'out',
    options=experiment.Options(workers=1),
  )
  return folder / 'out'


@pytest.fixture(scope='session')
def engine(index_dir):
  return SearchEngine.load(index_dir)


@pytest.fixture(scope='session')
def query_path(photos):
  """Returns the photo of an object that the index shows."""
  return photos.queries_dir / 'astronaut.jpg'


@pytest.fixture(scope='session')
def address(engine):
  options = Options(max_upload_bytes=3_000_000, max_megapixels=20, max_results=12)
  with serving(create_app(engine, options)) as address:
    yield address


@pytest.fixture(scope='session')
def client(address):
  with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
    yield client
