import dataclasses
import json
import math

import numpy as np
import pytest

from delf_d2r.data.ground_truth.ground_truth import ResolvedQuery
from delf_d2r.errors import UserError
from delf_d2r.evaluation import metrics_files, protocol
from delf_d2r.evaluation.metrics_files import Summary

DELF_METRICS_TXT = (
  'hard\n'
  '  mAP=70.0\n'
  '  mP@k[1 5] [100.  80.]\n'
  '  mR@k[1 5] [50. 80.]\n'
  'medium\n'
  '  mAP=90.0\n'
  '  mP@k[1 5] [100. 100.]\n'
  '  mR@k[1 5] [ 50. 100.]\n'
)
SUMMARIES = {
  'medium': Summary((1, 5), 0.9, (1.0, 1.0), (0.5, 1.0)),
  'hard': Summary((1, 5), 0.7, (1.0, 0.8), (0.5, 0.8)),
}


@pytest.fixture
def metrics():
  rng = np.random.default_rng(1)
  queries = [
    ResolvedQuery('Straße/é 1.jpg', np.array([1, 2, 3]), np.array([4]), np.array([5])),
    ResolvedQuery('b\udce9.jpg', np.array([], np.int64), np.array([7, 90]), np.array([], np.int64)),
    ResolvedQuery('c', *[np.array([], np.int64)] * 3),
  ]
  return protocol.evaluate([rng.permutation(40) for _ in queries], queries)


def assert_same(found, expected):
  assert (found.ks, found.query_names) == (expected.ks, expected.query_names)
  assert list(found.protocols) == list(expected.protocols)
  for name, values in expected.protocols.items():
    for a, b in zip(found.protocols[name].queries, values.queries, strict=True):
      for field in dataclasses.fields(b):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), strict=True)


def test_per_query_round_trip_is_exact(tmp_path, metrics):
  path = tmp_path / 'per_query.json'
  metrics_files.write_per_query(path, metrics)
  assert_same(metrics_files.read_per_query(path), metrics)
  assert [p.name for p in tmp_path.iterdir()] == ['per_query.json']


def test_no_queries(tmp_path):
  metrics = protocol.evaluate([], [], ks=np.array([1, 5]))
  metrics_files.write_per_query(tmp_path / 'per_query.json', metrics)
  assert_same(metrics_files.read_per_query(tmp_path / 'per_query.json'), metrics)
  metrics_files.write_metrics_json(tmp_path / 'metrics.json', metrics)
  assert metrics_files.read_metrics_json(tmp_path / 'metrics.json')['easy'].num_queries == 0
  metrics_files.write_metrics_txt(tmp_path / 'metrics.txt', metrics)
  read = metrics_files.read_metrics_txt(tmp_path / 'metrics.txt')['medium']
  assert read.ks == (1, 5)
  assert np.isnan([read.mean_average_precision, *read.mean_precision, *read.mean_recall]).all()


def test_metrics_json_keeps_full_precision(tmp_path, metrics):
  path = tmp_path / 'metrics.json'
  metrics_files.write_metrics_json(path, metrics)
  read = metrics_files.read_metrics_json(path)
  assert list(read) == ['easy', 'medium', 'hard']
  for name, summary in read.items():
    values = metrics.protocols[name]
    assert summary.ks == (1, 5, 10)
    assert summary.mean_average_precision == values.mean_average_precision
    assert summary.mean_precision == tuple(values.mean_precision)
    assert summary.mean_recall == tuple(values.mean_recall)
    assert (summary.num_queries, summary.num_missing) == (values.num_queries, values.num_missing)
  assert read['easy'].num_queries == 1
  assert read['hard'].num_missing == 1  # Image 90 is in no ranking.


def test_no_value_is_null(tmp_path):
  nothing = protocol.evaluate([np.array([0])], [ResolvedQuery('q', *[np.array([], np.int64)] * 3)])
  metrics_files.write_metrics_json(tmp_path / 'metrics.json', nothing)
  easy = json.loads((tmp_path / 'metrics.json').read_text())['protocols']['easy']
  assert easy == {
    'mAP': None,
    'mP@k': [None] * 3,
    'mR@k': [None] * 3,
    'num_queries': 0,
    'num_missing_positives': 0,
  }
  read = metrics_files.read_metrics_json(tmp_path / 'metrics.json')['easy']
  assert math.isnan(read.mean_average_precision)
  assert np.isnan(read.mean_precision).all()


def test_the_same_metrics_give_the_same_bytes(tmp_path, metrics):
  for write in (
    metrics_files.write_metrics_json,
    metrics_files.write_per_query,
    metrics_files.write_metrics_txt,
  ):
    write(tmp_path / 'a', metrics)
    write(tmp_path / 'b', metrics)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_txt_is_the_research_codes():
  assert metrics_files.format_metrics_txt(SUMMARIES) == DELF_METRICS_TXT


