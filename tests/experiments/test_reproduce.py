"""Tables of the paper: files that rows need, artefacts that they share, and the forms of the table."""

import csv
import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from support.run_files import contents

from delf_d2r.data.ground_truth import benchmarks
from delf_d2r.data.ground_truth.benchmarks import Benchmark
from delf_d2r.data.photos import distractor_list
from delf_d2r.errors import ConfigError, UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import paper_tables, reproduction, reproduction_table
from delf_d2r.experiments.experiment import Options

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
REVISITED = REPOSITORY.parent / 'shared/data/revisited_ground_truth'
ROWS = """
title: "Small table" source: "a test"
rows { name: "SIFT-ASMK*" config_path: "CONFIG" reported { dataset: "roxford5k" medium: 60.4 } note: "Tiny." }
rows { name: "SIFT-ASMK*+SP" config_path: "CONFIG" overrides: 'verification { num_images: 6 }'
  reported { dataset: "roxford5k" medium: 60.6 hard: 36.7 hard_among_distractors: 26.9 }
  reported { dataset: "rparis6k" medium: 61.4 } }
rows { name: "SIFT-VLAD" config_path: "CONFIG" overrides: 'aggregation.kernel: VLAD' }
rows { name: "true boxes" config_path: "CONFIG" overrides: 'regions { source: FILE }' }
rows { name: "DELF" config_path: "CONFIG" modules: "no_such_module"
  overrides: 'extraction { extractor: DELF delf { model_path: "nowhere/model" } }'
  overrides: 'regions { source: DETECTOR detector { model_path: "nowhere/detector" } }' }
files { path: "nowhere/model" where: "fetch it from the moon" }
"""


@pytest.fixture(scope='module')
def table_path(config_path, tmp_path_factory):
  path = tmp_path_factory.mktemp('table') / 'small.pbtxt'
  plain = tmp_path_factory.mktemp('table') / 'plain.pbtxt'
  # Without the contrast threshold of RootSIFT and the grid, which other extractors and sources do not take.
  text = config_path.read_text().replace('root_sift { contrast_threshold: 0.02 }', '')
  plain.write_text(
    text.replace('uniform { boxes_per_side: [2] }', '')
    .replace('UNIFORM', 'NONE')
    .replace('REGIONAL_AGGREGATION', 'WHOLE_IMAGE')
  )
  path.write_text(ROWS.replace('CONFIG', str(plain)))
  return path


@pytest.fixture(scope='module')
def small(benchmark):
  return Benchmark('folder', benchmark.images_dir, benchmark.ground_truth_path, benchmark.queries_dir)


@pytest.fixture(scope='module')
def distractor_photos(benchmark, tmp_path_factory):
  folder = tmp_path_factory.mktemp('more') / 'others'
  folder.mkdir()
  for file in sorted(benchmark.queries_dir.iterdir())[:4]:
    shutil.copy(file, folder)
  return folder


@pytest.fixture(scope='module')
def output(tmp_path_factory):
  return tmp_path_factory.mktemp('reproduced')


@pytest.fixture(scope='module')
def found(table_path, small, distractor_photos, output):
  choices = reproduction.Choices(
    distractors=distractor_list.load(distractor_photos), options=Options(workers=1)
  )
  return reproduction.run(paper_tables.load_table(table_path), small, output, choices)


def by_name(found):
  return {result.row.name: result for result in found.results}


