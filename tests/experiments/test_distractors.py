"""Distractors: an index with more photos, while no artefact of the run is computed again."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.run_files import contents

from delf_d2r import config
from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.artefact import RUN_CONFIG
from delf_d2r.data.photos import distractor_list
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import distractors, experiment
from delf_d2r.protos.regions_pb2 import RegionsConfig
from delf_d2r.stages import build_index

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SHARED = ('features', 'codebook', 'descriptors', 'index', 'query_features')


@pytest.fixture(scope='module')
def folder(benchmark, tmp_path_factory) -> pathlib.Path:
  """Mirrored photos of the queries' objects under the names that the ground truth uses."""
  made = tmp_path_factory.mktemp('more') / 'revisitop1m'
  (made / 'jpg').mkdir(parents=True)
  names = sorted(file.name for file in benchmark.images_dir.iterdir())[:6]
  for name in [*names, 'not_on_the_list.jpg']:
    source = benchmark.images_dir / (name if name in names else names[0])
    Image.open(source).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(made / 'jpg' / name)
  (made / 'revisitop1m.txt').write_text('\n'.join(pathlib.Path(name).stem for name in reversed(names)))
  return made


@pytest.fixture(scope='module')
def base(run, finished, tmp_path_factory):
  given = {kind: finished.artefacts[kind] for kind in SHARED}
  return run(
    'verification { num_images: 8 }', 'expansion { }', output=tmp_path_factory.mktemp('base'), given=given
  )


@pytest.fixture(scope='module')
def among(load, benchmark, base, folder):
  """Runs among distractors; by default those of `folder`."""

  def run_among(photos=None, given=None):
    return distractors.run(
      load('verification { num_images: 8 }', 'expansion { }'),
      base,
      photos or distractor_list.load(folder),
      base.page.parent.parent,
      ground_truth=benchmark.ground_truth_path,
      given=given,
      options=experiment.Options(workers=1),
    )

  return run_among


@pytest.fixture(scope='module')
def before(base):
  return contents(base.page.parent.parent)


@pytest.fixture(scope='module')
def joined(before, among):
  return among()


def scores(artefact):
  stored = ranking_files.load(artefact.path)
  return {
    ranking.query: {
      stored.image_names[i]: score for i, score in zip(ranking.image_ids, ranking.scores, strict=True)
    }
    for ranking in stored.rankings
  }


def test_the_list_decides_what_counts_and_in_which_order(folder):
  photos = distractor_list.load(folder)
  listed = (folder / 'revisitop1m.txt').read_text().split()
  assert photos.names == tuple(f'revisitop1m/jpg/{name}.jpg' for name in listed)
  assert all(photos.path(name).is_file() for name in photos.names)


def test_a_folder_without_list_is_taken_whole(folder):
  assert len(distractor_list.load(folder / 'jpg')) == 7
  assert distractor_list.load(folder / 'jpg').names[0].startswith('jpg/')


@pytest.mark.parametrize(
  ('text', 'message'), [('a\na\n', 'appears 2 times'), ('\n', 'found none'), ('nowhere\n', "'nowhere'")]
)
def test_lists_that_do_not_fit(folder, tmp_path, text, message):
  (tmp_path / 'jpg').symlink_to(folder / 'jpg')
  (tmp_path / 'revisitop1m.txt').write_text(text)
  with pytest.raises(UserError, match=message):
    distractor_list.load(tmp_path)


def test_the_run_stays_as_it_was(base, before, joined):
  after = contents(base.page.parent.parent)
  assert before == {name: after[name] for name in before}
  assert {name.split('/')[0] for name in after.keys() - before.keys()} == {'distractors', 'with_distractors'}
  assert joined.artefacts['codebook'] == base.artefacts['codebook']


def test_scores_of_photos_do_not_depend_on_distractors(base, joined):
  alone, among_others = scores(base.artefacts['rankings']), scores(joined.artefacts['rankings'])
  for query, of_image in alone.items():
    found = among_others[query]
    assert of_image == {name: found[name] for name in of_image}
    assert len(found) == len(of_image) + 6


def test_one_index_of_all_photos_ranks_alike(load, benchmark, base, folder, joined, tmp_path):
  (tmp_path / 'revisitop1m').symlink_to(folder)
  for file in benchmark.images_dir.iterdir():
    (tmp_path / file.name).symlink_to(file)
  stored = ranking_files.load(joined.artefacts['rankings'].path)
  whole = experiment.run(
    load(),
    Dataset(ImageList(tmp_path, stored.image_names), base.reported.dataset.queries),
    tmp_path / 'run',
    ground_truth=benchmark.ground_truth_path,
    given={kind: base.artefacts[kind] for kind in ('codebook', 'query_features')},
    options=experiment.Options(workers=1),
  )
  for ours, theirs in zip(
    stored.rankings, ranking_files.load(whole.artefacts['rankings'].path).rankings, strict=True
  ):
    np.testing.assert_array_equal(ours.image_ids, theirs.image_ids)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_metrics_count_distractors_as_wrong(base, joined):
  alone, among_others = (
    metrics_files.read_per_query(outcome.artefacts['metrics'].path / 'per_query.json')
    for outcome in (base, joined)
  )
  for name, values in alone.protocols.items():
    ours, theirs = values.average_precisions, among_others.protocols[name].average_precisions
    assert np.all(np.isnan(ours) == np.isnan(theirs))
    assert np.all(theirs[~np.isnan(theirs)] <= ours[~np.isnan(ours)] + 1e-12)
  # Mirrored photos of an object are found, so that mAP would not drop if they counted as right.
  medium = [metrics.protocols['medium'].mean_average_precision for metrics in (alone, among_others)]
  assert medium[1] < medium[0]


