"""Plans: the arithmetic of rates, and remarks on stages that are doubtful, missing or too large."""

import dataclasses
import json
import re

import pytest
from support.simple_plans import make_config, simple_rates

from delf_d2r import config
from delf_d2r.experiments import experiment
from delf_d2r.planning.costs import Cost, LinearFit
from delf_d2r.planning.plan import make_plan, to_json, to_text
from delf_d2r.planning.stage_rate import Rate, rate_of


def test_a_plan_is_its_rates_at_the_number_of_images():
  plan = make_plan(make_config(), simple_rates(), images=1_000_000, price_per_hour=3600.0)
  stages = {stage.stage: stage for stage in plan.stages}
  assert list(stages) == ['extraction', 'codebook', 'aggregation', 'index']
  assert stages['extraction'].seconds == pytest.approx(500_010)
  assert stages['extraction'].cost == pytest.approx(500_010)
  assert stages['extraction'].memory == pytest.approx(4e9)
  assert stages['index'].disk == pytest.approx(1e10 + 1e6)
  # At most one segment of postings, and all names.
  assert stages['index'].memory == pytest.approx(1e8 + 2e4 * 65536 + 250e6)
  # A million images are read; 100 descriptors for each of 64 words are moved in 20 iterations, and compared
  # with all words for the report.
  assert stages['codebook'].seconds == pytest.approx(1000 + 6400 * 20e-6 + 6400 * 64e-9)
  assert stages['codebook'].cpu_seconds == pytest.approx(1000 + 6400 * 40e-6 + 6400 * 128e-9)
  assert plan.query_seconds == pytest.approx(1e-4 + 1e-2)
  assert plan.total.seconds == pytest.approx(sum(stage.seconds for stage in plan.stages))
  assert not plan.commands
  assert not plan.remarks


def test_a_sample_that_spends_its_time_on_start_up():
  """Measurements of GeM on eight photos, where the wall time did not grow."""
  few, many = (2, Cost(54.9, 62.0, 0), 1000), (8, Cost(54.8, 63.9, 0), 4000)
  rate = rate_of(few, many, workers=2, cores=2)
  cpu = rate.cpu_seconds(100_000)
  assert cpu == pytest.approx(62 + 99_998 * 1.9 / 6)
  assert rate.wall(100_000) == pytest.approx(cpu / 2)
  assert rate.wall(100_000, workers=1) == pytest.approx(cpu)
  assert rate.wall(8) == pytest.approx(54.8)
  assert rate.growth == 0
  stages = simple_rates().stages | {'extraction': rate}
  plan = make_plan(make_config(), simple_rates(stages=stages), images=100_000, price_per_hour=1.0)
  assert plan.stages[0].cost == pytest.approx(cpu / 2 / 3600)
  (remark,) = plan.remarks
  assert remark.startswith('extraction: 100% of the time of the sample was start-up or noise.')
  assert 'Give more photos: --sample' in remark
  assert remark in to_text(plan)


def test_an_index_that_noise_hides_is_measured_again():
  stages = simple_rates().stages
  stages['index'] = dataclasses.replace(stages['index'], growth=0.19)
  (remark,) = make_plan(make_config(), simple_rates(stages=stages), images=1000).remarks
  assert remark.startswith('index: 81% of the time of the sample was')
  assert 'photos' not in remark
  stages['index'] = dataclasses.replace(stages['index'], growth=0.2)
  assert not make_plan(make_config(), simple_rates(stages=stages), images=1000).remarks


def test_what_does_not_fit_gets_fewer_processes_or_more_machines():
  plan = make_plan(make_config(), simple_rates(), images=1_000_000, memory=2.1e9)
  extraction = plan.stages[0]
  run, split = plan.commands
  assert run == 'd2r run_experiment --images=PHOTOS --output=OUT --workers=2'
  assert extraction.memory == pytest.approx(2e9)
  assert extraction.seconds == pytest.approx(2 * 500_010)
  # 10 GB of postings on machines with 1.8 GB for them.
  assert split == 'd2r split_index --index=OUT/index --output=SPLIT --shards=6   # a machine for each'
  assert not plan.remarks
  small = make_plan(make_config(), simple_rates(), images=1_000_000, memory=4e8)
  assert 'index needs 1.66 GB, more than 0.40 GB.' in small.remarks
  assert not small.commands


def test_all_stages_have_the_processes_that_the_largest_allows():
  stages = simple_rates().stages
  stages['aggregation'] = dataclasses.replace(stages['aggregation'], memory=LinearFit(8e9, 0))
  plan = make_plan(make_config(), simple_rates(stages=stages), images=1000, memory=2.1e9)
  assert plan.commands[0].endswith('--workers=1')
  extraction, _, aggregation, _ = plan.stages
  assert (extraction.memory, aggregation.memory) == pytest.approx((1e9, 2e9))
  assert extraction.seconds == pytest.approx(4 * 510)


