"""A run with fusion as one collection: searches, changes of both indexes, and what a kill leaves behind.

The other search is of few RootSIFT features and VLAD, which needs no network: an engine asks no more of it
than of global descriptors.
"""

import shutil

import numpy as np
import pytest
from support.fused_run import CONFIG, fused_dir

from delf_d2r import config
from delf_d2r.data.artefacts import background_files, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.doctor.inspect import diagnose
from delf_d2r.engine import SearchEngine
from delf_d2r.engine.live_index import LiveIndex
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.experiments import experiment
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.protos.verification_pb2 import VerificationConfig
from delf_d2r.stages import split_index, train_background

__all__ = ['fused_dir']

# Distinct photos of noise, which have features.
PHOTOS = [
  np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8).repeat(2, 0) for seed in range(4)
]
# One thread and no other process: words of queries as search_index finds them.
EXACT = AggregationConfig(query_assignment=AggregationConfig.EXACT)


@pytest.fixture
def live_dir(fused_dir, tmp_path):
  """A copy of the run that may be changed."""
  return shutil.copytree(fused_dir, tmp_path / 'out')


def load(directory):
  return SearchEngine.load(directory, verification=VerificationConfig(num_images=3))


def names_in(directory):
  return list(SearchEngine.load(directory).index.image_names)


def answer(engine, photo):
  return [
    (result.name, result.score, result.local_score, result.global_score, result.best_region)
    for result in engine.search(photo, top_k=0).results
  ]


def first_name(directory, photo):
  return load(directory).search(photo, top_k=1).results[0].name


# Searching ---------------------------------------------------------------------------------------------


def test_answers_are_the_fused_rankings_of_the_run(fused_dir, photos):
  engine = SearchEngine.load(fused_dir)
  stored = ranking_files.load(fused_dir / 'fused')
  dataset = Dataset.load(
    photos.images_dir, ground_truth=photos.ground_truth_path, query_images=photos.queries_dir
  )
  for (query, photo), ranking in zip(dataset.queries.items(), stored.rankings, strict=True):
    path = dataset.queries.images.path(photo)
    found = engine.search(path, box=query.box_for(*engine.load_photo(path).shape[:2]), top_k=0)
    assert [result.name for result in found.results] == [
      stored.image_names[image] for image in ranking.image_ids
    ]
    for name in ('score', 'local_score', 'global_score'):
      np.testing.assert_allclose(
        [getattr(result, name) for result in found.results], getattr(ranking, f'{name}s'), atol=1e-5
      )
    assert [result.best_region for result in found.results] == ranking.best_regions.tolist()


def test_a_shorter_answer_is_the_beginning_and_scores_are_sums(fused_dir, query_path):
  engine = SearchEngine.load(fused_dir)
  whole = engine.search(query_path, top_k=0)
  assert engine.search(query_path, top_k=3).results[2].name == whole.results[2].name
  assert all(r.score == pytest.approx(r.local_score + r.global_score, abs=1e-5) for r in whole.results)
  assert whole.other_features.features.dimensions == 128
  assert len(whole.other_features.features) <= 60 < whole.num_features
  assert whole.seconds.keys() == {'decode', 'extract', 'describe', 'search'}
  with_boxes = whole.results[0]
  assert len(with_boxes.boxes) == 4
  # The steps of a search, one by one.
  query, other = engine.describe(whole.features), engine.describe_other(whole.other_features)
  ranking = engine.rank(query, top_k=2, other=other)
  assert [r.name for r in engine.results(ranking)] == [r.name for r in whole.results[:2]]
  assert engine.results(ranking)[1].global_score == whole.results[1].global_score
  alone = SearchEngine.load(fused_dir / 'index')
  np.testing.assert_array_equal(
    engine.rank(query, top_k=0).scores, alone.rank(alone.describe(whole.features), top_k=0).scores
  )


def test_a_verified_answer_has_the_parts_of_the_fused_one(fused_dir, query_path):
  engine = load(fused_dir)
  plain = {r.name: (r.score, r.local_score, r.global_score) for r in engine.search(query_path).results}
  verified = engine.search(query_path, top_k=5, verify=True).results
  assert sum(r.inliers is not None for r in verified) == 3
  assert {r.name for r in verified[:3]} == set(list(plain)[:3])
  assert {r.name: (r.score, r.local_score, r.global_score) for r in verified}.items() <= plain.items()