def test_txt_rounds_to_two_decimals_and_pads_as_numpy():
  summary = Summary((1, 5, 10), 0.733349, (0.9142857, 0.8, 1.0), (0.012345, 0.05, math.nan))
  assert metrics_files.format_metrics_txt({'medium': summary}) == (
    'medium\n  mAP=73.33\n  mP@k[ 1  5 10] [ 91.43  80.   100.  ]\n  mR@k[ 1  5 10] [1.23 5.    nan]\n'
  )


def test_txt_does_not_depend_on_print_options():
  with np.printoptions(legacy='1.13', precision=1, linewidth=10, sign='+', suppress=True):
    assert metrics_files.format_metrics_txt(SUMMARIES) == DELF_METRICS_TXT


def test_txt_of_many_ks_stays_on_one_line(tmp_path):
  ks = tuple(range(1, 201))
  summary = Summary(ks, 0.5, tuple(k / 400 for k in ks), tuple(k / 200 for k in ks))
  text = metrics_files.format_metrics_txt({'hard': summary})
  assert text.count('\n') == 4
  (tmp_path / 'metrics.txt').write_text(text)
  found = metrics_files.read_metrics_txt(tmp_path / 'metrics.txt')['hard']
  np.testing.assert_allclose(found.mean_precision, summary.mean_precision, atol=5e-5)


def test_txt_round_trip(tmp_path, metrics):
  path = tmp_path / 'metrics.txt'
  metrics_files.write_metrics_txt(path, metrics, after_verification=metrics)
  read = metrics_files.read_metrics_txt(path)
  assert list(read) == ['hard', 'hard_after_gv', 'medium', 'medium_after_gv']
  for key, summary in read.items():
    values = metrics.protocols[key.removesuffix('_after_gv')]
    assert summary.mean_average_precision == pytest.approx(values.mean_average_precision, abs=5.1e-5)
    np.testing.assert_allclose(summary.mean_precision, values.mean_precision, atol=5.1e-5)
    np.testing.assert_allclose(summary.mean_recall, values.mean_recall, atol=5.1e-5)
    assert summary.num_queries is None


def test_txt_of_old_numpy_is_read(tmp_path):
  (tmp_path / 'metrics.txt').write_text(
    'hard\n  mAP=70.0\n  mP@k[1 5] [ 100.   80.]\n  mR@k[1 5] [ 50.  80.]\n'
    'medium\n  mAP=90.0\n  mP@k[1 5] [ 100.  100.]\n  mR@k[1 5] [  50.  100.]\n'
  )
  assert metrics_files.read_metrics_txt(tmp_path / 'metrics.txt') == SUMMARIES


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (DELF_METRICS_TXT + DELF_METRICS_TXT[: len(DELF_METRICS_TXT) // 2], 'line 9: '),
    (DELF_METRICS_TXT[:-1], 'line 5: expected a key, mAP='),
    (DELF_METRICS_TXT + DELF_METRICS_TXT, 'line 9: section hard occurs twice'),
    (DELF_METRICS_TXT.replace('[100.  80.]', '[100.]'), 'line 1: .*found .*with 1 and .*with 2'),
    (DELF_METRICS_TXT.replace('mAP=90.0', 'mAP=good'), 'line 5: could not convert'),
    ('easy\n', 'line 1: expected a key'),
  ],
)
def test_malformed_txt_is_refused_with_its_line(tmp_path, text, message):
  (tmp_path / 'metrics.txt').write_text(text)
  with pytest.raises(UserError, match=message) as caught:
    metrics_files.read_metrics_txt(tmp_path / 'metrics.txt')
  assert 'metrics.txt' in str(caught.value)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"version": 1, "ks": [1', 'metrics.json: .*evaluate again'),
    ('{"version": 2}', 'expected version 1, found 2'),
    ('{"version": 1}', 'no '),
    ('[]', 'evaluate again'),
    ('{"version": 1, "ks": [1], "protocols": {"easy": 3}, "queries": [3]}', 'evaluate again'),
  ],
)
@pytest.mark.parametrize('read', [metrics_files.read_metrics_json, metrics_files.read_per_query])
def test_malformed_json_is_refused(tmp_path, text, message, read):
  (tmp_path / 'metrics.json').write_text(text)
  with pytest.raises(UserError, match=message):
    read(tmp_path / 'metrics.json')


def test_absent_and_binary_files_are_refused(tmp_path):
  with pytest.raises(UserError, match='No such file'):
    metrics_files.read_metrics_txt(tmp_path / 'metrics.txt')
  (tmp_path / 'metrics.txt').write_bytes(b'\xff\xfe')
  with pytest.raises(UserError, match='not UTF-8 at byte 0'):
    metrics_files.read_metrics_txt(tmp_path / 'metrics.txt')
