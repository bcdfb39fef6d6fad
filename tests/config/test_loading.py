"""Configs: errors and their messages, overrides, fingerprints and differences."""

import math
import os
import pathlib
import random

import pytest
from google.protobuf import text_format

from delf_d2r import config
from delf_d2r.errors import ConfigError
from delf_d2r.protos import aggregation_pb2, experiment_pb2

Aggregation = aggregation_pb2.AggregationConfig
ALL = tuple(config.STAGE_FIELDS)
CHECKOUT_CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
PACKAGED = [path for path in sorted(CHECKOUT_CONFIGS.rglob('*.pbtxt')) if path.parent.name != 'tables']


@pytest.fixture
def load(tmp_path):
  """Loads a config from its text."""

  def load_text(text, stages=ALL, overrides=(), encoding='utf-8'):
    path = tmp_path / 'my config.pbtxt'
    path.write_text(text, encoding=encoding)
    return config.load(path, stages, overrides=overrides)

  return load_text


# The file


def test_empty_file_gives_the_defaults(load):
  assert load('') == config.default(*ALL)
  assert config.load_or_default(None, ALL) == config.default(*ALL)


def test_resolved_config_writes_every_default_out(load):
  aggregation = load('', ['aggregation']).aggregation
  assert aggregation.HasField('alpha')
  assert aggregation.alpha == 3.0
  assert not aggregation.HasField('normalize')  # Unset has a meaning of its own.
  assert not load('', ['aggregation']).HasField('search')


@pytest.mark.parametrize('path', PACKAGED, ids=lambda path: path.stem)
def test_packaged_configs_load(path):
  found = config.find(f'configs/{path.relative_to(CHECKOUT_CONFIGS).as_posix()}')
  assert config.load(found, ALL)


def test_byte_order_mark_of_windows_editors_is_no_error(load):
  assert load('name: "x"', encoding='utf-8-sig').name == 'x'


def test_message_of_one_stage_alone(load):
  assert load('alpha: 2', ['aggregation']).aggregation.alpha == 2


def test_message_of_one_stage_is_no_experiment(load):
  with pytest.raises(ConfigError, match=r'config of another stage \(AggregationConfig\), wanted Experiment'):
    load('alpha: 2', ALL)


def test_config_of_another_stage(load):
  with pytest.raises(ConfigError, match=r'my config\.pbtxt.*\(CodebookConfig\).*or AggregationConfig'):
    load('num_words: 5', ['aggregation'])


def test_missing_file_names_the_packaged_ones():
  with pytest.raises(ConfigError, match=r'nothing\.pbtxt: no such config.*configs/experiments/'):
    config.load('configs/nothing.pbtxt')


def test_a_config_from_a_pipe():
  reader, writer = os.pipe()
  os.write(writer, b'codebook { num_words: 77 }')
  os.close(writer)
  try:
    assert config.load(f'/dev/fd/{reader}', ['codebook']).codebook.num_words == 77
  finally:
    os.close(reader)


def test_packaged_configs_are_not_left_by_dots(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ConfigError, match='no such config'):
    config.find('configs/../setup.py')


def test_a_file_that_may_not_be_read_is_told(monkeypatch):
  def refuse(path):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(pathlib.Path, 'exists', refuse)
  with pytest.raises(ConfigError, match=r'x\.pbtxt: cannot be read \(Permission denied\)'):
    config.find('x.pbtxt')


def test_file_that_is_no_text(tmp_path):
  path = tmp_path / 'photo.pbtxt'
  path.write_bytes(b'\xff\xd8\xff\xe0')
  with pytest.raises(ConfigError, match=r'photo\.pbtxt: cannot be read as UTF-8'):
    config.load(path)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (
      'search { top_k: 3 }\n\nextraction {\n  max_featurs: 3\n}',
      r':4:3: .*no field "max_featurs".*max_features',
    ),
    ('search {\n top_k: "many"\n}', r':2:9: .*integer'),
    ('search { top_k: 3.5 }', r':1:17: .*integer'),
    ('search { top_k: 99999999999 }', r':1:17: '),
    ('aggregation { kernel: asmk }', r':1:23: Kernel has no value asmk\. Its values: ASMK_STAR, ASMK, VLAD'),
    ('search { top_k: 1 top_k: 2 }', r':1:26: .*multiple "top_k"'),
    ('search { top_k: 1', r':1:17: Expected "}"'),
    ('name: unquoted', r':1:7: .*string'),
  ],
)
def test_what_does_not_parse_is_shown_with_its_place(load, text, message):
  with pytest.raises(ConfigError, match=r'my config\.pbtxt' + message):
    load(text)


