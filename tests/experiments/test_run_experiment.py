"""The whole data flow on real photos: the stages together, artefacts that are kept, and the quality."""

import json

import numpy as np
import pytest
from support.run_files import contents

from delf_d2r.aggregator import Aggregator, normalizes
from delf_d2r.data.artefacts import codebook_files, feature_files, ranking_files, records
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.assignment import ExactAssigner
from delf_d2r.kernels.similarity import region_similarities, similarity

KERNELS = {'VLAD': Kernel.VLAD, 'ASMK': Kernel.ASMK, 'ASMK_STAR': Kernel.ASMK_STAR}


def medium_map(outcome):
  path = outcome.artefacts['metrics'].path / 'metrics.json'
  return metrics_files.read_metrics_json(path)['medium'].mean_average_precision


@pytest.mark.slow
def test_every_stage_leaves_a_finished_artefact(finished):
  for kind in ('features', 'codebook', 'descriptors', 'index', 'rankings', 'metrics'):
    made = finished.artefacts[kind]
    assert Artefact.open(made.path, made.manifest.kind).manifest.fingerprint == made.manifest.fingerprint
  assert finished.page.stat().st_size > 10_000


def test_the_objects_are_found(finished):
  # 24 scenes of 12 objects among 4 distractors: chance is about 10 %.
  assert medium_map(finished) > 0.4


@pytest.mark.slow
def test_same_input_same_bytes_whatever_the_number_of_workers(
  load, dataset, benchmark, finished_dir, tmp_path
):
  from delf_d2r.experiments import experiment

  options = experiment.Options(workers=2)
  experiment.run(load(), dataset, tmp_path / 'run', ground_truth=benchmark.ground_truth_path, options=options)
  first, second = contents(finished_dir), contents(tmp_path / 'run')
  assert first.keys() == second.keys()
  assert [name for name in first if first[name] != second[name]] == []


def test_the_index_is_sorted_in_the_memory_that_the_flag_says(monkeypatch, load, dataset, finished, tmp_path):
  from delf_d2r.experiments import experiment

  class Stopped(Exception):
    pass

  def build(*_, memory_budget, **__):
    raise Stopped(memory_budget)

  monkeypatch.setattr(experiment.build_index, 'run', build)
  given = {kind: made for kind, made in finished.artefacts.items() if kind != 'index'}
  with pytest.raises(Stopped, match='123456789'):
    experiment.run(
      load(),
      dataset,
      tmp_path,
      given=given,
      options=experiment.Options(sorting_bytes=123_456_789),
    )


def test_a_second_run_writes_nothing(run, finished, finished_dir):
  before = {file: file.stat().st_mtime_ns for file in finished_dir.rglob('*') if 'report' not in file.parts}
  again = run(output=finished_dir)
  after = {file: file.stat().st_mtime_ns for file in before if file.is_file()}
  assert {file: time for file, time in before.items() if file.is_file() and file.name != 'config.pbtxt'} == {
    file: time for file, time in after.items() if file.name != 'config.pbtxt'
  }
  assert again.artefacts['index'].manifest.fingerprint == finished.artefacts['index'].manifest.fingerprint


def test_another_config_is_refused_by_field_both_values_and_remedy(run, finished_dir):
  before = contents(finished_dir)
  with pytest.raises(ArtefactError) as refusal:
    run('extraction.max_features: 99', output=finished_dir)
  assert contents(finished_dir) == before
  for part in ('extraction.max_features', '150', '99', '--output', '--redo'):
    assert part in str(refusal.value)


@pytest.mark.slow
def test_redo_replaces_what_another_config_made(run, tmp_path):
  run('codebook.num_words: 64', output=tmp_path)
  outcome = run('codebook.num_words: 32', output=tmp_path, redo=True)
  assert outcome.artefacts['index'].config.codebook.num_words == 32
  assert len(codebook_files.load_centroids(tmp_path / 'index')) == 32


@pytest.mark.slow
def test_alpha_changes_rankings_but_not_the_index(run, finished, tmp_path):
  given = {kind: finished.artefacts[kind] for kind in ('features', 'codebook', 'query_features')}
  first = run(output=tmp_path, given=given)
  index_time = (tmp_path / 'index' / 'inverted' / 'index.json').stat().st_mtime_ns
  second = run('aggregation.alpha: 1', output=tmp_path, given=given, redo=True)
  assert (tmp_path / 'index' / 'inverted' / 'index.json').stat().st_mtime_ns == index_time
  assert second.artefacts['index'].config.aggregation.alpha == 1
  scores = [ranking_files.load(o.artefacts['rankings'].path).rankings[0].scores for o in (second,)]
  assert first.artefacts['rankings'].manifest.fingerprint != second.artefacts['rankings'].manifest.fingerprint
  assert scores[0][0] > 0


