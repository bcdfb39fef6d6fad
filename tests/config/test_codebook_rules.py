"""The rules of codebooks: projections and bits."""

import pytest

from delf_d2r import config
from delf_d2r.errors import ConfigError

STAGES = ('extraction', 'codebook', 'aggregation')


def load(*overrides):
  return config.load_or_default(None, STAGES, overrides=overrides)


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('codebook.bits: 60', r'bits is 60; it must be a multiple of 8\. Set it to 64'),
    ('codebook.bits: -8', 'bits is -8; it must be in'),
    ('codebook { projection { kinds: ITQ kinds: NONE } }', 'has 2 values, but .*ROOT_SIFT has 1 kinds'),
    ('codebook { projection { kinds: NONE } } extraction { extractor: ROOT_SIFT_AND_DELF }', ''),
    (
      'codebook { projection { kinds: [1, 0, 3] } } extraction { extractor: ROOT_SIFT_AND_DELF }',
      'has 2 kinds',
    ),
    ('codebook { projection { seed: -1 } }', 'seed is -1'),
    ('codebook { source: ORIGIN num_words: 1 bits: 8 }', 'bits has an effect only with visual words'),
    ('codebook { bits: 64 } aggregation { kernel: VLAD }', r'bits has an effect only with .*, found VLAD'),
    ('codebook { projection { kinds: ITQ } } aggregation { kernel: ASMK }', r'projection has .*, found ASMK'),
    ('codebook { projection { kinds: NONE } } aggregation { kernel: ASMK }', ''),
  ],
)
def test_rules(override, message):
  if not message:
    load(override)
    return
  with pytest.raises(ConfigError, match=message):
    load(override)


def test_configs_without_projection_are_what_they_were():
  text = config.to_text(load())
  assert 'bits' not in text
  assert 'projection' not in text