def test_the_weight_may_be_another(fused_dir, query_path):
  engine = SearchEngine.load(fused_dir, fusion=FusionConfig(weight=0))
  assert {r.global_score for r in engine.search(query_path).results} == {0}
  assert engine.fusion.weight == 0
  assert SearchEngine.load(fused_dir).fusion.weight == np.float32(0.7)
  with pytest.raises(UserError, match='one index alone, so there are no scores to add'):
    SearchEngine.load(fused_dir / 'index', fusion=FusionConfig(weight=0))


def test_each_index_alone(fused_dir, query_path):
  alone = SearchEngine.load(fused_dir / 'index')
  found = alone.search(query_path, top_k=1)
  assert (found.results[0].local_score, found.other_features, alone.fusion) == (None, None, None)
  other = SearchEngine.load(fused_dir / 'other' / 'index')
  assert other.search(query_path, top_k=1).results[0].best_region == -1
  with pytest.raises(UserError, match=r'one index alone\. Load the folder of a run'):
    alone.describe_other(found.features)


def test_a_query_without_local_features_is_ranked_by_the_other_search(fused_dir, monkeypatch, query_path):
  engine = SearchEngine.load(fused_dir)
  reader = engine._parts.reader
  read = reader.query_features
  monkeypatch.setattr(
    reader, 'query_features', lambda pixels, box: read(np.full((40, 40, 3), 9, np.uint8), None)
  )
  found = engine.search(query_path)
  assert (found.num_features, found.can_find) == (0, True)
  assert {r.local_score for r in found.results} == {0}
  assert len({r.score for r in found.results}) > 3
  flat = engine.search(np.full((40, 40, 3), 9, np.uint8))
  assert not flat.can_find
  assert {r.score for r in flat.results} == {0}


@pytest.mark.slow
def test_a_run_without_queries_has_both_indexes(photos, tmp_path, query_path):
  small = CONFIG.replace('source: UNIFORM uniform { boxes_per_side: [2] }', 'source: NONE')
  small = small.replace('regions: REGIONAL_AGGREGATION region_masks: true', '')
  (tmp_path / 'fused.pbtxt').write_text(small)
  experiment.run(
    config.load(tmp_path / 'fused.pbtxt', experiment.STAGES),
    Dataset.load(photos.images_dir),
    tmp_path / 'out',
    options=experiment.Options(workers=1),
  )
  assert SearchEngine.load(tmp_path / 'out').search(query_path, top_k=1).results[0].local_score is not None
  shutil.rmtree(tmp_path / 'out' / 'other' / 'index')
  with pytest.raises(ArtefactError, match=r'other/index: no finished artefact .* has a fusion, whose scores'):
    SearchEngine.load(tmp_path / 'out')


def test_preloading_reads_both(fused_dir):
  reports = []
  engine = SearchEngine.load(fused_dir)
  read = engine.preload(lambda done, total: reports.append((done, total)))
  assert reports[-1] == (read, read)
  assert all(done < total for done, total in reports[:-1])
  parts = [SearchEngine.load(fused_dir / name).preload() for name in ('index', 'other/index')]
  assert read == sum(parts)


# Changes -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_photos_come_and_go_in_both(live_dir, query_path):
  engine = load(live_dir)
  size, before = len(engine), answer(engine, query_path)
  engine.add({'new.jpg': query_path, 'noise': PHOTOS[0]})
  assert len(engine) == size + 2
  assert engine.search(query_path, top_k=1).results[0].name == 'new.jpg'
  assert engine.search(PHOTOS[0], top_k=1, verify=True).results[0].name == 'noise'
  assert answer(load(live_dir), query_path) == before
  engine.save()
  again = load(live_dir)
  assert answer(again, query_path) == answer(engine, query_path)
  assert list(again.index.image_names) == names_in(live_dir / 'other' / 'index')
  again.remove(['new.jpg'])
  assert 'new.jpg' not in [name for name, *_ in answer(again, query_path)]
  again.remove(['noise'])
  assert answer(again, query_path) == before
  again.save()
  assert answer(load(live_dir), query_path) == before
  assert answer(engine, query_path) == before  # Another process takes it over.
  assert names_in(live_dir) == names_in(live_dir / 'other' / 'index')


