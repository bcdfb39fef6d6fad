"""The benchmark of defaults on a tiny benchmark: its numbers are those of single runs, made only once."""

import dataclasses
import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import (
  benchmark_defaults,
  default_costs,
  default_table,
  development_features,
  development_sets,
)
from benchmarks.benchmark_defaults import Benchmark, Row, SearchSet
from benchmarks.default_table import Results, RowResult, SetScore

from delf_d2r import config as configs
from delf_d2r.data.artefacts import feature_files, records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.ground_truth.ground_truth import GroundTruth, QueryGroundTruth
from delf_d2r.data.photos.dataset import Dataset, Queries
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.errors import UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import experiment
from delf_d2r.extractors import photo_boxes
from delf_d2r.planning.costs import Cost
from delf_d2r.stages import extract_features
from delf_d2r.structures import Boxes

CONFIG = """
regions { source: DETECTOR min_score: 0.3 max_boxes: 2 }
extraction {
  max_features: 100 max_image_size: 240 max_crop_size: 240 images_per_shard: 8
  root_sift { contrast_threshold: 0.02 }
}
codebook { num_words: 64 iterations: 3 }
aggregation { kernel: ASMK_STAR regions: REGIONAL_AGGREGATION }
"""
FUSED = """fusion {
  extraction { max_features: 60 max_image_size: 240 root_sift { contrast_threshold: 0.02 } }
  codebook { num_words: 32 iterations: 3 }
  aggregation { kernel: ASMK_STAR }
}"""
ONE = experiment.Options(workers=1)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mini') / 'photos'
  return mini_benchmark.generate(folder, seed=1, scenes_per_object=1, num_distractors=4)


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
  path = tmp_path_factory.mktemp('config') / 'tiny.pbtxt'
  path.write_text(CONFIG)

  def row(name, *overrides, **controls):
    return Row(name, str(path), overrides, **controls)

  return [
    row('detected', no_boxes='none', random='random', true='true'),
    row('divided', *benchmark_defaults.DIVIDED),
    row('none', *benchmark_defaults.NO_BOXES),
    row('random', *benchmark_defaults.RANDOM),
    row('uniform', *benchmark_defaults.UNIFORM, *benchmark_defaults.SEARCH),
    row('true', *benchmark_defaults.TRUE),
    row('fused', *benchmark_defaults.NO_BOXES, FUSED),
    row('fused_detected', FUSED),
    row('verified', 'verification { num_images: 5 }'),
  ]


@pytest.fixture(scope='module')
def sets(made, tmp_path_factory):
  """The mini benchmark with its boxed queries, and its first photos, each of which is a query."""
  photos = ImageList.from_folder(made.images_dir)
  truth = ground_truth.load(made.ground_truth_path)
  index = ImageList(photos.root, truth.index_images)
  queries = Queries(ImageList(made.queries_dir, tuple(query.image for query in truth.queries)), truth)
  mini = SearchSet(
    'mini_0', 'mini', index, queries, made.ground_truth_path, true_boxes=made.boxes_path, boxed=''
  )
  # Neighbours in the list of photos stand for photos of one landmark.
  pairs = [(photos.names[n], photos.names[n ^ 1]) for n in range(8)]
  asked = tuple(QueryGroundTruth(name, name, easy=(other,), junk=(name,)) for name, other in pairs)
  own = GroundTruth('pairs', photos.names[:8], asked)
  path = tmp_path_factory.mktemp('truth') / 'pairs.json'
  ground_truth.save_json(own, path)
  shown = ImageList(photos.root, photos.names[:8])
  pairs_set = SearchSet(
    'pairs', 'pairs', shown, Queries(shown, own), path, query_photos=(shown,), halves=(0, 1) * 4
  )
  return [mini, pairs_set]


class Detector:
  """Finds one half of every photo, and a quarter that it is less sure of."""

  note = ''

  def __init__(self, side):
    self._box = {'left': (0, 0, 1, 0.5), 'right': (0, 0.5, 1, 1)}[side]

  def reduce(self, pixels):
    return pixels

  def batch(self, photos):
    boxes = np.array([self._box, (0.25, 0.25, 0.75, 0.75), (0, 0, 1, 0.9)], np.float32)
    return [Boxes(boxes, np.array([0.9, 0.5, 0.1], np.float32)) for _ in photos]