@pytest.mark.parametrize('name', paper_tables.TABLES)
class TestTables:
  """The tables that come with the package."""

  def test_every_row_has_a_config_that_fits(self, name):
    for row in paper_tables.load_table(name).rows:
      for is_revisited in (False, True):
        config = paper_tables.row_config(row, is_revisited=is_revisited)
        assert config.name == row.name
        assert config.HasField('extraction')

  def test_every_file_is_explained_and_needed(self, name):
    table = paper_tables.load_table(name)
    needed = {
      path
      for row in table.rows
      for path in paper_tables.needed_files(paper_tables.row_config(row, is_revisited=True))
    }
    assert {file.path for file in table.files} == needed
    assert all(len(file.where) > 20 for file in table.files)

  def test_names_are_distinct_as_names_of_folders(self, name):
    folders = [paper_tables.folder_name(row.name) for row in paper_tables.load_table(name).rows]
    assert len(set(folders)) == len(folders)
    assert all(re.fullmatch(r'[a-z0-9_]+', folder) for folder in folders)

  def test_reported_numbers_are_plausible(self, name):
    for row in paper_tables.load_table(name).rows:
      for result in row.reported:
        assert result.dataset in benchmarks.REVISITED
        assert 0 < result.hard < result.medium < 100
        if result.HasField('medium_among_distractors'):
          assert result.medium_among_distractors < result.medium
          assert result.hard_among_distractors < result.hard

  def test_some_rows_run_everywhere(self, name):
    table = paper_tables.load_table(name)
    configs = [paper_tables.row_config(row, is_revisited=False) for row in table.rows if not row.modules]
    assert sum(not paper_tables.needed_files(config) for config in configs) >= 5


@pytest.mark.parametrize('name', ['nope', 'nope.pbtxt'])
def test_a_table_that_is_not_there(name):
  with pytest.raises(ConfigError) as caught:
    paper_tables.load_table(name)
  assert (
    str(caught.value) == f'{name}: no such table. There are main and ablation; or give a .pbtxt of that form'
  )


def test_a_table_that_is_none(tmp_path):
  (tmp_path / 'x.pbtxt').write_text('rows { nme: "x" }')
  with pytest.raises(ConfigError, match=r'x\.pbtxt: not a table'):
    paper_tables.load_table(tmp_path / 'x.pbtxt')


@pytest.mark.slow
def test_rows_are_measured_as_an_experiment_is(found, output):
  result = by_name(found)['SIFT-ASMK*']
  assert result.status == 'measured'
  for place, measured in (('', result.alone), ('with_distractors', result.among)):
    path = output / 'sift_asmk_star' / place / 'metrics' / 'metrics.json'
    metrics = metrics_files.read_metrics_json(path)
    for protocol, value in measured.mean_average_precision.items():
      assert metrics[protocol].mean_average_precision == value
  assert result.alone.mean_average_precision['medium'] >= result.among.mean_average_precision['medium']


def test_rows_share_what_their_configs_agree_on(found, output):
  del found
  folders = {
    row: {path.name for path in (output / row).iterdir()}
    for row in ('sift_asmk_star', 'sift_asmk_star_sp', 'sift_vlad')
  }
  assert {'features', 'codebook', 'descriptors', 'index', 'query_features'} <= folders['sift_asmk_star']
  assert {'features', 'codebook', 'descriptors', 'index', 'query_features', 'distractors'}.isdisjoint(
    folders['sift_asmk_star_sp']
  )
  assert not (output / 'sift_asmk_star_sp' / 'with_distractors' / 'index').exists()
  assert {'descriptors', 'index'} <= folders['sift_vlad']
  assert {'features', 'codebook'}.isdisjoint(folders['sift_vlad'])


def test_what_is_missing_is_said_with_its_source(found):
  result = by_name(found)['DELF']
  assert result.status == 'needs files'
  assert result.missing == (
    'the Python module no_such_module',
    'nowhere/model',
    'nowhere/detector',
  )
  assert by_name(found)['true boxes'].missing == ('boxes of the photos',)
  assert [(need.what, need.where) for need in found.needs][2:] == [
    ('nowhere/model', 'fetch it from the moon'),
    ('nowhere/detector', ''),
  ]