def test_memory_that_holds_no_searcher():
  """The other stages need little, so that the index of 10 GB decides."""
  little = Rate(LinearFit(0, 1), LinearFit(0, 1), LinearFit(0, 1), LinearFit(1e8, 0))
  index = Rate(LinearFit(1, 1e-4), LinearFit(1, 1e-4), LinearFit(0, 1e6), LinearFit(0, 0), memory_bound=65536)
  rates = simple_rates(stages={'extraction': little, 'aggregation': little, 'index': index})

  def planned(memory, images=10_000):
    return make_plan(make_config('sift_asmk_star'), rates, images=images, memory=memory)

  plan = planned(0.31e9)
  assert plan.remarks == (
    '0.31 GB are too little for a searcher: it needs 0.30 GB for itself, and with the smallest shard'
    ' 0.40 GB.',
  )
  assert [command.split()[1] for command in plan.commands] == ['run_experiment']
  assert '--shards=100 ' in planned(0.4e9).commands[-1]
  # A small index is not split, and none is split into more shards than split_index allows.
  assert len(planned(0.31e9, images=9).commands) == 1
  assert not planned(0.31e9, images=9).remarks
  huge = dataclasses.replace(index, disk=LinearFit(0, 1e8))
  rates = simple_rates(stages={**rates.stages, 'index': huge})
  assert 'with the smallest shard 0.50 GB' in planned(0.45e9, images=20_000).remarks[0]


def test_an_index_is_sorted_in_the_memory_there_is():
  plan = make_plan(make_config(), simple_rates(), images=1_000_000, memory=1e9)
  assert '--sorting_gb=0.65' in plan.commands[0]
  assert plan.stages[-1].memory == pytest.approx(1e9)
  large = Rate(LinearFit(1, 1), LinearFit(1, 1), LinearFit(0, 1), LinearFit(1e8, 1e6), memory_bound=65536)
  rates = simple_rates(stages=simple_rates().stages | {'index': large})
  sorting = make_plan(make_config(), rates, images=1_000_000).stages[-1].memory - 1e8 - 250e6
  assert sorting == pytest.approx(2 << 30)


def test_a_codebook_that_is_too_large_is_trained_on_fewer_descriptors():
  large = make_config(more=['codebook.num_words: 65536', 'codebook.max_descriptors: 5000000'])
  plan = make_plan(large, simple_rates(), images=1_000_000, memory=3e9)
  assert f"--override='codebook.max_descriptors: {int(2.7e9 / 1024)}'" in plan.commands[0]


def test_text_and_json_say_the_same():
  plan = make_plan(make_config(), simple_rates(), images=1_000_000, price_per_hour=0.5, memory=2.1e9)
  document = json.loads(to_json(plan))
  assert document['images'] == 1_000_000
  assert [stage['stage'] for stage in document['stages']] == [stage.stage for stage in plan.stages]
  text = to_text(plan)
  assert '1,000,000 images' in text
  assert '--workers=2' in text
  assert document['commands'] == list(plan.commands)
  assert 'Not planned: boxes, features of queries, evaluation, report.' in text
  assert re.search(r'extraction +277\.8 h +277\.8 h', text)


def test_both_searches_of_a_run_with_fusion_are_planned():
  fused = config.load('configs/experiments/joined_gem_fused.pbtxt', experiment.STAGES)
  one = make_plan(fused, simple_rates(), images=1000, memory=1e12)
  both = make_plan(fused, dataclasses.replace(simple_rates(), other=simple_rates()), images=1000, memory=1e12)
  names = [stage.stage for stage in one.stages]
  assert [stage.stage for stage in both.stages] == [*names, *(f'other {name}' for name in names)]
  assert both.index_bytes == 2 * one.index_bytes
  assert both.query_seconds == 2 * one.query_seconds
  assert both.total.memory == one.total.memory
  assert not any('fusion' in part for part in both.unplanned)
  large = make_plan(
    fused, dataclasses.replace(simple_rates(), other=simple_rates()), images=10_000_000, memory=4e9
  )
  assert any('A run with fusion cannot be split' in remark for remark in large.remarks)
  assert not any('split_index' in command for command in large.commands)


def test_what_is_not_planned_is_named():
  def unplanned(*more, rates):
    return make_plan(make_config('sift_asmk_star', more=more), rates, images=1000).unplanned

  always = ('features of queries', 'evaluation', 'report')
  found = simple_rates()
  assert unplanned(rates=found) == always
  assert unplanned('verification {}', rates=dataclasses.replace(found, verification=0.1)) == always
  assert 're-ranking' in unplanned('verification {}', rates=found)
  assert 'query expansion' in unplanned('verification {}', 'expansion {}', rates=found)
  other = 'verification { extraction { extractor: ROOT_SIFT } }'
  assert 're-ranking and the extraction for it' in unplanned(other, rates=found)
  fused = config.load('configs/experiments/joined_gem_fused.pbtxt', experiment.STAGES)
  assert 'fusion and all stages of its other search' in make_plan(fused, found, images=1000).unplanned
  del found.stages['extraction']
  assert unplanned(rates=found)[0] == 'boxes and extraction (give --sample, a folder of some photos)'
