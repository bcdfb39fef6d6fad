"""train_background, and searches by its scores, which are the same whatever else is in the index."""

import json
import shutil

import numpy as np
import pytest
from support.fused_run import fused_dir
from support.run_files import contents
from support.served_index import photos, query_path

from delf_d2r import config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import background_files, codebook_files, ranking_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.dataset import Dataset
from delf_d2r.doctor.inspect import diagnose
from delf_d2r.engine import SearchEngine
from delf_d2r.engine.fused_search import secondary_config
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.experiments import run_experiment
from delf_d2r.extractors import registry
from delf_d2r.fuser import Fuser
from delf_d2r.kernels import background as kernels
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.protos.aggregation_pb2 import AggregationConfig
from delf_d2r.protos.fusion_pb2 import FusionConfig
from delf_d2r.protos.manifest_pb2 import Manifest
from delf_d2r.stages import fuse_rankings, train_background, train_codebook

__all__ = ['fused_dir', 'photos', 'query_path']

BACKGROUND = FusionConfig.BACKGROUND


def descriptors(run):
  return [Artefact.open(run / name, 'descriptors') for name in ('descriptors', 'other/descriptors')]


@pytest.fixture(scope='module')
def model(fused_dir, tmp_path_factory):
  """The background model of the photos of the run itself."""
  return train_background.run(*descriptors(fused_dir), tmp_path_factory.mktemp('background') / 'model')


def fusion(model, **fields):
  return FusionConfig(normalization=BACKGROUND, background_path=str(model.path), **fields)


def parts(answer):
  return {result.name: (result.local_score, result.global_score) for result in answer.results}


def test_it_is_measured_from_two_kinds_of_descriptors(fused_dir, model, tmp_path):
  found = background_files.load(model.path)
  assert model.counts == {'images': 26, 'words': 128, 'dimensions': 128, 'failed': 0}
  assert found.codebook == codebook_files.digest(fused_dir / 'codebook')
  assert (found.num_images, found.models) == (26, {})
  assert found.config.aggregation.region_masks
  assert found.config.fusion.aggregation.kernel == AggregationConfig.VLAD
  local, other = (
    [image for image in train_background._whole_images(artefact)] for artefact in descriptors(fused_dir)
  )
  expected = kernels.word_statistics(local, 128, kernel=Kernel.ASMK_STAR, alpha=3, tau=0, normalize=True)
  assert found.words.normalize
  for name in ('presence', 'square_presence', 'means', 'square_means'):
    np.testing.assert_allclose(getattr(found.words, name), getattr(expected, name), rtol=1e-3, atol=1e-7)
  rows = np.array([image.values[0] for image in other])
  np.testing.assert_allclose(found.descriptors.mean, rows.mean(axis=0), atol=1e-6)
  covariance = np.cov(rows.T, bias=True)
  np.testing.assert_allclose(found.descriptors.covariance, covariance, atol=1e-3 * covariance.max())
  # The same bytes again, and once is enough.
  again = train_background.run(*descriptors(fused_dir), tmp_path / 'again')
  assert contents(again.path) == contents(model.path)
  assert train_background.run(*descriptors(fused_dir), tmp_path / 'again').manifest == again.manifest


@pytest.mark.slow
def test_a_score_does_not_depend_on_the_other_images(fused_dir, model, query_path, tmp_path):
  live = shutil.copytree(fused_dir, tmp_path / 'live')
  engine = SearchEngine.load(live, fusion=fusion(model, weight=0.7))
  before = parts(engine.search(query_path, top_k=0))
  engine.remove(list(engine.index.image_names)[5:])
  after = parts(engine.search(query_path, top_k=0))
  assert len(after) == 5
  for name, both in after.items():
    assert both == pytest.approx(before[name], abs=1e-6)
  engine.reload()
  by_list = SearchEngine.load(live)
  whole = parts(by_list.search(query_path, top_k=0))
  by_list.remove(list(by_list.index.image_names)[5:])
  assert parts(by_list.search(query_path, top_k=0)) != {name: whole[name] for name in after}


def test_scores_are_standardised_by_what_is_expected(fused_dir, model, query_path):
  engine = SearchEngine.load(fused_dir, fusion=fusion(model, weight=0.5))
  answer = engine.search(query_path, top_k=0)
  query, other = engine.describe(answer.features), engine.describe_other(answer.other_features)
  statistics = background_files.load(model.path)
  local = statistics.words.expected(query.visual_words)
  expected = statistics.descriptors.expected(other.values[0])
  firsts, others = (SearchEngine.load(fused_dir / name).index for name in ('index', 'other/index'))
  for index, described, what, weight, found in (
    (firsts, query, local, 1, 'local_score'),
    (others, other, expected, 0.5, 'global_score'),
  ):
    ranking = index.search(described, top_k=0)
    scores = dict(
      zip((index.image_names[i] for i in ranking.image_ids), ranking.scores.tolist(), strict=True)
    )
    for result in answer.results:
      standard = weight * (scores[result.name] - what.mean) / what.deviation
      assert getattr(result, found) == pytest.approx(standard, abs=1e-4)