def test_the_table_in_all_its_forms(found, output):
  text = (output / 'small_table.txt').read_text()
  assert text == reproduction_table.as_text(found)
  assert re.match(r'Small table on folder \(.+\): 28 images, 12 queries\n', text)
  (line,) = re.findall(r'^SIFT-ASMK\*\+SP .*$', text, re.MULTILINE)
  assert all(cell in line.split() for cell in ('60.6', '36.7', '26.9', 'measured'))
  assert '61.4' not in line
  assert 'SIFT-ASMK*: Tiny.' in text
  assert 'M+1M' in text
  records = json.loads((output / 'small_table.json').read_text())
  assert [record['row'] for record in records] == [result.row.name for result in found.results]
  assert records[1]['reported_rparis6k_medium'] == 61.4
  assert records[0]['hard_among_distractors'] is not None
  with open(output / 'small_table.csv', newline='') as file:
    assert [row['status'] for row in csv.DictReader(file)] == [record['status'] for record in records]
  page = (output / 'report' / 'index.html').read_text()
  for part in ('href="../sift_asmk_star/report/index.html"', 'fetch it from the moon', 'paper ROxf M'):
    assert part in page
  assert (output / 'report' / '../sift_asmk_star/report/index.html').is_file()
  assert text.count('nowhere/model') == page.count('nowhere/model') == 1
  assert records[4]['missing'] == 'the Python module no_such_module; nowhere/model; nowhere/detector'


@pytest.mark.slow
def test_columns_without_numbers_are_left_out_of_the_text(table_path, small, output, found):
  del found
  choices = reproduction.Choices(rows=['SIFT-VLAD'], options=Options(workers=1))
  table = paper_tables.load_table(table_path)
  table.title = 'Another'
  text = reproduction_table.as_text(reproduction.run(table, small, output, choices))
  assert '+1M' not in text
  assert 'paper ROxf' not in text


@pytest.mark.slow
def test_a_second_run_makes_nothing(table_path, small, distractor_photos, output, found):
  del found
  before = {file: file.stat().st_mtime_ns for file in output.rglob('*.npy')}
  choices = reproduction.Choices(
    distractors=distractor_list.load(distractor_photos), options=Options(workers=1)
  )
  again = reproduction.run(paper_tables.load_table(table_path), small, output, choices)
  assert before == {file: file.stat().st_mtime_ns for file in output.rglob('*.npy')}
  assert [result.status for result in again.results] == ['measured'] * 3 + ['needs files'] * 2


def test_a_row_that_fails_does_not_keep_others_from_running(table_path, small, tmp_path):
  table = paper_tables.load_table(table_path)
  table.rows[0].overrides.append('codebook.num_words: 100000000')
  table.rows[1].overrides.append('aggregation.tau: 7')
  choices = reproduction.Choices(rows=['SIFT-ASMK*+SP', 'DELF'], options=Options(workers=1))
  results = by_name(reproduction.run(table, small, tmp_path, choices))
  assert results['SIFT-ASMK*+SP'].status == 'failed'
  assert 'tau' in results['SIFT-ASMK*+SP'].note
  assert results['DELF'].status == 'needs files'


def every_byte(folder):
  return {file: file.read_bytes() for file in folder.rglob('*') if file.is_file()}


@pytest.fixture(scope='module')
def rerun(table_path, small, tmp_path_factory):
  """Runs two rows that share all but the verification, into one folder and with few words."""
  place = tmp_path_factory.mktemp('again')

  def rerun(*, rows=('SIFT-ASMK*', 'SIFT-ASMK*+SP'), redo=False, benchmark=small, output=place, **choices):
    wanted = reproduction.Choices(rows=rows, options=Options(workers=1, redo=redo), **choices)
    return reproduction.run(paper_tables.load_table(table_path), benchmark, output, wanted)

  rerun.output = place
  rerun(max_words=32)
  return rerun