@pytest.mark.slow
def test_scores_after_changes_are_those_of_a_fresh_run(live_dir, photos, query_path, tmp_path):
  """Images that were removed from the first index and not yet from the other one do not count."""
  engine = load(live_dir)
  names = list(engine.index.image_names)
  engine.photos = PhotoFolders.of([photos.images_dir])
  before = answer(engine, query_path)
  engine.remove(names[-2:])
  reduced = answer(engine, query_path)
  assert [result[1] for result in reduced] != [result[1] for result in before[: len(reduced)]]
  engine.save()
  assert answer(load(live_dir), query_path) == reduced
  engine.add([photos.images_dir / name for name in names[-2:]])
  np.testing.assert_allclose(
    [result[1:4] for result in answer(engine, query_path)], [result[1:4] for result in before], atol=1e-5
  )


def test_another_photo_of_the_same_name(live_dir):
  engine = load(live_dir)
  engine.add({'x': PHOTOS[0]})
  engine.save()
  for photo in (PHOTOS[1], PHOTOS[2], PHOTOS[2]):
    engine.remove(['x'])
    engine.add({'x': photo})
    assert engine.search(photo, top_k=1).results[0].name == 'x'
  assert first_name(live_dir, PHOTOS[0]) == 'x'
  engine.save()
  assert first_name(live_dir, PHOTOS[2]) == 'x'
  other = load(live_dir / 'other' / 'index')
  assert list(other.index.image_names) == names_in(live_dir)
  assert other.search(PHOTOS[2], top_k=1).results[0].name == 'x'
  assert other.search(PHOTOS[2], top_k=1).results[0].score == pytest.approx(1, abs=5e-3)


def test_a_photo_that_fails_changes_neither(live_dir, query_path):
  engine = load(live_dir)
  with pytest.raises(UserError, match='broken: not an image'):
    engine.add({'good': query_path, 'broken': b'no photo'})
  other = load(live_dir)
  other.add({'good': query_path})  # Neither index is locked.
  with pytest.raises(UserError, match='another update of the index is not finished'):
    engine.add({'better': PHOTOS[0]})
  with pytest.raises(UserError, match='in the index already: good'):
    other.add({'good': PHOTOS[0]})
  other.reload()
  engine.add({'better': PHOTOS[0]})
  engine.save()
  assert names_in(live_dir)[-1] == 'better'


def test_a_failure_of_the_other_index_changes_neither(live_dir, monkeypatch, query_path):
  engine = load(live_dir)
  before = names_in(live_dir)
  fused = engine._parts.fused

  def fail(*arguments):
    raise UserError('no network')

  with monkeypatch.context() as patch:
    patch.setattr(fused.reader, 'index_image', fail)
    with pytest.raises(UserError, match='no network'):
      engine.add({'new': query_path})
  assert list(engine.index.image_names) == before
  another = load(live_dir)
  another.remove(before[:1])
  another.save()
  with pytest.raises(UserError, match=r'holds another index than the one loaded .* loaded again now'):
    engine.add({'new': query_path})
  assert list(engine.index.image_names) == before[1:]
  engine.add({'new': query_path})
  engine.save()
  assert names_in(live_dir) == [*before[1:], 'new'] == names_in(live_dir / 'other' / 'index')


def test_changes_are_abandoned_in_both(live_dir, query_path):
  engine = load(live_dir)
  before = answer(engine, query_path)
  engine.add({'new': query_path})
  engine.remove([engine.index.image_names[0]])
  engine.reload()
  assert answer(engine, query_path) == before
  another = load(live_dir)
  another.add({'other': PHOTOS[0]})
  another.save()
  assert engine.search(PHOTOS[0], top_k=1).results[0].name == 'other'


# Kills -------------------------------------------------------------------------------------------------


class Killed(BaseException):
  """Stands for the end of the process."""


