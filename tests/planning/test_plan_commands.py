"""The commands of a plan, and the command that plans."""

import shlex
import subprocess
import sys
import textwrap

import pytest
from support.simple_plans import simple_rates

from delf_d2r import common_flags, config
from delf_d2r.experiments import experiment
from delf_d2r.planning.plan import flag, make_plan, run_command, to_text


@pytest.mark.parametrize(
  ('regions', 'has_flag'),
  [
    ('source: FILE', True),
    ("source: FILE file_path: 'boxes.csv'", False),
    ('source: RANDOM random {}', True),
    ('source: NONE', False),
  ],
)
def test_a_run_is_given_the_boxes_that_its_config_lacks(regions, has_flag):
  settings = config.load_or_default(None, ['regions'], overrides=[f'regions {{ {regions} }}'])
  assert ('--boxes_file=BOXES' in run_command([], settings.regions, workers=1)) == has_flag


PARSE = """
import importlib, sys
from absl import flags
from delf_d2r import config
from delf_d2r.experiments import experiment
importlib.import_module(f'delf_d2r.tools.{sys.argv[1]}')
assert flags.FLAGS(sys.argv[1:]) == sys.argv[1:2]
if sys.argv[1] == 'run_experiment':
  config.load(flags.FLAGS.config_path, experiment.STAGES, overrides=flags.FLAGS.override)
"""


@pytest.mark.slow
def test_commands_work_as_they_are_printed():
  path = 'configs/experiments/random_boxes_rasmk_star.pbtxt'
  large = ['codebook.num_words: 65536', 'codebook.max_descriptors: 5000000']
  plan = make_plan(
    config.load(path, experiment.STAGES, overrides=large),
    simple_rates(),
    images=1_000_000,
    memory=1.5e9,
    config_flags=[
      flag('config_path', path),
      *(flag('override', text) for text in large),
    ],
  )
  run, split = plan.commands
  wanted = (
    *('--config_path', '--override', 'max_descriptors: 1171875', '--boxes_file', '--workers=1'),
    *('--sorting_gb=1.15', '--images=PHOTOS', '--output=OUT'),
  )
  assert [part for part in wanted if part not in run] == []
  assert to_text(plan).endswith(f'Within 1.50 GB:\n  {run}\n  {split}')
  for command in plan.commands:
    _, *words = shlex.split(command, comments=True)
    done = subprocess.run([sys.executable, '-c', PARSE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The measurement is replaced: it prints its folder.
BINARY = textwrap.dedent("""
  import sys
  from absl import flags
  from delf_d2r.errors import UserError
  from delf_d2r.planning import rates

  def measure_rates(config, work, **_):
    raise UserError(f'{flags.FLAGS.images} in {work.parent}, {work.is_dir()}')

  rates.measure_rates = measure_rates
  sys.argv[0] = 'd2r'
  from delf_d2r.command_line import main
  main()
""")


def run_binary(*arguments):
  command = [sys.executable, '-c', BINARY, 'plan', *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, encoding='utf-8', check=False).stderr


@pytest.mark.slow
def test_the_folder_of_work_is_made(tmp_path):
  work = tmp_path / 'not' / 'there'
  assert run_binary('--images=1,000,000', f'--work={work}') == f'error: 1000000 in {work}, True\n'
  assert not any(work.iterdir())
  (tmp_path / 'file').touch()
  refused = run_binary('--images=1e6', f'--work={tmp_path / "file"}')
  assert refused.startswith(f'error: cannot write {tmp_path / "file"}')
  assert 'Traceback' not in refused


@pytest.mark.slow
def test_a_sample_that_is_not_there_blames_no_other_flag(tmp_path):
  refused = run_binary('--images=5', f'--sample={tmp_path / "nowhere"}')
  assert refused == f'error: {tmp_path / "nowhere"}: no such folder of photos. Check the path\n'


@pytest.mark.parametrize('text', ['1000000', '1,000,000', '1_000_000', '1e6', 1_000_000])
def test_numbers_of_photos(text):
  assert common_flags.CountParser().parse(text) == 1_000_000


@pytest.mark.parametrize('text', ['many', '1.5', '1,5', '10,00', 'inf', 'nan', '', '1.000.000'])
def test_no_numbers_of_photos(text):
  with pytest.raises(ValueError, match='expected a whole number, such as 1000000, 1,000,000 or 1e6'):
    common_flags.CountParser().parse(text)


def test_a_number_of_photos_is_positive():
  with pytest.raises(ValueError, match='0'):
    common_flags.CountParser().parse('0')