def test_distractors_are_verified_and_searched(joined, folder):
  for kind in ('reranked', 'reranked_metrics', 'expanded', 'expanded_metrics'):
    assert joined.artefacts[kind].counts.get('distractors', 6) == 6
  engine = SearchEngine.load(joined.page.parent.parent)
  photo = distractor_list.load(folder).names[2]
  answer = engine.search(folder.parent / photo, top_k=3, verify=True)
  assert answer.results[0].name == photo
  assert answer.results[0].inliers > 20


def test_the_report_shows_distractors(joined):
  page = joined.page.read_text(encoding='utf-8')
  assert '6 of them distractors' in page
  assert 'revisitop1m/jpg/' in page
  assert '>no photo<' not in page


def test_the_binary_reports_a_run_among_distractors(joined, benchmark, tmp_path):
  command = [
    sys.executable,
    REPOSITORY / 'tools/make_report.py',
    f'--experiment={joined.page.parent.parent}',
    f'--images={benchmark.images_dir}',
    f'--ground_truth={benchmark.ground_truth_path}',
    f'--query_images={benchmark.queries_dir}',
    f'--output={tmp_path}',
    '--matches=2',
  ]
  process = subprocess.run(command, capture_output=True, text=True, check=False)
  assert process.returncode == 0, process.stderr
  page = (tmp_path / 'index.html').read_text(encoding='utf-8')
  assert 'revisitop1m/jpg/' in page
  assert '>no photo<' not in page


@pytest.mark.parametrize('kinds', [(), ('features', 'descriptors', 'index'), ('distractor_features',)])
def test_a_second_run_makes_nothing_whatever_it_is_given(joined, among, kinds):
  place = joined.page.parent.parent.parent
  files = {file: file.stat().st_mtime_ns for file in place.rglob('*.npy')}
  again = among(given={kind: joined.artefacts[kind] for kind in kinds})
  assert scores(again.artefacts['rankings']) == scores(joined.artefacts['rankings'])
  assert files == {file: file.stat().st_mtime_ns for file in place.rglob('*.npy')}


def test_other_distractors_in_the_same_place_are_refused(joined, among, folder):
  with pytest.raises(ArtefactError, match='input images'):
    among(distractor_list.load(folder / 'jpg'))


def test_photos_of_the_run_are_refused(among, benchmark, tmp_path):
  """The folder is that of the distractors, a parent of it, below it, or a link to it."""
  (tmp_path / 'link').symlink_to(benchmark.images_dir)
  (tmp_path / 'photos').mkdir()
  photo = next(benchmark.images_dir.iterdir())
  (tmp_path / 'photos' / 'other.jpg').symlink_to(photo)
  for folder, count in (
    (benchmark.images_dir, len(list(benchmark.images_dir.iterdir()))),
    (benchmark.images_dir.parent, len(list(benchmark.images_dir.iterdir()))),
    (tmp_path / 'link', len(list(benchmark.images_dir.iterdir()))),
    (tmp_path / 'photos', 1),
  ):
    message = f'^{folder.resolve()}: {count} of these distractors are photos of .* {benchmark.images_dir}'
    with pytest.raises(UserError, match=f'{message}.*Give a folder of other photos'):
      among(distractor_list.load(folder))
  with pytest.raises(UserError, match=f'photos of the data set in {benchmark.queries_dir}'):
    among(distractor_list.load(benchmark.queries_dir))


def test_names_of_the_run_are_refused(among, base):
  with pytest.raises(UserError, match='Rename the folder'):
    among(base.reported.dataset.images)


def test_boxes_of_distractors_come_from_a_file_of_their_own(load, base, folder, tmp_path):
  boxed = load()
  boxed.regions.ClearField('uniform')
  boxed.regions.source = RegionsConfig.FILE
  with pytest.raises(UserError, match=r'regions\.source is FILE but there is no file'):
    distractors.run(boxed, base, distractor_list.load(folder), tmp_path)


def test_descriptors_of_another_codebook_are_refused(run, load, base, joined, tmp_path):
  other = run('codebook.num_words: 64', output=tmp_path, given={'features': base.artefacts['features']})
  with pytest.raises(UserError, match=r'codebook.num_words is 64'):
    build_index.run(
      load(),
      joined.artefacts['descriptors'],
      joined.artefacts['codebook'],
      tmp_path / 'mixed',
      distractors=other.artefacts['descriptors'],
    )


def test_configs_of_the_run_are_those_among_distractors(joined):
  found = config.load(joined.page.parent.parent / RUN_CONFIG, experiment.STAGES)
  assert found.verification.num_images == 8


def test_a_second_search_and_second_features_among_distractors(
  run, load, benchmark, finished, folder, tmp_path
):
  seconds = (
    'fusion { extraction { root_sift { upright: true } max_features: 60 } codebook { num_words: 64 } }',
    'fusion.extraction { max_image_size: 160 max_crop_size: 128 }',
    'fusion { aggregation { } }',
    'verification { num_images: 4 extraction { max_features: 80 max_image_size: 256 } }',
  )
  given = {kind: finished.artefacts[kind] for kind in SHARED}
  base = run(*seconds, output=tmp_path, given=given)
  before = contents(tmp_path)
  joined = distractors.run(
    load(*seconds),
    base,
    distractor_list.load(folder),
    tmp_path,
    ground_truth=benchmark.ground_truth_path,
    options=experiment.Options(workers=1),
  )
  after = contents(tmp_path)
  assert before == {name: after[name] for name in before}
  for kind in ('fused', 'reranked'):
    counts = joined.artefacts[kind].counts
    assert counts['images'] == base.artefacts[kind].counts['images'] + 6
    assert counts['distractors'] == 6
