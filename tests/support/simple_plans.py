"""Rates of stages for tests of plans; none of them is measured."""

from delf_d2r import config
from delf_d2r.experiments import experiment
from delf_d2r.planning.costs import Cost, LinearFit
from delf_d2r.planning.rates import Rates
from delf_d2r.planning.stage_rate import Rate
from delf_d2r.planning.training_rates import TrainingRates

OVERRIDES = [
  'codebook.num_words: 64',
  'extraction.max_features: 60',
  'extraction.max_image_size: 200',
  'extraction.max_crop_size: 200',
]


def make_config(name='sift_rasmk_star', *, more=()):
  return config.load(f'configs/experiments/{name}.pbtxt', experiment.STAGES, overrides=[*OVERRIDES, *more])


def simple_rates(**changes):
  extraction = Rate(
    LinearFit(10, 0.5), LinearFit(20, 1.0), LinearFit(0, 1e6), LinearFit(4e9, 0), workers=4, cores=4
  )
  index = Rate(
    LinearFit(1, 1e-4), LinearFit(1, 1e-4), LinearFit(1e6, 1e4), LinearFit(1e8, 2e4), memory_bound=65536
  )
  stages = {'extraction': extraction, 'aggregation': extraction, 'index': index}
  defaults = {
    'stages': stages,
    'features': 100.0,
    'words': 80.0,
    'entries': 1,
    'dimensions': 128,
    'training': TrainingRates(Cost(1e-3, 1e-3, 0), Cost(1e-9, 2e-9, 0), Cost(1e-6, 2e-6, 0), False),
    'search': LinearFit(1e-4, 1e-8),
  }
  return Rates(**(defaults | changes))