def test_mutated_configs_never_raise_anything_else(load):
  text = (CHECKOUT_CONFIGS / 'experiments/mini/rasmk_star_uniform.pbtxt').read_text(encoding='utf-8')
  generator = random.Random(0)
  refused = 0
  for _ in range(150):
    mutated = list(text)
    for _ in range(3):
      mutated[generator.randrange(len(text))] = generator.choice('{}[]<>:"\'#\\,;- 0aZ\n\u00e9\x00')
    try:
      load(''.join(mutated))
    except ConfigError:
      refused += 1
  assert 50 < refused < 150


# Fields that contradict each other or have impossible values


@pytest.mark.parametrize(
  ('field', 'text'),
  [
    ('regions.min_score', 'regions { min_score: 1.5 }'),
    ('regions.min_score', 'regions { min_score: nan }'),
    ('regions.min_area', 'regions { min_area: -0.1 }'),
    ('regions.max_area', 'regions { max_area: 0 min_area: 0 }'),
    ('regions.max_area', 'regions { max_area: 1.5 }'),
    ('regions.max_area', 'regions { max_area: nan }'),
    ('regions.max_area', 'regions { min_area: 0.5 max_area: 0.4 }'),
    ('regions.max_overlap', 'regions { max_overlap: 2 }'),
    ('regions.max_boxes', 'regions { max_boxes: -1 }'),
    ('regions.images_per_shard', 'regions { images_per_shard: 0 }'),
    ('regions.uniform.boxes_per_side', 'regions { source: UNIFORM uniform { boxes_per_side: [] } }'),
    ('regions.uniform.boxes_per_side', 'regions { source: UNIFORM uniform { boxes_per_side: [2, 0] } }'),
    ('regions.uniform.boxes_per_side', 'regions { source: UNIFORM uniform { boxes_per_side: 65 } }'),
    ('regions.uniform.overlap', 'regions { source: UNIFORM uniform { boxes_per_side: 2 overlap: 1 } }'),
    ('regions.uniform.overlap', 'regions { source: UNIFORM uniform { boxes_per_side: 2 overlap: nan } }'),
    ('regions.uniform', 'regions { source: FILE uniform { boxes_per_side: 2 } }'),
    ('regions.file_path', 'regions { source: NONE file_path: "boxes.csv" }'),
    ('extraction.max_features', 'extraction { max_features: 0 }'),
    ('extraction.min_attention', 'extraction { min_attention: nan }'),
    ('extraction.max_megapixels', 'extraction { max_megapixels: 0 }'),
    ('extraction.images_per_shard', 'extraction { images_per_shard: -3 }'),
    ('extraction.max_image_size', 'extraction { max_image_size: -1 }'),
    ('extraction.min_image_size', 'extraction { max_image_size: 100 min_image_size: 101 }'),
    ('extraction.min_crop_size', 'extraction { max_crop_size: 100 min_crop_size: 101 }'),
    ('extraction.root_sift.contrast_threshold', 'extraction { root_sift { contrast_threshold: 0 } }'),
    ('extraction.root_sift.edge_threshold', 'extraction { root_sift { edge_threshold: nan } }'),
    ('extraction.root_sift.octave_layers', 'extraction { root_sift { octave_layers: 17 } }'),
    ('codebook.num_words', 'codebook { num_words: 0 }'),
    ('codebook.iterations', 'codebook { iterations: 0 }'),
    ('codebook.seed', 'codebook { seed: -1 }'),
    ('codebook.max_descriptors', 'codebook { num_words: 10 max_descriptors: 9 }'),
    ('aggregation.num_assignments', 'aggregation { num_assignments: 0 }'),
    ('aggregation.query_num_assignments', 'aggregation { query_num_assignments: 1001 }'),
    ('aggregation.images_per_shard', 'aggregation { images_per_shard: 0 }'),
    ('aggregation.tau', 'aggregation { tau: nan }'),
    ('aggregation.alpha', 'aggregation { alpha: 0 }'),
    ('aggregation.alpha', 'aggregation { alpha: nan }'),
    ('aggregation.alpha', 'aggregation { kernel: VLAD alpha: 2 }'),
    ('aggregation.tau', 'aggregation { kernel: VLAD tau: 0.5 }'),
    ('aggregation.regions', 'aggregation { regions: REGIONAL_SEARCH } regions { source: NONE }'),
    ('aggregation.region_masks', 'aggregation { region_masks: true }'),
    (
      'aggregation.region_masks',
      'regions { source: UNIFORM uniform { boxes_per_side: 2 } }'
      ' aggregation { regions: REGIONAL_SEARCH region_masks: true }',
    ),
    (
      'aggregation.region_masks',
      'regions { source: UNIFORM uniform { boxes_per_side: 2 } }'
      ' aggregation { kernel: VLAD regions: REGIONAL_AGGREGATION region_masks: true }',
    ),
    ('search.top_k', 'search { top_k: -1 }'),
    ('evaluation.ks', 'evaluation { ks: [1, 0] }'),
    ('report.results_per_query', 'report { results_per_query: 0 }'),
    ('report.max_queries', 'report { max_queries: -1 }'),
    ('report.matches', 'report { matches: -1 }'),
  ],
)
def test_each_rule(load, field, text):
  # A line for each word, so that the line tells which field the message is about.
  lines = text.replace(' { ', ' {\n').replace(' ', '\n').replace(':\n', ': ').replace(',\n', ', ')
  lines = lines.replace('\n{', ' {').splitlines()
  leaf = field.rsplit('.', 1)[-1]
  places = [number for number, line in enumerate(lines, 1) if line.startswith((f'{leaf}:', f'{leaf} {{'))]
  with pytest.raises(ConfigError) as raised:
    load('\n'.join(lines))
  first = str(raised.value).splitlines()[0]
  assert any(f'my config.pbtxt:{place}: ' in first for place in places), (first, lines)
  assert leaf in first.split(': ', 1)[1]
  # The defaults that the other fields have are legal: one thing is wrong, one line says so.
  assert len(str(raised.value).splitlines()) == 1