def test_a_power_of_the_other_scores(fused_dir, model, query_path):
  plain, squared = (
    SearchEngine.load(fused_dir, fusion=fusion(model, weight=0.5, **power)).search(query_path, top_k=0)
    for power in ({}, {'power': 2})
  )
  assert min(result.global_score for result in plain.results) < 0
  for name, (local_score, global_score) in parts(squared).items():
    before = parts(plain)[name]
    assert local_score == before[0]
    assert global_score == pytest.approx(0.5 * max(before[1] / 0.5, 0) ** 2, abs=1e-4)
  one = SearchEngine.load(fused_dir, fusion=fusion(model, weight=0.5, power=1)).search(query_path, top_k=0)
  assert parts(one) == parts(plain)


@pytest.mark.slow
def test_rankings_of_the_stage_are_those_of_the_engine(fused_dir, model, photos, tmp_path):
  config = configs.default('fusion')
  config.fusion.MergeFrom(fusion(model, weight=0.7))
  rankings = [Artefact.open(fused_dir / name, 'rankings') for name in ('rankings', 'other/rankings')]
  made = fuse_rankings.run(config, *rankings, tmp_path / 'fused')
  assert made.input('background').fingerprint == model.manifest.fingerprint
  engine = SearchEngine.load(fused_dir, fusion=config.fusion)
  stored = ranking_files.load(made.path)
  dataset = Dataset.load(
    photos.images_dir, ground_truth=photos.ground_truth_path, query_images=photos.queries_dir
  )
  (query, photo), *_ = dataset.queries.items()
  path = dataset.queries.images.path(photo)
  found = engine.search(path, box=query.box_for(*engine.load_photo(path).shape[:2]), top_k=0).results
  whole = stored.rankings[0]
  assert whole.query == query.name
  assert [result.name for result in found] == [stored.image_names[image] for image in whole.image_ids]
  np.testing.assert_allclose([result.score for result in found], whole.scores, atol=1e-4)
  np.testing.assert_allclose([result.global_score for result in found], whole.global_scores, atol=1e-4)
  by_list = fuse_rankings.run(configs.default('fusion'), *rankings, tmp_path / 'by_list')
  assert by_list.input('background') is None
  assert by_list.manifest.fingerprint != made.manifest.fingerprint


def test_a_query_without_features_ranks_nothing(fused_dir, model):
  engine = SearchEngine.load(fused_dir, fusion=fusion(model))
  flat = engine.search(np.full((40, 40, 3), 9, np.uint8), top_k=0)
  assert {result.score for result in flat.results} == {0}


def test_a_model_of_other_searches_is_refused(fused_dir, model, tmp_path):
  with pytest.raises(
    UserError, match=r'is of aggregation\.alpha 3\.0, that of .*index is 2\.0\. Train a background model'
  ):
    SearchEngine.load(fused_dir, fusion=fusion(model), aggregation=AggregationConfig(alpha=2))
  with pytest.raises(UserError, match=r'aggregation\.use_idf false, that of .* is true'):
    SearchEngine.load(fused_dir, fusion=fusion(model), aggregation=AggregationConfig(use_idf=True))
  with pytest.raises(UserError, match=r'aggregation\.normalize true, that of .* is false'):
    SearchEngine.load(fused_dir, fusion=fusion(model), aggregation=AggregationConfig(normalize=False))
  copy = shutil.copytree(model.path, tmp_path / 'copy')
  facts = json.loads((copy / 'background.json').read_text())
  (copy / 'background.json').write_text(json.dumps(facts | {'codebook': 'another'}))
  with pytest.raises(UserError, match=r'is of the codebook another, that of .*index is [0-9a-f]{16}'):
    SearchEngine.load(fused_dir, fusion=FusionConfig(normalization=BACKGROUND, background_path=str(copy)))
  (copy / 'background.json').write_text(json.dumps(facts))
  text = (copy / 'background.pbtxt').read_text()
  local, _, other = text.partition('fusion {')
  (copy / 'background.pbtxt').write_text(
    f'{local}fusion {{{other.replace("root_sift {", "root_sift { upright: true", 1)}'
    if 'root_sift {' in other
    else f'{local}fusion {{{other.replace("extraction {", "extraction { root_sift { upright: true }", 1)}'
  )
  with pytest.raises(UserError, match=r'is of fusion\.extraction\.root_sift.* upright: True'):
    SearchEngine.load(fused_dir, fusion=FusionConfig(normalization=BACKGROUND, background_path=str(copy)))