@pytest.fixture(scope='module')
def detectors(tmp_path_factory):
  """Paths of two detectors, and patches that make detectors of them."""
  paths = {side: tmp_path_factory.mktemp('models') / side for side in ('left', 'right')}
  for side, path in paths.items():
    path.write_text(side)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      photo_boxes, 'load_detector', lambda config: Detector(config.model_path.rpartition('/')[2] or 'left')
    )
    patch.setattr(photo_boxes, 'DEFAULT_DETECTOR', paths['left'].parent)
    yield {side: str(path) for side, path in paths.items()}


@pytest.fixture(scope='module')
def start(made, rows, detectors, tmp_path_factory):
  """Returns a benchmark in a folder that all of them share."""
  folder = tmp_path_factory.mktemp('benchmark')
  photos = ImageList.from_folder(made.images_dir)
  trained_on = ImageList(photos.root, photos.names[8:])
  halves = {'': list(detectors.values())}
  return lambda: Benchmark(rows, folder, trained_on, workers=1, detectors=halves)


@pytest.fixture(scope='module')
def finished(start, sets):
  extracted = []
  extract = extract_features._extract_one
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      extract_features,
      '_extract_one',
      lambda extractor, config, job: (
        extracted.append((config.max_features, job)) or extract(extractor, config, job)
      ),
    )
    benchmark = start()
    benchmark.run(sets)
  return benchmark, extracted


@pytest.mark.slow
def test_every_photo_is_extracted_once(finished, sets):
  benchmark, extracted = finished
  assert not benchmark.problems
  # The queries of the second set are its index photos. The codebook of the second search of `fused` is
  # trained on what is searched.
  searched = len(sets[0].photos) + len(sets[0].queries) + len(sets[1].photos)
  for features, codebook_photos in ((100, 8), (60, 0)):
    jobs = [job for found, job in extracted if found == features]
    assert len(jobs) == searched + codebook_photos
  most = max(len(job.boxes) for _, job in extracted if job.boxes)
  # Two of the detector, two random ones, two of the grid and the true one.
  assert most == 7


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['detected', 'divided', 'none', 'random', 'uniform', 'true', 'fused', 'fused_detected']
)
@pytest.mark.parametrize('number', [0, 1])
def test_the_numbers_are_those_of_a_single_run(finished, start, sets, detectors, tmp_path, name, number):
  benchmark, _ = finished
  search_set = sets[number]
  config = benchmark.configs[name]
  if name == 'true' and not search_set.true_boxes:
    assert search_set.name not in benchmark.scores[name]
    return
  # What the run of the benchmark gives to the run of its stages, found by other ways.
  single = configs.resolve(config)
  boxes_path = search_set.true_boxes if name == 'true' else None
  if name in ('detected', 'divided', 'random', 'fused_detected'):
    boxes_path = tmp_path / 'boxes.csv'
    side = dict(zip(search_set.photos.names, search_set.halves or (0,) * len(search_set.photos), strict=True))
    with open(boxes_path, 'w', encoding='utf-8') as file:
      print('image,ymin,xmin,ymax,xmax,score', file=file)
      for photo in search_set.photos.names:
        (found,) = Detector(('left', 'right')[side[photo]]).batch([None])
        for box, score in zip(found.coordinates.tolist(), found.scores.tolist(), strict=True):
          print(photo, *box, score, sep=',', file=file)
    if name != 'random':
      single.regions.source = single.regions.FILE
      single.regions.ClearField('detector')
  codebook = benchmark._codebook(config, benchmark._cache.features(config, search_set.photos, None))
  outcome = experiment.run(
    single,
    Dataset(search_set.photos, search_set.queries),
    tmp_path / 'run',
    ground_truth=search_set.truth,
    boxes_path=boxes_path,
    given={'codebook': codebook},
    options=ONE,
  )
  metrics = metrics_files.read_per_query(outcome.reported.metrics.path / 'per_query.json')
  found = [query.average_precision for query in metrics.protocols['medium'].queries]
  expected = dict(zip(metrics.query_names, found, strict=True))
  assert benchmark.scores[name][search_set.name].average_precisions == {
    query: value for query, value in expected.items() if not np.isnan(value)
  }