@pytest.mark.slow
def test_what_another_run_made_is_refused_before_anything_is_lost(
  rerun, small, distractor_photos, tmp_path, benchmark
):
  before = every_byte(rerun.output)
  truth = tmp_path / 'other.json'
  truth.write_text(benchmark.ground_truth_path.read_text() + ' ')
  photos = shutil.copytree(benchmark.images_dir, tmp_path / 'photos')
  photo = sorted(photos.iterdir())[0]
  photo.write_bytes(photo.read_bytes() + b' ')
  for what, changed in (
    (r'codebook\.num_words is 32 there, 16 here', {'max_words': 16}),
    (r'aggregation\.tau is 0 there, 0\.5 here', {'max_words': 32, 'overrides': ['aggregation.tau: 0.5']}),
    ('input ground_truth is', {'max_words': 32, 'benchmark': dataclasses.replace(small, ground_truth=truth)}),
    ('input images is', {'max_words': 32, 'benchmark': dataclasses.replace(small, images=photos)}),
  ):
    with pytest.raises(UserError) as refusal:
      rerun(**changed)
    text = str(refusal.value)
    assert re.search(what, text)
    assert re.search(r'row SIFT-ASMK\*: .*sift_asmk_star was made by another run', text)
    assert '--redo' in text
    # The folder of the second row holds only its own verification and metrics.
    assert ('row SIFT-ASMK*+SP' in text) == ('images' not in what)
    assert every_byte(rerun.output) == before


@pytest.mark.slow
def test_other_distractors_are_refused_before_anything_is_lost(rerun, small, distractor_photos, tmp_path):
  chosen = {'rows': ['SIFT-ASMK*'], 'max_words': 32, 'output': tmp_path / 'out'}
  rerun(distractors=distractor_list.load(distractor_photos), **chosen)
  before = every_byte(tmp_path)
  others = tmp_path / 'fewer' / 'photos'
  shutil.copytree(distractor_photos, others)
  sorted(others.iterdir())[0].unlink()
  before = every_byte(tmp_path)
  with pytest.raises(UserError, match=r'input images is .* there'):
    rerun(distractors=distractor_list.load(others), **chosen)
  assert every_byte(tmp_path) == before
  (result,) = rerun(**chosen).results
  assert result.status == 'measured'


def test_what_was_begun_by_another_run_is_refused(rerun, tmp_path):
  shutil.copytree(rerun.output, tmp_path / 'out')
  row = tmp_path / 'out' / 'sift_asmk_star'
  for name in ('descriptors', 'index', 'rankings', 'metrics'):
    shutil.rmtree(row / name)
  (row / 'codebook' / 'manifest.pbtxt').rename(row / 'codebook' / 'manifest.partial.pbtxt')
  with pytest.raises(UserError, match=r'codebook\.num_words is 32 there, 16 here'):
    rerun(rows=['SIFT-ASMK*'], max_words=16, output=tmp_path / 'out')


@pytest.mark.slow
def test_what_a_row_made_before_another_shared_its_own_is_no_hindrance(rerun, tmp_path):
  rerun(rows=['SIFT-ASMK*+SP'], max_words=16, output=tmp_path)
  with pytest.raises(UserError, match='row SIFT-ASMK'):
    rerun(max_words=32, output=tmp_path)
  for redo in (True, False):
    found = rerun(max_words=32, output=tmp_path, redo=redo)
    assert [result.status for result in found.results] == ['measured'] * 2
  assert (tmp_path / 'sift_asmk_star_sp' / 'codebook').is_dir()


