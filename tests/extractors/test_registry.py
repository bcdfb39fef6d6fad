"""The registry of extractors: records that are complete, and one more extractor in a whole experiment."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from delf_d2r import config as configs
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.doctor.record_checks import RecordCheck
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ConfigError, Problem, UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import experiment
from delf_d2r.extractors import registry, root_sift
from delf_d2r.extractors.registry import DescriptorKind, ExtractorRecord
from delf_d2r.protos import extraction_pb2
from delf_d2r.structures import LocalFeatures

Extraction = extraction_pb2.ExtractionConfig


# Records


def test_every_extractor_has_its_record():
  assert [record.extractor for record in registry.records()] == sorted(Extraction.Extractor.values())
  for record in registry.records():
    assert registry.record(record.extractor) is record
    assert record.name == Extraction.Extractor.Name(record.extractor)
    own = {field.split('.')[0] for field in (*record.decisive_fields, *record.free_fields)}
    assert own == set(record.own_fields)


def test_no_field_of_a_record_has_a_default():
  for field in dataclasses.fields(ExtractorRecord):
    assert field.default is field.default_factory is dataclasses.MISSING, field.name


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'decisive_fields': ('delf.pca', 'delf.network')}, r"in neither: \['delf\.model_path'\]"),
    ({'free_fields': (), 'decisive_fields': ('delf.pca',)}, r"in neither: .*'delf\.image_scales'"),
    ({'decisive_fields': ('delf', 'delf.pca')}, r"twice: .*'delf\.pca'"),
    ({'own_fields': ('delf', 'patches')}, r"in neither: \['patches\.intensities'"),
    ({'own_fields': ('delf', 'max_features')}, "no message field 'max_features'"),
    ({'decisive_fields': ('delf.nothing',)}, "delf has no field 'nothing'"),
    ({'decisive_fields': ('delf.model_path', 'delf.network', 'delf.pca', 'patches')}, 'of other fields: '),
  ],
)
def test_a_record_that_leaves_a_field_out_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(registry.record(Extraction.DELF), **changes)


def test_a_message_that_no_extractor_claims_is_refused():
  record = registry.record(Extraction.ACTIVATION_REGIONS)
  without = dataclasses.replace(record, own_fields=(), decisive_fields=())
  with (
    pytest.raises(ValueError, match=r'activation_regions belongs to no extractor'),
    registry.replaced(without),
  ):
    pass


def test_an_extractor_without_a_record_or_with_two_is_refused():
  for records in (registry.records()[1:], [*registry.records(), root_sift.RECORD]):
    with pytest.raises(ValueError, match='give each exactly one RECORD'):
      registry._checked(records)


def test_checking_a_config_imports_no_heavy_library():
  code = (
    'import sys, delf_d2r.config as configs;'
    'assert not any(name.startswith("delf_d2r.extractors.") and name != "delf_d2r.extractors.registry"'
    ' for name in sys.modules);'
    'configs.load_or_default(None, ["extraction"], overrides=["extraction.extractor: DELF"]);'
    'sys.exit(not {"keras", "numba", "scipy", "tensorflow"}.isdisjoint(sys.modules))'
  )
  assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


# One extractor more, with all that it takes. The enum is closed, so it replaces PATCHES and has its fields.


class CellColors:
  """Mean colours of square cells, as unit vectors; the cells with the strongest colours come first."""

  dimensions = 3

  def __init__(self, cell_size: int, max_features: int):
    self._cell_size, self._max_features = cell_size, max_features

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Returns the features of uint8 [H, W, 3]."""
    size = self._cell_size
    height, width = (side // size for side in image.shape[:2])
    cells = image[: height * size, : width * size].reshape(height, size, width, size, 3).mean(axis=(1, 3))
    colors = cells.reshape(-1, 3).astype(np.float32) - 128
    strengths = np.linalg.norm(colors, axis=1)
    order = np.argsort(-strengths, kind='stable')[: self._max_features]
    order = order[strengths[order] > 0]
    locations = (np.stack(np.unravel_index(order, (height, width)), axis=1) + 0.5) * size
    return LocalFeatures(
      locations.astype(np.float32),
      np.full(len(order), size, np.float32),
      strengths[order],
      colors[order] / strengths[order, None],
    )


def _problems(config):
  if config.patches.patch_size > 64:
    yield Problem('patches.patch_size', f'patches.patch_size is {config.patches.patch_size}, above 64')


CELL_COLORS = ExtractorRecord(
  extractor=Extraction.PATCHES,
  build=lambda config: CellColors(config.patches.patch_size, config.max_features),
  model_files=lambda config: {'model': pathlib.Path(config.patches.model_path)},
  problems=_problems,
  own_fields=('patches',),
  decisive_fields=('patches.model_path', 'patches.patch_size'),
  free_fields=('patches.magnification', 'patches.intensities'),
  descriptors=DescriptorKind.LOCAL,
  unit_origins=registry.unit_vectors,
  uses_network=False,
  has_feature_maps=False,
)


@pytest.fixture
def cell_colors():
  with registry.replaced(CELL_COLORS):
    yield


@pytest.fixture
def photos(tmp_path):
  """Three views of each of four scenes of coloured cells; the first of each is a query."""
  generator = np.random.default_rng(0)
  for scene in range(4):
    cells = generator.integers(0, 256, (6, 8, 3))
    for view in range(3):
      pixels = np.repeat(np.repeat(cells, 10, axis=0), 10, axis=1) + generator.normal(0, 4, (60, 80, 3))
      folder = tmp_path / ('queries' if view == 0 else 'photos')
      folder.mkdir(exist_ok=True)
      Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f'{scene}_{view}.png')
  truth = tmp_path / 'truth.json'
  queries = [
    {'image': f'{scene}_0.png', 'easy': [f'{scene}_1.png'], 'hard': [f'{scene}_2.png']} for scene in range(4)
  ]
  truth.write_text(json.dumps({'version': 1, 'queries': queries}))
  return tmp_path