@pytest.mark.slow
def test_nothing_is_made_twice(finished, start, sets, monkeypatch):
  def fail(*_, **__):
    raise AssertionError('made again')

  monkeypatch.setattr(extract_features, '_make_extraction', fail)
  monkeypatch.setattr('delf_d2r.stages.aggregate_features._make_aggregation', fail)
  monkeypatch.setattr('delf_d2r.stages.train_codebook.sample_descriptors', fail)
  again = start()
  again.run(sets)
  assert again.problems == []
  assert again.scores == finished[0].scores


@pytest.mark.slow
def test_whole_photos_as_queries_are_what_the_stage_extracts(finished, sets, tmp_path, monkeypatch):
  benchmark, _ = finished
  config, queries = benchmark.configs['detected'], sets[1].queries
  copied = benchmark._cache.query_features(config, queries, sets[1].query_photos)
  extracted = extract_features.run_queries(config, queries, tmp_path / 'queries', workers=1)
  assert list(copied.records()) == list(extracted.records())
  # The stage takes them for its own.
  monkeypatch.setattr(extract_features, '_make_extraction', None)
  again = extract_features.run_queries(config, queries, copied.path, workers=1)
  assert again.manifest.fingerprint == copied.manifest.fingerprint
  with pytest.raises(ValueError, match='expected queries that are whole photos, found a box of astronaut'):
    benchmark._cache.query_features(config, sets[0].queries, sets[1].query_photos)


@pytest.mark.slow
def test_composed_features_are_those_of_the_stage(finished, sets, tmp_path):
  benchmark, _ = finished
  config, search_set = benchmark.configs['uniform'], sets[1]
  boxes = benchmark._boxes_of('uniform', search_set)
  composed = benchmark._cache.features(config, search_set.photos, boxes)
  assert isinstance(composed, development_features.ComposedFeatures)
  extracted = extract_features.run(
    config, Dataset(search_set.photos), tmp_path / 'features', boxes=boxes, workers=1
  )
  assert list(composed.records()) == list(extracted.records())
  assert composed.config == extracted.config
  assert [item.fingerprint for item in composed.inputs] == [item.fingerprint for item in extracted.inputs[:2]]
  assert [composed.counts[name] for name in ('images', 'regions', 'whole_features')] == [
    extracted.counts[name] for name in ('images', 'regions', 'whole_features')
  ]


@pytest.mark.slow
def test_more_boxes_are_extracted_later(finished, sets, tmp_path):
  cache = development_features.FeatureCache(tmp_path / 'cache', workers=1)
  benchmark, _ = finished
  config, photos = benchmark.configs['uniform'], sets[1].photos
  first, second = (benchmark._boxes_of(name, sets[1]) for name in ('detected', 'uniform'))
  cache.prepare(config, photos, [first])
  before = list(cache.features(config, photos, first).records())
  on_disk = cache.features(config, photos, second, on_disk=True)
  assert len(list((tmp_path / 'cache').glob('regions-*'))) == 2
  assert list(cache.features(config, photos, first).records()) == before
  assert [image.num_regions for image in feature_files.read(on_disk)] == [3] * len(photos)
  assert type(on_disk) is Artefact
  whole = cache.features(config, photos, None)
  assert {image.num_regions for image in map(records.decode_features, whole.records())} == {1}


