"""Rates, from real runs of the stages."""

import functools
import time

import numpy as np
import pytest
from support.simple_plans import make_config

from delf_d2r import config
from delf_d2r.data.artefacts import feature_files
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.scenes import mini_benchmark
from delf_d2r.errors import ConfigError, UserError
from delf_d2r.experiments import experiment
from delf_d2r.planning import rates, stage_plans, synthetic_artefacts, training_rates
from delf_d2r.planning.costs import Cost, LinearFit, measure
from delf_d2r.planning.plan import make_plan, measure_and_plan, to_text
from delf_d2r.planning.rates import measure_rates
from delf_d2r.planning.stage_rate import rate_of
from delf_d2r.planning.training_rates import TrainingRates, measure_training
from delf_d2r.runtime import worker_pool
from delf_d2r.stages import train_codebook


def test_a_line_leads_through_its_points_and_is_never_negative():
  line = LinearFit.fit((10, 7.0), (30, 11.0))
  assert (line(10), line(30), line(0)) == pytest.approx((7, 11, 5))
  noisy = LinearFit.fit((10, 1.0), (30, 9.0))
  assert (noisy(0), noisy(30)) == pytest.approx((0, 9))
  falling = LinearFit.fit((10, 5.0), (30, 4.0))
  assert (falling(0), falling(1000)) == (4, 4)
  assert LinearFit.nondecreasing((10, 7.0), (30, 11.0)) == line
  rising = LinearFit.nondecreasing((10, 5.0), (30, 4.5))
  assert (rising(0), rising(1000)) == pytest.approx((0, 150))


def test_cpu_time_that_noise_hides_is_more_rather_than_constant():
  rate = rate_of((2, Cost(5, 8.0, 0), 0), (8, Cost(6, 8.0, 0), 0))
  assert rate.cpu_seconds(1000) == pytest.approx(1000)
  assert rate.growth == 0
  growing = rate_of((2, Cost(5, 5, 0), 0), (8, Cost(11, 14, 0), 0))
  assert growing.growth == pytest.approx(8 / 11)


def burn(seconds, megabytes):
  held = np.ones(1 + (megabytes << 17))
  stop = time.process_time() + seconds
  while time.process_time() < stop:
    held[0] += 1


def fail(kind):
  raise kind('it broke')


