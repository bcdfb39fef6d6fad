"""Rules of patches, activation regions, networks without training, fusion and whitening."""

import pytest

from delf_d2r import config
from delf_d2r.errors import ConfigError
from delf_d2r.experiments import experiment

FUSION = """fusion {
  extraction { extractor: GLOBAL }
  codebook { source: ORIGIN num_words: 1 }
  aggregation { kernel: VLAD }
}"""
NETWORK = 'attention: L2_NORM reduced_dimensions: 0 backbone_weights: "imagenet"'


def load(*overrides):
  return config.load_or_default(None, [*experiment.STAGES, 'whitening'], overrides=overrides)


@pytest.mark.parametrize(
  'changes',
  [
    ['extraction { extractor: PATCHES patches { model_path: "x.onnx" } root_sift { upright: true } }'],
    ['extraction { extractor: DELF delf { network { smoothing: 3 ' + NETWORK + ' } } }'],
    ['verification { matching: SAME_CHANNEL extraction { extractor: ACTIVATION_REGIONS } }'],
    ['verification { extraction { extractor: DELF } }'],
    [FUSION],
    [FUSION, 'fusion.aggregation.value_type: INT8'],
    [FUSION, 'fusion { normalization: BACKGROUND background_path: "b" power: 2 }'],
    [FUSION, 'fusion.power: 1'],
    [
      FUSION,
      'regions { source: UNIFORM uniform { boxes_per_side: [2] } }',
      'fusion.aggregation.regions: REGIONAL_SEARCH',
    ],
    ['whitening.shrinkage: 0'],
  ],
)
def test_legal(changes):
  load(*changes)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (['extraction.extractor: PATCHES'], r'patches\.model_path is empty'),
    (
      ['extraction { extractor: PATCHES patches { model_path: "x" patch_size: 2 } }'],
      r'patch_size is 2; it must be in \[4, 512\]',
    ),
    (
      ['extraction { extractor: PATCHES patches { model_path: "x" magnification: 0 } }'],
      'magnification is 0; it must be in',
    ),
    (['extraction.patches { model_path: "x" }'], 'patches has an effect only with .*, found ROOT_SIFT'),
    (
      ['extraction { extractor: PATCHES patches { model_path: "x" } region_features: SHARED_FEATURE_MAP }'],
      'but PATCHES has no feature maps',
    ),
    (['extraction.activation_regions { }'], 'activation_regions has an effect only with .*, found ROOT_SIFT'),
    (
      ['extraction.extractor: ACTIVATION_REGIONS'],
      'no descriptors to search with. Set verification.extraction',
    ),
    (
      ['extraction { extractor: DELF delf { model_path: "x" network { ' + NETWORK + ' } } }'],
      'both model_path and network',
    ),
    (
      ['extraction { extractor: DELF delf { network { backbone_weights: "imagenet" } } }'],
      r'parts that need training \(attention LEARNED, reduced_dimensions 128\)',
    ),
    (
      ['extraction { extractor: DELF delf { network { smoothing: 2 ' + NETWORK + ' } } }'],
      'smoothing is 2; it must be odd',
    ),
    (
      ['extraction { extractor: DELF delf { network { attention: L2_NORM reduced_dimensions: 0 } } }'],
      r'network\.backbone_weights is empty',
    ),
    (['verification { extraction { extractor: ACTIVATION_REGIONS } }'], 'Set matching: SAME_CHANNEL'),
    (
      ['verification.matching: SAME_CHANNEL'],
      'matching has an effect only with extraction .*, found ROOT_SIFT',
    ),
    (
      ['verification { matching: SAME_CHANNEL ratio: 0.8 extraction { extractor: ACTIVATION_REGIONS } }'],
      'ratio has an effect only with matching: DESCRIPTORS',
    ),
    (
      ['verification { matching: SAME_CHANNEL compat: true extraction { extractor: ACTIVATION_REGIONS } }'],
      'compat matches descriptors',
    ),
    (
      [
        'verification { matching: SAME_CHANNEL extraction { extractor: ACTIVATION_REGIONS activation_regions'
        ' { threshold: 0 regions_per_channel: 0 } } }'
      ],
      r'verification\.extraction: activation_regions\.threshold is 0',
    ),
    (['verification.extraction.max_features: 0'], r'verification\.extraction: max_features is 0'),
    (['fusion.extraction { }'], 'fusion lacks codebook, aggregation of the other search'),
    ([FUSION, 'search.top_k: 5'], 'search.top_k is 5, but fusion adds the scores of all images'),
    ([FUSION, 'fusion.aggregation.kernel: ASMK'], r'fusion: aggregation\.kernel is ASMK, but'),
    (
      [FUSION, 'fusion.aggregation.regions: REGIONAL_SEARCH'],
      'fusion: aggregation.regions is REGIONAL_SEARCH but',
    ),
    (['fusion.weight: -1'], 'weight is -1; it must be'),
    (['fusion.power: 2'], 'power has an effect only with normalization: BACKGROUND, found Z_SCORE'),
    (
      ['fusion.both_sides: true'],
      'both_sides has an effect only with normalization: BACKGROUND, found Z_SCORE',
    ),
    (['fusion { normalization: BACKGROUND power: 0 }'], r'power is 0; it must be in \(0, 10\]'),
    (
      ['fusion.background_path: "b"'],
      'background_path has an effect only with normalization: BACKGROUND, found Z_SCORE',
    ),
    (
      [FUSION, 'fusion.normalization: BACKGROUND', 'aggregation.kernel: VLAD'],
      r'BACKGROUND, whose model is of ASMK .* or change aggregation\.kernel',
    ),
    (
      [FUSION, 'fusion.normalization: BACKGROUND', 'aggregation.use_idf: true'],
      r'BACKGROUND, whose model is of ASMK .* or change aggregation\.use_idf',
    ),
    (
      [
        'fusion { normalization: BACKGROUND extraction { } codebook { num_words: 4 }'
        ' aggregation { kernel: VLAD } }'
      ],
      'BACKGROUND, whose model is of global descriptors, VLAD of one visual word',
    ),
    (
      [FUSION, 'aggregation.value_type: INT8'],
      'value_type has an effect only with kernel: VLAD, found ASMK_STAR',
    ),
    (
      ['aggregation { kernel: VLAD value_type: FLOAT16 }'],
      r'aggregation\.value_type has an effect only with codebook\.num_words: 1, found 65536',
    ),
    (['whitening.shrinkage: -1'], 'shrinkage is -1; it must be'),
  ],
)
def test_refused(changes, message):
  with pytest.raises(ConfigError, match=message):
    load(*changes)
