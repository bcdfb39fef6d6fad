"""Spatial verification in a whole run, and by the binaries."""

import pathlib
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from oracles import evaluation_oracle, matching_oracle
from skimage import measure, transform

from delf_d2r.data.artefacts import feature_files, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.ground_truth import resolved
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.doctor import inspect
from delf_d2r.engine import SearchEngine
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import experiment, reproduction
from delf_d2r.stages import evaluate_retrieval

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# With the few features of these runs, many true pairs have no more inliers than chance allows.
VERIFICATION = 'verification { num_images: 10 max_false_alarms: 1e30 }'


@pytest.fixture(scope='module')
def verified(run, finished):
  given = {kind: finished.artefacts[kind] for kind in ('features', 'codebook', 'query_features')}
  return run(VERIFICATION, given=given)


def mean_average_precision(artefact):
  return metrics_files.read_metrics_json(artefact.path / 'metrics.json')['medium'].mean_average_precision


@pytest.mark.slow
def test_metrics_before_and_after(verified, finished):
  made = verified.artefacts
  before, after = (mean_average_precision(made[kind]) for kind in ('metrics', 'reranked_metrics'))
  assert before == mean_average_precision(finished.artefacts['metrics'])
  assert after > before
  text = (made['reranked_metrics'].path / 'metrics.txt').read_text()
  assert 'hard_after_gv' in text
  assert 'hard_after_gv' not in (made['metrics'].path / 'metrics.txt').read_text()


def test_what_is_reported_is_after(verified):
  made = verified.artefacts
  assert verified.reported.metrics == made['reranked_metrics']
  assert f'{100 * mean_average_precision(made["reranked_metrics"]):.2f}' in experiment.summary(verified)
  assert verified.page.is_file()


@pytest.mark.slow
def test_a_moved_run_is_verified_from_anywhere_by_its_stored_features(
  load, dataset, finished, benchmark, tmp_path, monkeypatch
):
  """A run with a relative --output, as in README, is moved and searched from another folder."""
  monkeypatch.chdir(tmp_path)
  given = {kind: finished.artefacts[kind] for kind in ('features', 'codebook')}
  (tmp_path / 'first').mkdir()
  shutil.copytree(given['features'].path, tmp_path / 'first' / 'features')
  given['features'] = Artefact.open('first/features', 'features')
  options = {'ground_truth': benchmark.ground_truth_path, 'options': experiment.Options(workers=1)}
  experiment.run(load(VERIFICATION), dataset, pathlib.Path('first'), given=given, **options)
  (tmp_path / 'first').rename(tmp_path / 'second')
  monkeypatch.chdir('/')
  engine = SearchEngine.load(tmp_path / 'second')
  assert engine.verifies
  engine.photos = PhotoFolders()  # So that nothing can be extracted again.
  name = dataset.images.names[0]
  (best,) = engine.search(dataset.images.path(name), top_k=1, verify=True).results
  assert best.name == name
  assert best.inliers > 20


@pytest.mark.slow
def test_a_single_photo_is_verified_as_the_run_is(verified, finished, dataset):
  photo = dataset.images.path(dataset.images.names[0])
  where = verified.artefacts['index'].path.parent
  unverified = finished.artefacts['index'].path.parent
  found = [
    binary('search_index', f'--index={index}', f'--query={photo}', *more).stdout
    for index, more in ((where, ()), (where, ['--noverify']), (unverified, ()), (unverified, ['--verify']))
  ]
  assert [' inliers)' in text for text in found] == [True, False, False, True], found


COMPAT = 'verification { compat: true junk: SKIP_EACH num_images: 3 trials: 60 }'


@pytest.mark.slow
def test_the_research_rule_with_the_junk_of_each_protocol(run, finished, dataset, benchmark):
  kinds = ('features', 'codebook', 'descriptors', 'index', 'query_features')
  given = {kind: finished.artefacts[kind] for kind in kinds}
  made = run(COMPAT, given=given).artefacts
  stored = ranking_files.load(made['rankings'].path)
  images = [image.region(0) for image in feature_files.read(given['features'])]
  queries = {query.name: query.region(0) for query in feature_files.read(given['query_features'])}
  truth = resolved.resolved_queries(made['rankings'], stored, dataset.queries.ground_truth)
  found = metrics_files.read_metrics_json(made['reranked_metrics'].path / 'metrics.json')
  values = {}
  for protocol in ('medium', 'hard'):
    precisions = []
    for query, ranking in zip(truth, stored.rankings, strict=True):
      positives, junk = evaluation_oracle.positives_and_junk(
        *(getattr(query, label).tolist() for label in ('easy', 'hard', 'junk')), protocol
      )
      scores = dict(zip(ranking.image_ids.tolist(), ranking.scores.tolist(), strict=True))
      head = [image for image in scores if image not in junk][:3]
      inliers = {image: inliers_of(queries[query.name], images[image]) for image in head}
      order = sorted(scores, key=lambda image: (inliers.get(image, 0), scores[image]), reverse=True)
      if positives:
        precisions.append(evaluation_oracle.average_precision(order, positives, junk))
    values[protocol] = np.mean(precisions)
    assert found[protocol].mean_average_precision == pytest.approx(values[protocol], abs=1e-9)
  # The order for medium would be wrong for hard.
  other = evaluate_retrieval.score(ranking_files.load(made['reranked'].path), truth).protocols['hard']
  assert other.mean_average_precision != pytest.approx(values['hard'], abs=1e-9)