def test_numbers_of_a_row_that_fails_now_are_kept(rerun, table_path, small, tmp_path):
  shutil.copytree(rerun.output, tmp_path / 'out')
  texts = {name: (rerun.output / f'small_table.{name}').read_bytes() for name in ('txt', 'csv', 'json')}
  table = paper_tables.load_table(table_path)
  table.rows[1].overrides.append('aggregation.tau: 7')
  choices = reproduction.Choices(rows=['SIFT-ASMK*+SP'], options=Options(workers=1))
  # A row that failed before has no numbers to lose.
  for is_restored, copies in ((False, 1), (False, 1), (True, 2)):
    for name, text in texts.items() if is_restored else ():
      (tmp_path / 'out' / f'small_table.{name}').write_bytes(text)
    (result,) = reproduction.run(table, small, tmp_path / 'out', choices).results
    assert result.status == 'failed'
    for name, text in texts.items():
      assert (tmp_path / 'out' / f'small_table.{name}').read_bytes() != text
      kept = sorted((tmp_path / 'out').glob(f'small_table_*.{name}'))
      assert [file.stem for file in kept] == [f'small_table_{number + 1}' for number in range(copies)]
      assert {file.read_bytes() for file in kept} == {text}


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('nothing', r"no row 'nothing' in the table\. Its rows: 'SIFT-ASMK\*', .*'DELF'$"),
    ('vlad', r"Did you mean 'SIFT-VLAD'\?$"),
    ('SIFT-AMSK', r"Did you mean 'SIFT-ASMK\*' or "),
    ('', 'Its rows'),
  ],
)
def test_rows_that_are_not_there(table_path, small, tmp_path, name, message):
  with pytest.raises(UserError, match=message):
    reproduction.run(
      paper_tables.load_table(table_path), small, tmp_path / 'out', reproduction.Choices(rows=[name])
    )
  assert not (tmp_path / 'out').exists()


def test_rows_by_the_names_of_their_folders(table_path):
  table = paper_tables.load_table(table_path)
  for names in (['sift_vlad', 'SIFT-ASMK*+SP'], ['sift_asmk_star_sp', 'SIFT-VLAD', 'SIFT-VLAD']):
    assert [row.name for row in paper_tables.chosen(table, names)] == ['SIFT-ASMK*+SP', 'SIFT-VLAD']
  assert paper_tables.chosen(table, []) == list(table.rows)


def test_a_table_that_is_not_finished_says_so(table_path, small, output, found, monkeypatch):
  del found
  written = []
  write = reproduction_table.write
  monkeypatch.setattr(
    reproduction_table, 'write', lambda found, place: (write(found, place), written.append(found))
  )
  choices = reproduction.Choices(rows=['true boxes', 'DELF'], options=Options(workers=1))
  table = paper_tables.load_table(table_path)
  table.title = 'Two rows'
  reproduction.run(table, small, output, choices)
  first, last = map(reproduction_table.as_text, written)
  assert 'Unfinished: 1 row is still to come.' in first
  assert 'Unfinished' not in last
  assert last == (output / 'two_rows.txt').read_text()


@pytest.mark.slow
def test_codebooks_of_other_photos(table_path, small, distractor_photos, tmp_path, benchmark):
  others = Benchmark('folder', benchmark.queries_dir)
  choices = reproduction.Choices(rows=['SIFT-ASMK*', 'SIFT-VLAD'], max_words=32, options=Options(workers=1))
  table = paper_tables.load_table(table_path)
  whole = Benchmark(small.name, small.images, small.ground_truth, small.query_images, codebook=others)
  found = reproduction.run(table, whole, tmp_path, choices)
  assert [result.status for result in found.results] == ['measured', 'measured']
  (place,) = (tmp_path / 'codebooks').iterdir()
  manifest = (tmp_path / 'sift_asmk_star' / 'index' / 'manifest.pbtxt').read_text()
  assert 'num_words: 32' in manifest
  assert str(place / 'codebook_') in manifest
  assert not (tmp_path / 'sift_asmk_star' / 'codebook').exists()
  assert 'Codebooks are trained on' in (tmp_path / 'small_table.txt').read_text()
  assert contents(place)


# Data sets