@pytest.mark.slow
def test_costs_are_those_of_the_function():
  little, much = (measure(functools.partial(burn, *size)) for size in ((0.2, 0), (1.4, 100)))
  # Both include the start of a process, whose time depends on the load of the machine.
  assert much.cpu_seconds - little.cpu_seconds == pytest.approx(1.2, abs=0.6)
  assert much.seconds > 1.3
  assert much.memory - little.memory == pytest.approx(100 << 20, rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize('kind', [UserError, RuntimeError])
def test_what_fails_in_the_process_is_told(kind):
  with pytest.raises(UserError, match='it broke'):
    measure(functools.partial(fail, kind))


def test_approximate_training_compares_words_with_words():
  rates = TrainingRates(Cost(0, 0, 0), Cost(1e-9, 2e-9, 0), Cost(1e-5, 3e-5, 0), True)
  cost = rates.total(images=1000, descriptors=1e6, words=1e4, iterations=20)
  assert cost.seconds == pytest.approx(1e-5 * 20e6 + 1e-9 * (1e6 * 1e4 + 20 * 1e4**2))
  assert cost.cpu_seconds == pytest.approx(3e-5 * 20e6 + 2e-9 * (1e6 * 1e4 + 20 * 1e4**2))


def made_features(settings, path):
  return synthetic_artefacts.save_features(
    synthetic_artefacts.images(features=200, boxes=0, dimensions=32), 100, settings, path
  )


@pytest.mark.slow
def test_exact_training_takes_what_was_measured(tmp_path, monkeypatch):
  """Within a factor of three, which also holds on a busy machine; for idle machines see docs/scale.md."""
  monkeypatch.setattr(training_rates, '_COMPARED', 20_000_000)
  settings = make_config('sift_asmk_star', more=['codebook { num_words: 1024 iterations: 5 }'])
  features = made_features(settings, tmp_path / 'features')
  found = measure_training(settings.codebook, features)
  predicted = found.total(images=100, descriptors=20_000, words=1024, iterations=5).cpu_seconds
  started = time.process_time()
  train_codebook.run(settings, features, tmp_path / 'codebook')
  assert 1 / 3 < predicted / (time.process_time() - started) < 3


@pytest.mark.slow
def test_approximate_training_is_scaled_to_the_words_of_the_run(tmp_path, monkeypatch):
  """Measured with 256 words: reading, comparing, then one iteration and four."""
  costs = iter([Cost(64, 64, 0), Cost(1e-6, 2e-6, 0), Cost(5, 10, 0), Cost(11, 19, 0)])
  monkeypatch.setattr(training_rates, '_timed', lambda function, share=1.0: (function(), next(costs))[1])
  monkeypatch.setattr(training_rates, '_COMPARED', 1_000_000)
  monkeypatch.setattr(training_rates, '_WORDS', 256)
  monkeypatch.setattr(worker_pool, 'available_cores', lambda: 2)
  more = ['codebook { num_words: 1024 assignment: APPROXIMATE }']
  settings = make_config('sift_asmk_star', more=more)
  found = measure_training(settings.codebook, made_features(settings, tmp_path / 'features'))
  # sqrt(1024 / 256) times an iteration of 16 x 256 descriptors, without 256 words against 256.
  assert found.moving.seconds == pytest.approx(2 * (2 - 0.065536) / 4096)
  assert found.moving.cpu_seconds == pytest.approx(2 * (3 - 0.131072) / 4096)


def test_made_images_have_what_was_asked_for():
  image = next(synthetic_artefacts.images(features=40, boxes=3, dimensions=16))
  assert image.num_regions == 4
  assert [len(image.region(r)) for r in range(4)] == [40, 10, 10, 10]
  np.testing.assert_allclose(np.linalg.norm(image.features.descriptors, axis=1), 1, rtol=1e-5)
  other = synthetic_artefacts.images(features=40, boxes=3, dimensions=16)
  np.testing.assert_array_equal(image.features.descriptors, next(other).features.descriptors)
  assert not np.array_equal(image.features.descriptors, next(other).features.descriptors)


@pytest.fixture
def small(monkeypatch):
  monkeypatch.setattr(rates, '_AGGREGATED', 64)
  monkeypatch.setattr(rates, '_BUILT_MOST', 400)
  monkeypatch.setattr(rates, '_QUERIES', 5)
  monkeypatch.setattr(rates, '_PAIRS', 5)


@pytest.mark.slow
def test_rates_of_a_sample_are_those_of_its_photos(small, tmp_path):
  photos = mini_benchmark.generate(tmp_path / 'photos', seed=0, scenes_per_object=1, num_distractors=0)
  sample = ImageList.from_folder(photos.images_dir)
  (tmp_path / 'work').mkdir()
  settings = make_config(more=['verification { num_images: 20 }'])
  found = measure_rates(settings, tmp_path / 'work', photos=sample, boxes=2, workers=1)
  assert 1e-5 < found.verification < 1
  text = to_text(make_plan(settings, found, images=1000))
  assert f'in it, re-ranking it {20 * found.verification:.1f} s' in text
  assert 're-ranking' not in text[text.index('Not planned') :]
  assert list(found.stages) == ['extraction', 'aggregation', 'index']
  extracted = Artefact.open(tmp_path / 'work' / 'features_many', 'features')
  assert extracted.counts['regions'] == 3 * len(sample)
  whole = np.mean([len(image.region(0)) for image in feature_files.read(extracted)])
  assert found.features == pytest.approx(whole, rel=0.2)  # The 64 images are the sample, repeated.
  assert 0 < found.words <= 60 * 3
  assert found.entries == 1
  for stage in found.stages.values():
    assert stage.cpu_seconds(len(sample)) > 0  # With so few photos, noise may hide the slope.
    assert stage.disk.each > 0
    assert stage.memory(1) > 1e7
  # A posting has two bytes of id and 16 of code, besides K offsets and the names.
  assert found.stages['index'].disk.each == pytest.approx(18 * found.words, rel=0.2)


@pytest.mark.slow
def test_rates_of_made_features_need_no_photo(small, tmp_path):
  found = measure_rates(
    make_config('sift_asmk_star', more=['aggregation.kernel: ASMK']),
    tmp_path,
    features=50,
    dimensions=16,
    workers=1,
  )
  assert list(found.stages) == ['aggregation', 'index']
  assert found.dimensions == 16
  assert found.features == 50
  assert found.stages['index'].disk.each == pytest.approx((2 + 4 * 16) * found.words, rel=0.2)
  assert found.verification is None


@pytest.mark.slow
@pytest.mark.parametrize('codebook', ['bits: 64 projection { kinds: ITQ }', 'source: SHIPPED'])
def test_rates_of_a_projection_and_of_the_codebook_of_the_package(small, tmp_path, codebook):
  is_shipped = codebook == 'source: SHIPPED'
  changes = [f'codebook {{ {codebook} }}']
  if is_shipped:
    changes.append('extraction.extractor: ROOT_SIFT_AND_DELF')
    settings = config.load_or_default(None, experiment.STAGES, overrides=changes)
  else:
    settings = make_config('sift_asmk_star', more=changes)
  found = measure_rates(settings, tmp_path, features=50, dimensions=128, workers=1)
  # Codes are stored in columns of 64 bits.
  columns = -(-(settings.codebook.bits or 128) // 64)
  assert found.stages['index'].disk.each == pytest.approx((2 + 8 * columns) * found.words, rel=0.2)
  plan, _ = stage_plans.of_codebook(settings.codebook, found, images=1000, memory=None)
  assert (found.training is None, plan.seconds == 0) == (is_shipped, is_shipped)


def test_a_config_that_cannot_run_is_not_measured(tmp_path):
  path = 'configs/experiments/gem_efficientnet_lite0.pbtxt'
  settings = config.load(path, experiment.STAGES, overrides=['verification {}'])
  with pytest.raises(ConfigError, match='verification matches local features'):
    measure_rates(settings, tmp_path)
  assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_rates_of_the_other_search(small, tmp_path):
  """An other search of few RootSIFT features, measured on synthetic ones."""
  fusion = (
    'fusion { extraction { max_features: 20 } codebook { num_words: 1 } aggregation { kernel: VLAD'
    ' value_type: INT8 } }'
  )
  found = measure_and_plan(
    make_config('sift_asmk_star', more=[fusion]), images=1000, features=50, workers=1, work=tmp_path
  )
  names = [stage.stage for stage in found.stages]
  assert names == ['codebook', 'aggregation', 'index', 'other codebook', 'other aggregation', 'other index']
  # 132 bytes a descriptor and its name, beside the codebook and the boxes.
  assert 132e3 < found.stages[-1].disk < 250e3