def load(photos, *overrides):
  (photos / 'colors.bin').write_bytes(b'weights')
  config = f"""
  regions {{ source: UNIFORM uniform {{ boxes_per_side: [2] }} }}
  extraction {{
    extractor: PATCHES patches {{ patch_size: 10 model_path: "{photos / 'colors.bin'}" }} max_crop_size: 0
  }}
  codebook {{ num_words: 8 iterations: 5 }}
  aggregation {{ kernel: ASMK regions: REGIONAL_AGGREGATION }}
  verification {{ trials: 50 }}
  """
  path = photos / 'config.pbtxt'
  path.write_text(config)
  return configs.load(path, experiment.STAGES, overrides=overrides)


def run(photos, output, *overrides, given=None):
  dataset = Dataset.load(
    photos / 'photos', ground_truth=photos / 'truth.json', query_images=photos / 'queries'
  )
  return experiment.run(
    load(photos, *overrides),
    dataset,
    photos / output,
    ground_truth=photos / 'truth.json',
    given=given,
    options=experiment.Options(workers=1),
  )


def test_one_record_makes_an_extractor(cell_colors, photos):
  outcome = run(photos, 'run')
  metrics = metrics_files.read_metrics_json(outcome.artefacts['metrics'].path / 'metrics.json')
  assert metrics['medium'].mean_average_precision == 1
  features = outcome.artefacts['features']
  assert features.input('model').path == photos / 'colors.bin'
  assert features.counts['features'] == 8 * (6 * 8 * 2)
  assert not list(RecordCheck(features).run())
  answer = SearchEngine.load(photos / 'run').search(photos / 'queries' / '2_0.png', top_k=2)
  assert {result.name for result in answer.results} == {'2_1.png', '2_2.png'}

  # Another value of a decisive field is another extractor; one of a free field is not.
  given = {'codebook': outcome.artefacts['codebook']}
  with pytest.raises(
    UserError, match=r'different extractors: extraction\.patches\.patch_size is 20.*, 10 in'
  ):
    run(photos, 'other', 'extraction.patches.patch_size: 20', given=given)
  run(photos, 'same', 'extraction.patches.magnification: 2', given=given)


def test_its_rules_are_those_of_the_record(cell_colors, photos):
  with pytest.raises(ConfigError, match=r'patches\.patch_size is 65, above 64'):
    load(photos, 'extraction.patches.patch_size: 65')
  with pytest.raises(ConfigError, match='root_sift has an effect only with extractor: ROOT_SIFT or'):
    load(photos, 'extraction.root_sift { }')
  with pytest.raises(ConfigError, match=r'PATCHES has no feature maps\. Set extractor: DELF'):
    load(photos, 'extraction.region_features: SHARED_FEATURE_MAP')


def test_the_replaced_record_comes_back():
  before = registry.records()
  with registry.replaced(CELL_COLORS):
    assert registry.record(Extraction.PATCHES) is CELL_COLORS
  assert registry.records() is before
