"""Features of fewer boxes are those that extraction gives for fewer boxes."""

import numpy as np
import pytest
from PIL import Image

from delf_d2r import config as configs
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.errors import ArtefactError
from delf_d2r.stages import detect_boxes, extract_features, limit_regions

BOXES = """image,ymin,xmin,ymax,xmax,score
a.png,0,0,0.5,0.5,0.3
a.png,0.1,0,0.9,0.8,0.9
a.png,0.1,0.1,0.9,0.8,0.8
a.png,0.5,0.5,1,1,0.2
b.png,0,0,1,0.5,0.25
"""


@pytest.fixture
def dataset(tmp_path):
  (tmp_path / 'photos').mkdir()
  generator = np.random.default_rng(0)
  for name in ('a', 'b', 'c'):
    coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((160, 120)).save(tmp_path / 'photos' / f'{name}.png')
  (tmp_path / 'boxes.csv').write_text(BOXES)
  return Dataset.load(tmp_path / 'photos')


def config(tmp_path, *limits):
  overrides = [f'regions {{ source: FILE file_path: "{tmp_path / "boxes.csv"}" }}']
  overrides += [f'regions {{ {limit} }}' for limit in limits]
  overrides.append('extraction { images_per_shard: 2 root_sift { contrast_threshold: 0.01 } }')
  return configs.load_or_default(None, ['regions', 'extraction'], overrides=overrides)


def made(tmp_path, dataset, name, *limits):
  changed = config(tmp_path, *limits)
  boxes = detect_boxes.run(changed, dataset, tmp_path / f'{name}_boxes')
  return boxes, extract_features.run(changed, dataset, tmp_path / f'{name}_features', boxes=boxes, workers=1)


@pytest.mark.parametrize(
  'limits', [['min_score: 0.25'], ['max_overlap: 0.5'], ['max_boxes: 1'], ['min_area: 0.4'], []]
)
def test_the_same_as_extraction(tmp_path, dataset, limits):
  boxes, features = made(tmp_path, dataset, 'all')
  _, expected = made(tmp_path, dataset, 'fewer', *limits)
  found = limit_regions.run(config(tmp_path, *limits), features, boxes, tmp_path / 'limited')
  assert list(found.records()) == list(expected.records())
  assert found.counts == expected.counts
  assert found.config == expected.config
  assert found.input('images') == expected.input('images')


def test_the_whole_image_stays(tmp_path, dataset):
  boxes, features = made(tmp_path, dataset, 'all')
  found = limit_regions.run(config(tmp_path, 'min_score: 1'), features, boxes, tmp_path / 'limited')
  assert (found.counts['regions'], found.counts['features']) == (3, features.counts['whole_features'])


def test_a_stopped_run_goes_on(tmp_path, dataset, monkeypatch):
  boxes, features = made(tmp_path, dataset, 'all')
  changed = config(tmp_path, 'min_score: 0.25')
  monkeypatch.setattr(limit_regions, '_IMAGES_PER_SHARD', 1)
  encode = limit_regions.records.encode_features
  seen = []

  def stopping(image):
    seen.append(image.name)
    if len(seen) == 2:
      raise KeyboardInterrupt
    return encode(image)

  monkeypatch.setattr(limit_regions.records, 'encode_features', stopping)
  with pytest.raises(KeyboardInterrupt):
    limit_regions.run(changed, features, boxes, tmp_path / 'limited')
  found = limit_regions.run(changed, features, boxes, tmp_path / 'limited')
  assert seen == ['a.png', 'b.png', 'b.png', 'c.png']
  expected = limit_regions.run(changed, features, boxes, tmp_path / 'again')
  assert list(found.records()) == list(expected.records())


def test_features_of_other_boxes_are_refused(tmp_path, dataset):
  _, features = made(tmp_path, dataset, 'all')
  boxes, _ = made(tmp_path, dataset, 'fewer', 'max_boxes: 1')
  with pytest.raises(ArtefactError, match=r'was extracted with boxes .*Give the boxes that belong to'):
    limit_regions.run(config(tmp_path), features, boxes, tmp_path / 'limited')
