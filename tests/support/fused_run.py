"""A finished run with fusion: an index of few RootSIFT features with region masks, and one of VLAD."""

import pytest

from delf_d2r import config
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.experiments import experiment

CONFIG = """
name: "fused"
regions { source: UNIFORM uniform { boxes_per_side: [2] } }
extraction { max_features: 120 max_image_size: 256 max_crop_size: 160 }
codebook { num_words: 128 iterations: 3 }
aggregation { regions: REGIONAL_AGGREGATION region_masks: true }
fusion {
  weight: 0.7
  extraction { max_features: 60 max_image_size: 160 max_crop_size: 160 }
  codebook { num_words: 1 iterations: 3 }
  aggregation { kernel: VLAD value_type: INT8 }
}
report { results_per_query: 3 max_queries: 3 matches: 2 }
"""


@pytest.fixture(scope='session')
def fused_dir(photos, tmp_path_factory):
  folder = tmp_path_factory.mktemp('fused')
  (folder / 'fused.pbtxt').write_text(CONFIG)
  dataset = Dataset.load(
    photos.images_dir, ground_truth=photos.ground_truth_path, query_images=photos.queries_dir
  )
  experiment.run(
    config.load(folder / 'fused.pbtxt', experiment.STAGES),
    dataset,
    folder / 'out',
    ground_truth=photos.ground_truth_path,
    options=experiment.Options(workers=1),
  )
  return folder / 'out'
