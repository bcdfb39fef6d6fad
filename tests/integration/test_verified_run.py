"""Spatial verification in a whole run, and by the binaries."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from delf_d2r.data import ranking_files
from delf_d2r.data.artefacts import Artefact
from delf_d2r.data.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import experiment

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# With the few features of these runs many a true pair agrees no better than chance may.
VERIFICATION = 'verification { num_images: 10 max_false_alarms: 1e30 }'


@pytest.fixture(scope='module')
def verified(run, finished):
  given = {kind: finished.artefacts[kind] for kind in ('features', 'codebook', 'query_features')}
  return run(VERIFICATION, given=given)


def mean_average_precision(artefact):
  return metrics_files.read_metrics_json(artefact.path / 'metrics.json')['medium'].mean_average_precision


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


def test_a_moved_run_is_verified_from_anywhere_by_its_stored_features(
  load, dataset, finished, benchmark, tmp_path, monkeypatch
):
  """`--output=run`, as README has it; then the folder is moved and asked from another one."""
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
  engine.photos = PhotoFolders()  # so that nothing can be extracted anew
  name = dataset.images.names[0]
  (best,) = engine.search(dataset.images.path(name), top_k=1, verify=True).results
  assert best.name == name
  assert best.inliers > 20


def test_a_single_photo_is_verified_as_the_run_is(verified, finished, dataset):
  photo = dataset.images.path(dataset.images.names[0])
  where = verified.artefacts['index'].path.parent
  unverified = finished.artefacts['index'].path.parent
  found = [
    binary('search_index', f'--index={index}', f'--query={photo}', *more).stdout
    for index, more in ((where, ()), (where, ['--noverify']), (unverified, ()), (unverified, ['--verify']))
  ]
  assert [' inliers)' in text for text in found] == [True, False, False, True], found


def test_without_verification_there_is_none(finished):
  assert 'reranked' not in finished.artefacts


def binary(name, *arguments):
  command = [sys.executable, str(REPOSITORY / 'tools' / f'{name}.py'), *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, check=False)


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