# Saves, in order: of the other index with the new images, of the first, of the other without the old ones.
@pytest.mark.slow
@pytest.mark.parametrize(('saves', 'is_new'), [(0, False), (1, False), (2, True), (3, True)])
def test_a_kill_between_two_saves_leaves_the_old_images_or_the_new_ones(
  live_dir, monkeypatch, query_path, saves, is_new
):
  engine = load(live_dir)
  engine.add({'x': PHOTOS[0]})
  engine.save()
  old = answer(load(live_dir), query_path), answer(load(live_dir), PHOTOS[1])
  engine.remove(['x', engine.index.image_names[0]])
  engine.add({'x': PHOTOS[1], 'y': PHOTOS[2]})
  new = answer(engine, query_path), answer(engine, PHOTOS[1])
  done, save = [], LiveIndex._save

  def save_some(self, index):
    if len(done) == saves:
      raise Killed
    done.append(self.artefact.path)
    save(self, index)

  with monkeypatch.context() as patch:
    patch.setattr(LiveIndex, '_save', save_some)
    if saves < 3:
      with pytest.raises(Killed):
        engine.save()
    else:
      engine.save()
  del engine
  found = load(live_dir)
  state = answer(found, query_path), answer(found, PHOTOS[1])
  for ours, theirs in zip(state, new if is_new else old, strict=True):
    assert [r[0] for r in ours] == [r[0] for r in theirs]
    np.testing.assert_allclose([r[1:4] for r in ours], [r[1:4] for r in theirs], atol=1e-5)
  # What is left over is removed by the next save, and both go on.
  found.add({'z': PHOTOS[3]})
  found.save()
  assert sorted(names_in(live_dir)) == sorted(names_in(live_dir / 'other' / 'index'))
  assert first_name(live_dir, PHOTOS[3]) == 'z'
  assert first_name(live_dir, PHOTOS[1 if is_new else 0]) == 'x'
  other = load(live_dir / 'other' / 'index')
  assert set(other._parts.live.snapshot.state.added) == {'x', 'y', 'z'} - (set() if is_new else {'y'})


@pytest.mark.slow
def test_an_index_that_was_changed_alone_is_seen(live_dir, query_path, caplog):
  reader = load(live_dir)
  before = answer(reader, query_path)
  alone = load(live_dir / 'index')
  alone.add({'new': query_path})
  alone.save()
  with pytest.raises(ArtefactError, match=r'other/index: lacks 1 of the \d+ images of .*, for example new'):
    load(live_dir)
  # An engine that is open goes on with what it has, and says so once.
  for _ in range(3):
    assert answer(reader, query_path) == before
  assert caplog.text.count('lacks 1 of the') == 1
  alone.remove(['new'])
  alone.save()
  engine = load(live_dir)
  engine.add({'new': query_path})
  engine.save()
  assert reader.search(query_path, top_k=1).results[0].name == 'new'


@pytest.mark.slow
def test_an_index_that_lost_images_alone_is_searched_without_them(live_dir, query_path):
  alone = load(live_dir / 'index')
  gone = alone.index.image_names[0]
  alone.remove([gone])
  alone.save()
  engine = load(live_dir)
  assert gone not in [name for name, *_ in answer(engine, query_path)]
  assert len(answer(engine, query_path)) == len(engine)
  engine.save()
  assert gone not in names_in(live_dir / 'other' / 'index')


def found_by_doctor(directory):
  """Returns what is found at the index of the other search; all else is found without a fusion, too."""
  found = [finding for finding in diagnose(directory).findings if 'other/index' in finding.place]
  return [f'{finding.severity.name} {finding.problem}' for finding in found]


@pytest.mark.slow
def test_the_doctor_compares_both_indexes(live_dir, monkeypatch, query_path):
  assert found_by_doctor(live_dir) == []
  engine = load(live_dir)
  engine.remove([engine.index.image_names[0]])
  engine.add({'new': query_path})
  with monkeypatch.context() as patch:
    patch.setattr(engine._parts.live, '_tidy', lambda: None)
    engine.save()
  found = '\n'.join(found_by_doctor(live_dir))
  assert 'NOTE images that' in found
  assert 'that are not searched: 1 (' in found
  assert 'ERROR' not in found
  engine.save()
  assert 'not searched' not in '\n'.join(found_by_doctor(live_dir))
  alone = load(live_dir / 'index')
  alone.add({'alone': PHOTOS[0]})
  alone.save()
  assert f'ERROR lacks images of {live_dir}/index, 1 (alone)' in '\n'.join(found_by_doctor(live_dir))
  shutil.rmtree(live_dir / 'other' / 'index')
  assert any('missing' in problem for problem in found_by_doctor(live_dir))