@pytest.mark.slow
def test_tables(finished, sets, tmp_path):
  benchmark, _ = finished
  results = benchmark_defaults.results(benchmark, sets, base='detected', costs={'detected': 12.0})
  path = default_table.write(results, tmp_path, 'table')
  text = path.read_text()
  assert '| row | mini | pairs | mean | CPU ms a photo |' in text
  assert 'Gain over detected' in text
  assert '| detected | random boxes | random | ' in text
  assert 'from detected to true boxes on mini' in text
  document = json.loads((tmp_path / 'table.json').read_text())
  row = document['rows']['detected']
  own = benchmark.scores['detected']['mini_0'].average_precisions
  assert row['mean_average_precision']['mini'] == pytest.approx(np.mean(list(own.values())))
  assert row['cpu_milliseconds'] == 12
  assert document['rows']['true']['mean'] is None
  # Rows of an earlier result are shown beside those of this one.
  others = default_table.read_rows(tmp_path / 'table.json')
  assert others['none'] == results.rows['none']
  benchmark = SimpleNamespace(scores={}, problems=[], rows={})
  again = benchmark_defaults.results(benchmark, sets, base='detected', others=others)
  assert default_table.to_markdown(again) == text
  (tmp_path / 'table.json').write_text('{}')
  with pytest.raises(UserError, match='no result of benchmark_defaults'):
    default_table.read_rows(tmp_path / 'table.json')


def score(*values, names='abcdefgh'):
  return SetScore(dict(zip(names, values, strict=False)), 1000.0, 10.0, 1.0)


def test_differences_and_shares():
  rows = {
    'base': RowResult({'x': score(0.2, 0.4), 'm0': score(0.2, 0.2), 'm1': score(0.4, 0.4)}, {}),
    'own': RowResult(
      {'x': score(0.4, 0.4), 'm0': score(0.6, 0.6), 'm1': score(0.6, 0.6)}, {'true boxes': 'true'}
    ),
    'true': RowResult({'m0': score(0.7, 0.7), 'm1': score(0.7, 0.7)}, {}),
    'other queries': RowResult({'x': score(0.4, 0.4, names='zy')}, {}),
    'fewer queries': RowResult({'x': score(0.4)}, {}),
  }
  columns = {'x': ['x'], 'mini': ['m0', 'm1']}
  results = Results(rows, 'base', columns, {'only a': ('x', 'a')}, 'mini', ['x'])
  assert results.all_columns == ['x', 'only a', 'mini']
  assert results.values('own', 'mini') == {'a': 0.6, 'b': 0.6}
  assert results.mean('base') == pytest.approx((0.3 + 0.3) / 2)
  assert results.mean('true') is None
  found = results.difference('own', 'base', 'x')
  assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.0, 0.2))
  # Both objects gain 0.3 of 0.4 in the mean of the two seeds, and nothing varies.
  assert results.share_of_way('own', 'true') == pytest.approx((0.75, 0.75, 0.75))
  mean, low, high = results.mean_difference('own', 'base')
  assert (mean, low, high) == pytest.approx(((0.1 + 0.3) / 2, 0.15, 0.25))
  assert results.difference('other queries', 'base', 'x') is None
  # Some queries of a column do not stand for it, but may fill a part of it.
  assert results.values('fewer queries', 'x') is None
  assert results.values('fewer queries', 'only a') == {'a': 0.4}
  assert results.mean_difference('fewer queries', 'base') is None


@pytest.mark.slow
def test_costs(finished, sets, detectors, tmp_path, monkeypatch):
  benchmark, _ = finished
  seconds = iter([1.0, 1.5])
  counts = []

  def measure(stage):
    function = stage._run
    counts.append(len(function.args[1]))
    function()
    return Cost(0.0, next(seconds), 0.0)

  monkeypatch.setattr(default_costs, 'measure', measure)
  photos = ImageList(sets[0].photos.root, sets[0].photos.names[:8])
  for _ in range(2):
    # Half a second for the last two of eight photos; measured once.
    assert benchmark.milliseconds('uniform', photos) == pytest.approx(250)
  assert counts == [6, 8]
  assert benchmark.milliseconds('random', photos) is None
  assert benchmark.model_bytes('none') == 0
  # The folder of both detectors stands for that of the package.
  assert benchmark.model_bytes('detected') > 0