def test_line_is_that_of_the_right_stage_and_not_of_a_comment_or_text(load):
  text = """
    # extraction { images_per_shard: 0 }
    name: "extraction { images_per_shard: 0 }"
    regions { images_per_shard: 5 }
    extraction <
      max_features : 7
      images_per_shard : 0
    >
    aggregation: { images_per_shard: 6 }
  """
  with pytest.raises(ConfigError, match=r'my config\.pbtxt:7: images_per_shard is 0; it must be at least 1'):
    load(text)


def test_field_that_is_missing_is_reported_at_the_message_it_is_missing_from(load):
  with pytest.raises(ConfigError, match=r'my config\.pbtxt:2: source is UNIFORM but'):
    load('name: "x"\nregions { source: UNIFORM }')


def test_line_in_the_message_of_a_single_stage(load):
  with pytest.raises(ConfigError, match=r'my config\.pbtxt:2: alpha is -1'):
    load('tau: 0\nalpha: -1', ['aggregation'])


def test_every_problem_is_listed(load):
  with pytest.raises(ConfigError) as raised:
    load('search { top_k: -1 }\ncodebook { num_words: 0 iterations: 0 }')
  assert len(str(raised.value).splitlines()) == 3


def test_defaults_written_out_are_no_contradiction(load):
  assert load('aggregation { kernel: VLAD alpha: 3 tau: 0 }')


def test_query_crops_are_enlarged_with_inside_features_too(load):
  assert load('extraction { region_features: INSIDE min_crop_size: 480 }')


# Overrides


@pytest.mark.parametrize(
  'override', ['aggregation.alpha: 2', 'aggregation { alpha: 2 }', ' aggregation.alpha:2 # why']
)
def test_forms_of_an_override(load, override):
  assert load('aggregation { alpha: 7 tau: 0.5 }', overrides=[override]) == load(
    'aggregation { alpha: 2 tau: 0.5 }'
  )