def test_one_of_two_indexes_is_not_split(fused_dir, tmp_path):
  with pytest.raises(UserError, match=r'has a fusion .* scores of one search alone'):
    split_index.run(Artefact.open(fused_dir / 'index', 'index'), tmp_path / 'split', shards=2)
  copy = shutil.copytree(fused_dir / 'index', tmp_path / 'copy')
  assert len(split_index.run(Artefact.open(copy, 'index'), tmp_path / 'split', shards=2)) == 3


@pytest.mark.slow
def test_global_descriptors_of_the_shipped_model(photos, query_path, tmp_path):
  """The other search as it is meant: one descriptor of a network, in one byte a dimension."""
  text = CONFIG.replace(
    'extraction { max_features: 60 max_image_size: 160 max_crop_size: 160 }',
    'extraction { extractor: GLOBAL max_image_size: 96 min_image_size: 96'
    ' global_descriptor { shipped_model: true image_scales: 1.0 } }',
  ).replace('codebook { num_words: 1 iterations: 3 }', 'codebook { source: ORIGIN num_words: 1 }')
  assert 'shipped_model' in text
  (tmp_path / 'fused.pbtxt').write_text(text)
  images = tmp_path / 'images'
  images.mkdir()
  for photo in sorted(photos.images_dir.rglob('*.jpg'))[:6]:
    shutil.copy(photo, images)
  experiment.run(
    config.load(tmp_path / 'fused.pbtxt', experiment.STAGES),
    Dataset.load(images),
    tmp_path / 'out',
    options=experiment.Options(workers=1),
  )
  engine = SearchEngine.load(tmp_path / 'out')
  engine.add({'new': query_path})
  engine.save()
  found = SearchEngine.load(tmp_path / 'out').search(query_path, box=(0, 0, 1, 1), top_k=0)
  assert found.results[0].name == 'new'
  assert len(found.other_features.features) == 1
  other = SearchEngine.load(tmp_path / 'out' / 'other' / 'index')
  assert other.search(query_path, top_k=1).results[0].score == pytest.approx(1, abs=0.01)
  dimensions = other.index.dimensions
  assert other.index.nbytes - other.index._state.images.nbytes == 7 * (dimensions + 4)
  models = [
    Artefact.open(tmp_path / 'out' / name, 'descriptors') for name in ('descriptors', 'other/descriptors')
  ]
  background = train_background.run(*models, tmp_path / 'background')
  options = FusionConfig(normalization=FusionConfig.BACKGROUND, power=2, background_path=str(background.path))
  calibrated = SearchEngine.load(tmp_path / 'out', fusion=options).search(query_path, top_k=1)
  assert calibrated.results[0].name == 'new'
  _require_both_sides(tmp_path / 'out', background.path, query_path)
  facts = background.path / 'background.json'
  facts.write_text(facts.read_text().replace('"models": {\n  "', '"models": {\n  "another '))
  with pytest.raises(UserError, match=r'is of the global \w+ None, that of .*other/index is [0-9a-f]{16}'):
    SearchEngine.load(tmp_path / 'out', fusion=options)


def _require_both_sides(run, background, query_path):
  """Asserts that the global part is standardised by query and image, by the definition."""
  options = FusionConfig(
    normalization=FusionConfig.BACKGROUND, both_sides=True, weight=1, background_path=str(background)
  )
  found = SearchEngine.load(run, fusion=options).search(query_path, box=(0, 0, 1, 1), top_k=0)
  other = SearchEngine.load(run / 'other' / 'index')
  raw = {result.name: result.score for result in other.search(query_path, box=(0, 0, 1, 1), top_k=0).results}
  rows = dict(zip(other.index.image_names, np.concatenate(list(other.index.dense_rows())), strict=True))
  statistics = background_files.load(background).descriptors
  query = statistics.expected(other.describe(found.other_features).values[0])
  assert len(found.results) == 7
  for result in found.results:
    image = statistics.expected(rows[result.name])
    sides = [(raw[result.name] - each.mean) / each.deviation for each in (query, image)]
    assert result.global_score == pytest.approx(np.mean(sides), abs=1e-3), result.name