def test_the_mini_benchmark_is_made_once(tmp_path, monkeypatch):
  calls = []

  def generate(root, **options):
    calls.append((root, options['seed']))
    (root / 't.json').touch()
    made = (root / name for name in ('index', 'queries', 't.json', 'b.csv'))
    return benchmarks.mini_benchmark.MiniBenchmark(*made)

  monkeypatch.setattr(benchmarks.mini_benchmark, 'generate', generate)
  found = benchmarks.locate('mini', tmp_path)
  assert calls == [(tmp_path, 0)]
  assert (found.images, found.boxes) == (tmp_path / 'index', tmp_path / 'b.csv')


def test_a_folder_needs_a_ground_truth(tmp_path, benchmark):
  with pytest.raises(UserError, match='--ground_truth'):
    benchmarks.locate('folder', tmp_path)
  found = benchmarks.locate('folder', benchmark.images_dir, ground_truth=benchmark.ground_truth_path)
  assert (found.ground_truth, found.boxes) == (benchmark.ground_truth_path, None)


@pytest.mark.skipif(not REVISITED.is_dir(), reason='../shared/data is not beside the checkout')
def test_oxford_takes_its_codebook_from_paris(tmp_path):
  for name in benchmarks.REVISITED:
    (tmp_path / name / 'jpg').mkdir(parents=True)
  (tmp_path / 'roxford5k' / 'gnd_roxford5k.pkl').symlink_to(REVISITED / 'gnd_roxford5k.pkl')
  for root in (tmp_path, tmp_path / 'roxford5k'):
    assert benchmarks.locate('roxford5k', root).codebook is None
  (tmp_path / 'rparis6k' / 'gnd_rparis6k.pkl').symlink_to(REVISITED / 'gnd_rparis6k.pkl')
  found = benchmarks.locate('roxford5k', tmp_path)
  assert found.is_revisited
  assert found.images == tmp_path / 'roxford5k' / 'jpg'
  assert found.codebook.images == tmp_path / 'rparis6k' / 'jpg'
  assert benchmarks.locate('rparis6k', tmp_path).codebook.name == 'roxford5k'


@pytest.mark.slow
def test_the_binary(table_path, benchmark, tmp_path):
  command = [
    sys.executable,
    REPOSITORY / 'tools/reproduce.py',
    f'--table={table_path}',
    '--dataset=folder',
    f'--root={benchmark.images_dir}',
    f'--ground_truth={benchmark.ground_truth_path}',
    f'--query_images={benchmark.queries_dir}',
    f'--output={tmp_path}',
    '--row=DELF',
  ]
  process = subprocess.run(command, capture_output=True, text=True, check=False)
  assert process.returncode == 0, process.stderr
  assert 'needs files' in process.stdout
  assert process.stdout.endswith(f'report: {tmp_path / "report" / "index.html"}\n')
  process = subprocess.run(
    [*command, '--override=extraction.max_features: -1'], capture_output=True, text=True, check=False
  )
  assert process.returncode == 1
  assert 'failed' in process.stdout


@pytest.mark.slow
def test_the_list_of_rows_needs_no_data_and_no_output(table_path, tmp_path):
  command = [sys.executable, REPOSITORY / 'tools/reproduce.py', f'--table={table_path}', '--list']
  process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
  assert process.returncode == 0, process.stderr
  lines = [line.split() for line in process.stdout.splitlines()]
  assert process.stdout.startswith('Small table: 5 rows, 4 of them run here\n')
  assert ['SIFT-VLAD', 'runs'] in lines
  assert ['DELF', 'needs', '3'] in lines
  assert '  nowhere/model\n      for DELF\n      fetch it from the moon\n' in process.stdout
  process = subprocess.run(
    [*command, '--dataset=roxford5k', '--row=true boxes'], capture_output=True, text=True, check=False
  )
  assert 'boxes of the photos\n      for true boxes\n      boxes.csv' in process.stdout
  process = subprocess.run(command[:-1], capture_output=True, text=True, check=False, cwd=tmp_path)
  assert process.returncode == 1
  assert 'give --output' in process.stderr
  assert not list(tmp_path.iterdir())
