"""The names that `import delf_d2r` offers: documented, imported lazily, enough for a search from arrays."""

import inspect
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import delf_d2r
from delf_d2r.data.ground_truth.ground_truth import GroundTruth, QueryGroundTruth, save_json
from delf_d2r.structures import Ranking
from delf_d2r.version import VERSION

README = pathlib.Path(__file__).resolve().parents[1] / 'README.md'
NAMES = [name for name in delf_d2r.__all__ if name != '__version__']


def python(code):
  return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)


def test_importing_the_package_loads_nothing_heavy():
  code = """
import sys, delf_d2r
delf_d2r.__version__, dir(delf_d2r)
heavy = {'numpy', 'google', 'cv2', 'sklearn', 'faiss', 'numba', 'tensorflow', 'PIL'}
print(*sorted(heavy & set(sys.modules)))
"""
  process = python(code)
  assert (process.returncode, process.stdout.strip(), process.stderr) == (0, '', '')


@pytest.mark.slow
def test_no_name_loads_tensorflow():
  code = """
import sys, delf_d2r
for name in delf_d2r.__all__:
  getattr(delf_d2r, name)
  assert 'tensorflow' not in sys.modules, name
"""
  process = python(code)
  assert process.returncode == 0, process.stderr


@pytest.mark.parametrize('name', NAMES)
def test_names_are_there_and_documented(name):
  value = getattr(delf_d2r, name)
  assert value is getattr(delf_d2r, name)
  assert inspect.getdoc(value)
  if inspect.isfunction(value):
    # Google style: the text of each argument stands under its name.
    documentation = inspect.getdoc(value)
    for argument in inspect.signature(value).parameters:
      assert re.search(rf'^  {argument}: ', documentation, re.MULTILINE), (name, argument)
    assert 'Returns' in documentation


def test_names_and_types_agree():
  # The imports that type checkers see are those that happen.
  source = pathlib.Path(delf_d2r.__file__).read_text(encoding='utf-8')
  seen = {}
  for module, imported in re.findall(r'^  from (\S+) import (.+)$', source, re.MULTILINE):
    for item in imported.split(', '):
      original, _, alias = item.partition(' as ')
      seen[alias or original] = (module, original)
  assert seen == delf_d2r._ORIGINS
  assert sorted([*seen, '__version__']) == sorted(delf_d2r.__all__)


def test_dir_lists_all_names():
  assert set(delf_d2r.__all__) <= set(dir(delf_d2r))
  assert delf_d2r.__version__ == VERSION


def test_unknown_names_are_attribute_errors():
  with pytest.raises(AttributeError, match="'delf_d2r' has no attribute 'serach'"):
    _ = delf_d2r.serach
  with pytest.raises(ImportError, match='serach'):
    exec('from delf_d2r import serach')