def inliers_of(query, index):
  """See docs/reference.md 4.7."""
  pairs = matching_oracle.one_way_matches(query.descriptors, index.descriptors, max_distance=0.9)
  if len(pairs) <= 3:
    return 0
  chosen = [list(column) for column in zip(*pairs, strict=True)]
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    _, agree = measure.ransac(
      (index.locations[chosen[1]], query.locations[chosen[0]]),
      transform.AffineTransform,
      min_samples=3,
      residual_threshold=10,
      max_trials=60,
      rng=0,
    )
  return 0 if agree is None else int(agree.sum())


@pytest.mark.slow
def test_a_run_that_verifies_twice_goes_on_and_is_whole(run, load, finished, dataset, benchmark, tmp_path):
  kinds = ('features', 'codebook', 'descriptors', 'index', 'query_features')
  given = {kind: finished.artefacts[kind] for kind in kinds}
  text = 'verification { junk: SKIP_EACH num_images: 2 }'
  made = run(text, given=given, output=tmp_path).artefacts
  assert made['reranked'].manifest.fingerprint != made['reranked_hard'].manifest.fingerprint
  before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob('rerank*/*')}
  run(text, given=given, output=tmp_path)
  assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob('rerank*/*')}
  assert not inspect.diagnose(tmp_path).exit_code
  inputs = (resolved.ground_truth_input(benchmark.ground_truth_path),)
  assert not reproduction.output_conflicts(load(text), inputs, tmp_path)
  found = reproduction.output_conflicts(load(text.replace('EACH', 'HARD')), inputs, tmp_path)
  assert found == ['verification.junk is SKIP_EACH there, SKIP_HARD here']
  scores = [
    binary(
      'evaluate_retrieval',
      f'--rankings={tmp_path / "reranked"}',
      f'--rankings_before={tmp_path / "rankings"}',
      f'--rankings_hard={tmp_path / "reranked_hard"}',
      f'--ground_truth={benchmark.ground_truth_path}',
      f'--output={tmp_path / "again"}',
    ).stdout
  ]
  assert scores == [(tmp_path / 'reranked_metrics' / 'metrics.txt').read_text()]


def test_without_verification_there_is_none(finished):
  assert 'reranked' not in finished.artefacts


def binary(name, *arguments):
  command = [sys.executable, str(REPOSITORY / 'tools' / f'{name}.py'), *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_expanded_queries(run, verified):
  made = verified.artefacts
  given = {kind: made[kind] for kind in ('features', 'codebook', 'query_features')}
  expanded = run(VERIFICATION, 'expansion { min_inliers: 6 }', given=given)
  assert expanded.reported.metrics == expanded.artefacts['expanded_metrics']
  assert expanded.artefacts['expanded'].counts['expanded'] > 0
  before, after = (
    mean_average_precision(expanded.artefacts[f'{k}_metrics']) for k in ('reranked', 'expanded')
  )
  assert after > before - 0.05
  done = binary(
    'expand_queries',
    f'--rankings={expanded.artefacts["reranked"].path}',
    f'--index={expanded.artefacts["index"].path}',
    f'--features={made["features"].path}',
    f'--query_features={made["query_features"].path}',
    '--override=expansion.min_inliers: 6',
    f'--output={expanded.artefacts["expanded"].path}',
  )
  assert done.returncode == 0, done.stderr
  assert 'is up to date' in done.stderr


@pytest.mark.slow
def test_binaries_do_the_same(verified, benchmark, tmp_path):
  made = verified.artefacts
  done = binary(
    'rerank_results',
    f'--rankings={made["rankings"].path}',
    f'--features={made["features"].path}',
    f'--query_features={made["query_features"].path}',
    f'--override={VERIFICATION}',
    f'--output={tmp_path / "reranked"}',
  )
  assert done.returncode == 0, done.stderr
  found = Artefact.open(tmp_path / 'reranked', 'rankings')
  assert found.manifest.fingerprint == made['reranked'].manifest.fingerprint
  rankings = [ranking_files.load(artefact.path).rankings for artefact in (found, made['reranked'])]
  assert [r.image_ids.tolist() for r in rankings[0]] == [r.image_ids.tolist() for r in rankings[1]]
  done = binary(
    'evaluate_retrieval',
    f'--rankings={tmp_path / "reranked"}',
    f'--rankings_before={made["rankings"].path}',
    f'--ground_truth={benchmark.ground_truth_path}',
    f'--output={tmp_path / "metrics"}',
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == (made['reranked_metrics'].path / 'metrics.txt').read_text()


def test_an_error_is_one_line(verified, tmp_path):
  made = verified.artefacts
  done = binary(
    'rerank_results',
    f'--rankings={made["reranked"].path}',
    f'--features={made["features"].path}',
    f'--query_features={made["query_features"].path}',
    f'--output={tmp_path / "again"}',
  )
  assert done.returncode == 1
  assert done.stderr.startswith('error: ')
  assert 'verified already' in done.stderr
  assert 'Traceback' not in done.stderr