def test_rows_that_cannot_be_run_are_named(rows, sets, tmp_path):
  lost = Row('lost', 'configs/experiments/nowhere.pbtxt')
  wrong = dataclasses.replace(rows[2], name='wrong', overrides=('codebook.num_words: 0',))
  hungry = dataclasses.replace(
    rows[2], name='hungry', overrides=(*rows[2].overrides, 'codebook.num_words: 60000')
  )
  benchmark = Benchmark([lost, wrong, hungry], tmp_path, sets[1].photos, workers=1)
  benchmark.run(sets[1:])
  starts = [problem.partition(':')[0] for problem in benchmark.problems]
  assert starts == ['lost', 'wrong', 'hungry on pairs']
  assert benchmark.scores == {'lost': {}, 'wrong': {}, 'hungry': {}}


@pytest.mark.parametrize('table', benchmark_defaults.TABLES)
def test_the_rows_of_the_tables_load(table):
  rows = benchmark_defaults.TABLES[table]
  names = [row.name for row in rows]
  assert len(set(names)) == len(names)
  for row in rows:
    config = benchmark_defaults.load_row(row, earlier_models=pathlib.Path('old'), words=512)
    assert config.name == row.name
    assert set(row.controls.values()) <= set(names)
    if row.config_path == benchmark_defaults.EARLIER:
      assert config.extraction.delf.model_path == 'old/default'
      has_detector = config.regions.source in (config.regions.DETECTOR, config.regions.RANDOM)
      assert config.regions.detector.model_path == ('old/default_detector' if has_detector else '')
    is_alone = config.regions.source == config.regions.NONE
    assert is_alone == (config.aggregation.regions == config.aggregation.WHOLE_IMAGE)


def test_flags():
  found = benchmark_defaults.detectors_of(['a', 'b', 'own/path=c'])
  assert found == {'': ['a', 'b'], 'own/path': ['c']}
  found = benchmark_defaults.detectors_of(['a', 'earlier=b'], pathlib.Path('old'))
  assert found == {'': ['a'], 'old/default_detector': ['b']}
  with pytest.raises(UserError, match='stands for a detector of --earlier_models'):
    benchmark_defaults.detectors_of(['earlier=b'])
  with pytest.raises(UserError, match="expected one or two for 'the package', found 3"):
    benchmark_defaults.detectors_of(['a', 'b', 'c'])
  with pytest.raises(UserError, match='--sets: moon is none of landmarks, places'):
    benchmark_defaults._chosen('landmarks,moon', benchmark_defaults.SETS, 'sets')


def test_thinned():
  queries = (
    QueryGroundTruth('q0', 'a', easy=('b',), junk=('a',)),
    QueryGroundTruth('q1', 'b', easy=('a',), junk=('b',)),
    QueryGroundTruth('q2', 'c', easy=('d', 'e'), junk=('c',)),
    QueryGroundTruth('q3', 'x', hard=('f',)),
  )
  truth = GroundTruth('t', tuple('abcdefghij'), queries)
  assert development_sets.thinned(truth, 1) == truth
  found = development_sets.thinned(truth, 2)
  assert [query.name for query in found.queries] == ['q0', 'q1', 'q3']
  assert found.index_images == ('a', 'b', 'f', 'g', 'i')


@pytest.mark.skipif(not development_sets.DATA.is_dir(), reason='needs the development photos')
def test_development_sets(tmp_path):
  sizes = {'landmarks': 462, 'places': 692, 'dvd_covers': 240, 'dvd_photos': 60, 'clutter': 260}
  found = {name: development_sets.SETS[name]() for name in sizes}
  assert {name: len(truth.index_images) for name, truth in found.items()} == sizes
  searched = {name for truth in found.values() for name in truth.index_images}
  trained_on = {*development_sets.codebook_facades(), *development_sets.codebook_places()}
  assert len(trained_on) == 300 + 323
  assert not searched & trained_on
  dev, train = development_sets.place_names('dev'), development_sets.place_names('train')
  assert (len(dev), len(train)) == (18, 71)
  assert not dev.keys() & train.keys()
  assert {name.split('/')[2] for name in development_sets.place_boxes('dev')} == {'porto_serralves'}
  halves = benchmark_defaults._halves('clutter', found['clutter'].index_images, [])
  assert (halves[0], halves[29], halves[30], halves[59], sum(halves[60:])) == (0, 0, 1, 1, 100)
  assert benchmark_defaults._halves('landmarks', found['landmarks'].index_images, []) is None