@pytest.mark.slow
def test_the_example_of_the_readme_from_arrays():
  text = (
    README.read_text(encoding='utf-8')
    .split('<!-- arrays-example -->')[1]
    .split('<!-- /arrays-example -->')[0]
  )
  (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  assert len([line for line in code.splitlines() if line.strip()]) <= 15
  process = python(code + '\nimport sys\nsys.exit("tensorflow" in sys.modules)')
  assert process.returncode == 0, process.stderr
  (score,) = re.findall(r'\d\.\d+', process.stdout)
  (promised,) = re.findall(r'# mAP (\d\.\d+)', code)
  assert score == promised


TRUTH = {'a': ['1.jpg', '2.jpg'], 'b': ['3.jpg']}
RANKED = {'a': ['1.jpg', '3.jpg', '2.jpg'], 'b': ['0.jpg', '1.jpg', '3.jpg']}
FILES = ['0.jpg', '1.jpg', '2.jpg', '3.jpg']
# By hand: a (1 + 1) / 2 / 2 + (1/2 + 2/3) / 2 / 2, b (0 + 1/3) / 2.
EXPECTED = ((1 + (1 / 2 + 2 / 3) / 2) / 2 + 1 / 6) / 2


def as_ids(lists):
  return {query: [FILES.index(name) for name in names] for query, names in lists.items()}


def ranking(query, ids):
  return Ranking(query, np.array(ids), np.zeros(len(ids), np.float32), np.full(len(ids), -1, np.int32))


@pytest.mark.parametrize(
  ('rankings', 'truth', 'names'),
  [
    (RANKED, TRUTH, None),
    (RANKED, TRUTH, FILES),
    (list(RANKED.values()), TRUTH, None),
    (as_ids(RANKED), as_ids(TRUTH), None),
    (as_ids(RANKED), TRUTH, FILES),
    (RANKED, as_ids(TRUTH), FILES),
    ({query: np.array(ids) for query, ids in as_ids(RANKED).items()}, TRUTH, FILES),
    ([ranking(query, ids) for query, ids in as_ids(RANKED).items()], TRUTH, FILES),
    ([ranking('', ids) for ids in as_ids(RANKED).values()], TRUTH, FILES),
  ],
)
def test_rankings_and_truth_in_every_form(rankings, truth, names):
  metrics = delf_d2r.evaluate(rankings, truth, image_names=names, ks=[1, 3])
  assert metrics.mean_average_precision == pytest.approx(EXPECTED)
  assert metrics.query_names == ('a', 'b')
  assert metrics.protocols['medium'].mean_precision.tolist() == pytest.approx([0.5, (2 / 3 + 1 / 3) / 2])
  assert np.isnan(metrics.protocols['hard'].mean_average_precision)


def test_junk_is_taken_out():
  metrics = delf_d2r.evaluate(RANKED, TRUTH, junk={'a': ['3.jpg'], 'b': ['0.jpg', '1.jpg']})
  assert metrics.mean_average_precision == 1


def test_a_ranking_may_stop_early_or_be_empty():
  metrics = delf_d2r.evaluate({'a': ['1.jpg'], 'b': []}, TRUTH)
  assert metrics.mean_average_precision == 0.25
  assert metrics.protocols['medium'].num_missing == 2


def test_ground_truth_objects_and_files(tmp_path):
  queries = (
    QueryGroundTruth('a', 'q.jpg', easy=('1.jpg',), hard=('2.jpg',), junk=('0.jpg',)),
    QueryGroundTruth('b', 'q.jpg', easy=('3.jpg',)),
  )
  listed, open_ended = GroundTruth('test', tuple(FILES), queries), GroundTruth('test', (), queries)
  save_json(listed, tmp_path / 'truth.json')
  for truth in (listed, open_ended, tmp_path / 'truth.json', str(tmp_path / 'truth.json')):
    metrics = delf_d2r.evaluate(RANKED, truth)
    assert metrics.mean_average_precision == pytest.approx(EXPECTED)
    assert metrics.protocols['easy'].mean_average_precision == pytest.approx((1 + 1 / 6) / 2)
  assert delf_d2r.evaluate(as_ids(RANKED), listed).mean_average_precision == pytest.approx(EXPECTED)
  assert delf_d2r.evaluate(
    as_ids(RANKED), open_ended, image_names=FILES
  ).mean_average_precision == pytest.approx(EXPECTED)


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'rankings': {'a': ['1.jpg']}}, r"queries without a ranking: \['b'\]"),
    ({'rankings': RANKED | {'c': []}}, r"rankings without a query: \['c'\]"),
    ({'rankings': [['1.jpg']]}, 'one ranking for each of the 2 queries, found 1'),
    ({'rankings': [ranking('b', [0]), ranking('a', [0])], 'image_names': FILES}, "'a', found that of 'b'"),
    ({'rankings': as_ids(RANKED)}, 'expected names as elsewhere, found image ids; give image_names'),
    ({'rankings': RANKED | {'a': ['9.jpg']}, 'image_names': FILES}, "'9.jpg' is not among the 4"),
    ({'rankings': RANKED | {'a': ['1.jpg', '1.jpg']}}, "query 'a': expected each image once"),
    ({'rankings': RANKED | {'a': '1.jpg'}}, "expected a list of images, found the text '1.jpg'"),
    ({'junk': {'a': ['1.jpg']}}, "query 'a': expected positives and junk to be disjoint"),
    ({'junk': {'c': ['1.jpg']}}, r"junk: found \['c'\]"),
    ({'ks': [0]}, 'whole numbers from 1'),
  ],
)
def test_contradictions_are_errors(changes, says):
  arguments = {'rankings': RANKED, 'ground_truth': TRUTH} | changes
  with pytest.raises(ValueError, match=says):
    delf_d2r.evaluate(**arguments)


def test_junk_beside_a_ground_truth_is_an_error():
  truth = GroundTruth('test', (), (QueryGroundTruth('a', 'q.jpg', easy=('1.jpg',)),))
  with pytest.raises(ValueError, match='junk: expected None'):
    delf_d2r.evaluate({'a': ['1.jpg']}, truth, junk={'a': ['0.jpg']})