def test_overrides_of_each_type(load):
  overrides = [
    'name: "new"',
    'regions.source: UNIFORM',
    'regions.uniform.boxes_per_side: [3, 4]',
    'aggregation.kernel: ASMK',
    'aggregation.normalize: false',
    'extraction.root_sift { upright: true }',
    'search.top_k: 5',
    'search.top_k: 6',
  ]
  changed = load('regions { uniform { boxes_per_side: [1, 2] overlap: 0.1 } }', overrides=overrides)
  assert changed.name == 'new'
  assert list(changed.regions.uniform.boxes_per_side) == [3, 4]  # Replaced, not appended to.
  assert changed.regions.uniform.overlap == pytest.approx(0.1)
  assert changed.aggregation.kernel == Aggregation.ASMK
  assert changed.aggregation.normalize is False
  assert changed.extraction.root_sift.upright
  assert changed.search.top_k == 6  # The last one counts.


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('aggregation.alhpa: 2', 'no field "alhpa".*alpha'),
    ('aggregation.alpha=2', "Write it like 'aggregation.alpha: 2'"),
    ('aggregation.alpha: much', 'float'),
    ('aggregation.kernel: star', 'Its values: ASMK_STAR'),
    ('alpha: 2', 'ExperimentConfig has no field "alpha"'),
    ('aggregation.alpha: 2 }', 'Write it like'),
    ('aggregation.alpha: -2', r'^--override .*alpha is -2; it must be'),
    ('nonsense', 'Write it like'),
  ],
)
def test_bad_overrides_are_shown(load, override, message):
  with pytest.raises(ConfigError, match=message) as raised:
    load('aggregation { alpha: 1 }', overrides=['search.top_k: 3', override])
  assert repr(override) in str(raised.value)


# Fingerprints and differences


@pytest.mark.parametrize('path', PACKAGED, ids=lambda path: path.stem)
def test_resolved_config_reloads_as_itself(load, path):
  resolved = config.load(path, ALL, overrides=['regions.min_score: 0.1', 'name: "\u00fc \\" #"'])
  again = load(config.to_text(resolved))
  assert again == resolved
  assert config.fingerprint(again) == config.fingerprint(resolved)


def test_fingerprint_depends_on_what_is_said_not_how(load):
  terse = load('codebook { seed: 1 } search { top_k: 5 }')
  wordy = load('# Order, layout, defaults.\nsearch < top_k: 5 >\ncodebook {\n num_words: 65536, seed: 1; }')
  assert config.fingerprint(terse) == config.fingerprint(wordy)
  assert config.fingerprint(terse) != config.fingerprint(load('codebook { seed: 2 } search { top_k: 5 }'))


def test_unset_and_false_are_two_things(load):
  unset, off = load('').aggregation, load('aggregation { normalize: false }').aggregation
  assert config.fingerprint(unset) != config.fingerprint(off)
  assert list(config.differences(unset, off)) == [('normalize', '(unset)', 'False')]


def test_fields_of_later_releases_change_no_fingerprint():
  """They have no default, so a resolved config does not write them out: artefacts made before fit."""
  resolved = config.resolve(experiment_pb2.ExperimentConfig(aggregation={}, regions={}))
  assert not resolved.aggregation.HasField('region_masks')
  assert not resolved.regions.HasField('max_area')
  assert config.fingerprint(resolved) == '4b1bce6efc939c2d'


def test_differences(load):
  old = load('aggregation { alpha: 3 } evaluation { ks: [1, 5] } name: "a"')
  new = load('aggregation { alpha: 2.5 kernel: ASMK } evaluation { ks: [1] } name: "b"')
  assert dict((field, values) for field, *values in config.differences(old, new)) == {
    'name': ["'a'", "'b'"],
    'aggregation.alpha': ['3', '2.5'],
    'aggregation.kernel': ['ASMK_STAR', 'ASMK'],
    'evaluation.ks': ['[1, 5]', '[1]'],
  }
  assert not list(config.differences(old, old))


def test_floats_that_differ_in_the_last_place_differ():
  old = Aggregation(alpha=3.0)
  new = Aggregation(alpha=math.nextafter(3.0, 4) + 2e-7)
  assert old.alpha != new.alpha
  assert [field for field, *_ in config.differences(old, new)] == ['alpha']


def test_a_stage_on_one_side_alone_is_one_difference():
  old, new = config.default('search'), config.default()
  assert list(config.differences(old, new)) == [('search', '{top_k: 0}', '(unset)')]


def test_resolve_leaves_its_argument_alone():
  original = experiment_pb2.ExperimentConfig()
  text_format.Parse('search {}', original)
  config.resolve(original)
  assert not original.search.HasField('top_k')