@pytest.mark.slow
@pytest.mark.parametrize('regions', ['WHOLE_IMAGE', 'REGIONAL_AGGREGATION', 'REGIONAL_SEARCH'])
@pytest.mark.parametrize('kernel', ['VLAD', 'ASMK', 'ASMK_STAR'])
def test_rankings_equal_brute_force(run, finished, kernel, regions):
  given = {kind: finished.artefacts[kind] for kind in ('features', 'codebook', 'query_features')}
  outcome = run(f'aggregation.kernel: {kernel}', f'aggregation.regions: {regions}', given=given)
  made = outcome.artefacts
  stored = ranking_files.load(made['rankings'].path)
  index_images = list(map(records.decode_descriptors, made['descriptors'].records()))
  options = made['rankings'].config.aggregation
  centroids = np.array(codebook_files.load_centroids(made['codebook'].path))
  aggregator = Aggregator(options, centroids, ExactAssigner(centroids))
  for query, ranking in zip(feature_files.read(made['query_features']), stored.rankings, strict=True):
    descriptor = aggregator.query(query)
    expected = [
      max(
        similarity(
          descriptor,
          entry,
          kernel=KERNELS[kernel],
          alpha=options.alpha,
          tau=options.tau,
          normalize=kernel != 'VLAD' and normalizes(options),
        )
        for entry in image.descriptors
      )
      for image in index_images
    ]
    found = np.empty(len(expected))
    found[ranking.image_ids] = ranking.scores
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)
    assert list(ranking.scores) == sorted(ranking.scores, reverse=True)


@pytest.mark.parametrize('kernel', ['ASMK', 'ASMK_STAR'])
def test_rankings_with_region_masks_equal_the_best_region_by_brute_force(run, finished, kernel):
  given = {kind: finished.artefacts[kind] for kind in ('features', 'codebook', 'query_features')}
  fields = f'kernel: {kernel} regions: REGIONAL_AGGREGATION region_masks: true'
  made = run(f'aggregation {{ {fields} }}', given=given).artefacts
  options = made['rankings'].config.aggregation
  centroids = np.array(codebook_files.load_centroids(made['codebook'].path))
  aggregator = Aggregator(options, centroids, ExactAssigner(centroids))
  stored = ranking_files.load(made['rankings'].path)
  images = [image.descriptors[0] for image in map(records.decode_descriptors, made['descriptors'].records())]
  boxes = set()
  for query, ranking in zip(feature_files.read(made['query_features']), stored.rankings, strict=True):
    descriptor = aggregator.query(query)
    regions = [region_similarities(descriptor, image, kernel=KERNELS[kernel]) for image in images]
    found = np.empty(len(images))
    found[ranking.image_ids] = ranking.scores
    np.testing.assert_allclose(found, np.nanmax(regions, axis=1), rtol=2e-5, atol=1e-5)
    for image, region, score in zip(ranking.image_ids, ranking.best_regions, ranking.scores, strict=True):
      np.testing.assert_allclose(regions[image][region], score, rtol=2e-5, atol=1e-5)
    boxes |= set(ranking.best_regions.tolist())
  assert boxes == {0, 1, 2, 3, 4}


def test_metrics_are_saved_in_three_forms(finished):
  folder = finished.artefacts['metrics'].path
  document = json.loads((folder / 'metrics.json').read_text())
  assert set(document['protocols']) == {'easy', 'medium', 'hard'}
  text = (folder / 'metrics.txt').read_text()
  assert text.startswith('hard\n  mAP=')
  medium = np.around(100 * document['protocols']['medium']['mAP'], 2)
  assert f'medium\n  mAP={medium}\n' in text
  assert len(json.loads((folder / 'per_query.json').read_text())['queries']) == 12


def test_engine_finds_an_indexed_photo_first(finished, finished_dir, benchmark):
  engine = SearchEngine.load(finished_dir)
  name = engine.index.image_names[3]
  answer = engine.search(benchmark.images_dir / name, top_k=5)
  assert len(answer.results) == 5
  assert answer.results[0].name == name
  assert answer.results[0].boxes.shape == (4, 4)


def test_engine_refuses_a_box_outside_the_photo(finished_dir, benchmark):
  engine = SearchEngine.load(finished_dir)
  photo = benchmark.images_dir / engine.index.image_names[0]
  for box in [(0.5, 0.1, 0.4, 0.9), (-0.1, 0, 1, 1), (0, 0, 1, 640), (0, 0, float('nan'), 1)]:
    with pytest.raises(UserError, match='box'):
      engine.search(photo, box=box)


def test_codebook_of_another_extractor_is_refused(run, finished):
  other = {'codebook': finished.artefacts['codebook']}
  with pytest.raises(UserError, match=r'different extractors.*upright: True.*upright: False'):
    run('extraction.root_sift.upright: true', given=other)