def test_a_model_that_is_missing_or_damaged(fused_dir, model, tmp_path, monkeypatch):
  nowhere = FusionConfig(normalization=BACKGROUND, background_path=str(tmp_path / 'nowhere'))
  with pytest.raises(ArtefactError, match=r'nowhere: no background model, or damaged'):
    SearchEngine.load(fused_dir, fusion=nowhere)
  monkeypatch.setattr(background_files, 'SHIPPED', tmp_path / 'shipped')
  with pytest.raises(ArtefactError, match=r'shipped: no background model.* Install the package again'):
    SearchEngine.load(fused_dir, fusion=FusionConfig(normalization=BACKGROUND))
  # What comes with the package are the same files without a manifest.
  shutil.copytree(model.path, tmp_path / 'shipped', ignore=shutil.ignore_patterns('manifest.pbtxt'))
  assert SearchEngine.load(fused_dir, fusion=FusionConfig(normalization=BACKGROUND)).fusion
  for change in (
    lambda place: (place / 'presence.npy').unlink(),
    lambda place: np.save(place / 'presence.npy', np.zeros(128, np.float16)),
    lambda place: np.save(place / 'global_mean.npy', np.zeros(7, np.float32)),
    lambda place: np.save(place / 'similarities.npy', np.full(128, np.nan, np.float16)),
    lambda place: (place / 'background.json').write_text('{}'),
    lambda place: (place / 'background.pbtxt').write_text('nonsense'),
  ):
    damaged = shutil.copytree(model.path, tmp_path / 'damaged', dirs_exist_ok=True)
    change(damaged)
    with pytest.raises(ArtefactError):
      background_files.load(damaged)


def test_descriptors_that_have_no_background_model(fused_dir, tmp_path):
  local, other = descriptors(fused_dir)
  with pytest.raises(UserError, match='of kernel VLAD and WHOLE_IMAGE, but a background model is of ASMK'):
    train_background.run(other, other, tmp_path / 'out')
  with pytest.raises(UserError, match='of kernel ASMK_STAR and 128 visual words, but the other descriptors'):
    train_background.run(local, local, tmp_path / 'out')


def test_the_doctor_reads_it(model, tmp_path):
  found = diagnose(model.path).findings
  assert [finding.problem.partition(',')[0] for finding in found if finding.severity.name == 'WARNING'] == [
    'it is of 26 photos'
  ]
  assert not [finding for finding in found if finding.severity.name == 'ERROR']
  damaged = shutil.copytree(model.path, tmp_path / 'damaged')
  np.save(damaged / 'presence.npy', np.full(128, 2, np.float32))
  assert any('checksum' in finding.problem for finding in diagnose(damaged).findings)


def test_a_fuser_knows_what_it_needs(model):
  with pytest.raises(ValueError, match='expected a background model with normalization BACKGROUND'):
    Fuser(fusion(model))
  assert not Fuser(FusionConfig()).needs_queries


def test_the_model_of_the_package_belongs_to_its_codebook_and_network(tmp_path):
  """And to the default experiment, so that no run of it is refused after an hour of extraction."""
  assert sum(file.stat().st_size for file in background_files.SHIPPED.iterdir()) < 300_000
  assert not (background_files.SHIPPED / 'manifest.pbtxt').exists()
  found = background_files.load(background_files.SHIPPED)
  default = configs.load(run_experiment.DEFAULT_CONFIG)
  codebook = train_codebook.run(default, None, tmp_path / 'codebook')
  assert found.codebook == codebook_files.digest(codebook.path)
  assert len(found.words.presence) == codebook.counts['words']
  models = registry.model_files(default.fusion.extraction)
  assert found.models == {role: files.fingerprint(path) for role, path in models.items()}
  by_itself = configs.load('configs/training/default_background_global.pbtxt')
  other_search = secondary_config(default)
  for part in ('extraction', 'codebook', 'aggregation'):
    assert getattr(by_itself, part) == getattr(other_search, part)
  # As of an index of the default: everything else that is compared.
  index = Artefact(codebook.path, Manifest(config=default))
  other = Artefact(tmp_path, Manifest(config=secondary_config(default)))
  assert Fuser.of_indexes(default.fusion, index, other, aggregation=default.aggregation).needs_queries
