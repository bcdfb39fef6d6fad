"""Rules of the training of detectors."""

import pytest

from delf_d2r import config
from delf_d2r.errors import ConfigError

DETECTORS = ('detector_tiny', 'retinanet_efficientnet_lite0', 'retinanet_resnet50', 'faster_rcnn_resnet50')


def load(*overrides):
  return config.load_or_default(None, ['detector_training'], overrides=overrides)


@pytest.mark.parametrize('name', DETECTORS)
def test_packaged_configs_are_valid(name):
  loaded = config.load(f'configs/detectors/{name}.pbtxt', ['detector_training'])
  assert loaded.name == name


@pytest.mark.parametrize(
  'override, message',
  [
    ('model { image_size: 300 }', 'must be a multiple of 64, for example 256 or 320'),
    ('model { image_size: 64 max_level: 7 }', 'multiple of 128, for example 128 or 256'),
    ('model { min_level: 5 max_level: 4 }', 'min_level 5 is above max_level 4'),
    ('model { aspect_ratios: [1, 0] }', 'all must be positive'),
    ('model { second_stage { convs: 1 } }', 'only with architecture: FASTER_RCNN'),
    ('model { backbone: RESNET50 backbone_weights: "imagenet" }', 'which only EFFICIENTNET_LITE0 has'),
    ('model { architecture: FASTER_RCNN } loss { focal_alpha: 0.5 }', r'only with model\.architecture: RET'),
    ('frozen_levels: 1', 'levels 2 to 5, 0 is none'),
    ('augmentation { min_scale: 2 }', 'min_scale is above max_scale'),
    ('augmentation { hue: 0.7 }', r'augmentation\.hue is 0\.7; it must be in \[0, 0\.5\]'),
    ('optimizer { momentum: 1 }', r'optimizer\.momentum is 1'),
    ('steps: 0', 'steps is 0; it must be at least 1'),
  ],
)
def test_contradictions_are_refused(override, message):
  with pytest.raises(ConfigError, match=message):
    load(f'detector_training {{ {override} }}')
