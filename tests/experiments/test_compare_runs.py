"""`d2r compare`: the page and JSON of two finished runs, links into their reports, and errors."""

import json
import re
import shutil
import sys

import pytest

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.errors import UserError
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import paired_runs
from delf_d2r.report import paired_page
from tools import compare as binary

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def other(run, finished_dir, tmp_path_factory):
  """The features of the finished run without its boxes, verified."""
  kinds = ('features', 'codebook', 'query_features')
  kinds = {kind: Artefact.open(finished_dir / kind, kind.removeprefix('query_')) for kind in kinds}
  return run(
    'aggregation.regions: WHOLE_IMAGE',
    'aggregation.alpha: 0.5',
    'verification { num_images: 10 max_false_alarms: 1e30 }',
    output=tmp_path_factory.mktemp('other'),
    given=kinds,
  )


@pytest.fixture(scope='module')
def other_dir(other):
  return other.page.parent.parent


def compared(*paths, **options):
  return paired_runs.compare([paired_runs.open_run(path, **options) for path in paths])


def test_numbers_are_those_of_the_metrics(finished_dir, other_dir):
  comparison = compared(finished_dir, other_dir)
  ((_, by_protocol),) = comparison.others
  first, second = (
    metrics_files.read_per_query(path / 'per_query.json')
    for path in (finished_dir / 'metrics', other_dir / 'reranked_metrics')
  )
  for protocol, found in by_protocol.items():
    gain = (
      second.protocols[protocol].mean_average_precision - first.protocols[protocol].mean_average_precision
    )
    assert found.interval.mean == pytest.approx(gain)
    assert len(found.won) + len(found.lost) + len(found.tied) == len(found.queries)
  assert by_protocol['medium'].won or by_protocol['medium'].lost


def test_scores_are_those_that_the_report_shows(other, other_dir):
  reported = metrics_files.read_per_query(other.reported.metrics.path / 'per_query.json')
  found = paired_runs.open_run(other_dir)
  assert found.metrics.protocols['medium'].mean_average_precision == pytest.approx(
    reported.protocols['medium'].mean_average_precision, abs=0
  )
  assert found.page == other.page
  # The metrics from before verification are a run of their own, which no report shows.
  before = paired_runs.open_run(other_dir / 'metrics')
  assert before.page is None
  assert compared(other_dir / 'metrics', other_dir).others[0][1]['medium'].won


def test_links_lead_to_the_query_in_the_report(finished_dir, other_dir, tmp_path):
  out = tmp_path / 'a b' / 'compared'
  page = paired_runs.write(compared(finished_dir, other_dir), out).read_text(encoding='utf-8')
  links = set(re.findall(r'href="([^"]+)#(q\d+)"', page))
  assert links
  names = {}
  for run in (finished_dir, other_dir):
    report = (run / 'report' / 'index.html').read_text(encoding='utf-8')
    for query, anchor in paired_page.query_anchors(report).items():
      assert f'id="{anchor}" class="query" data-name="{query}"' in report
      names[str((run / 'report' / 'index.html').resolve()), anchor] = query
  for place, anchor in links:
    assert (str((out / place).resolve()), anchor) in names
  for query in re.findall(r'<tr><th scope="row">([^<]+)</th><td[^>]*>[^<]*</td>', page):
    assert query in {*names.values(), str(other_dir)}


def test_binary_prints_a_table_and_writes_both_files(finished_dir, other_dir, tmp_path, capsys, monkeypatch):
  arguments = ['compare', str(finished_dir), str(other_dir), str(finished_dir), f'--output={tmp_path}']
  monkeypatch.setattr(sys, 'argv', arguments)
  binary.FLAGS(arguments)
  binary.main(['compare', *map(str, (finished_dir, other_dir, finished_dir))])
  printed = capsys.readouterr().out
  assert re.search(rf'{other_dir} +[\d.]+ +[-+][\d.]+\*? +\[[-+][\d.]+, [-+][\d.]+\] +\d+ +\d+ +\d+', printed)
  assert re.search(rf'{finished_dir} +[\d.]+ +\+0\.0 +\[\+0\.0, \+0\.0\] +0 +0 +\d+', printed)
  document = json.loads((tmp_path / 'compare.json').read_text(encoding='utf-8'))
  medium = document['runs'][0]['protocols']['medium']
  assert medium['num_queries'] == len(medium['queries'])
  gains = [query['run'] - query['baseline'] for query in medium['queries']]
  assert medium['difference'] == pytest.approx(sum(gains) / len(gains))
  assert {*medium['won'], *medium['lost'], *medium['tied']} == {query['query'] for query in medium['queries']}
  again = tmp_path / 'again'
  paired_runs.write(compared(finished_dir, other_dir, finished_dir), again)
  assert (again / 'compare.json').read_bytes() == (tmp_path / 'compare.json').read_bytes()


def test_metrics_and_rankings_serve_like_the_run(finished_dir, other_dir, benchmark):
  truth = benchmark.ground_truth_path
  whole = compared(finished_dir, other_dir)
  parts = compared(finished_dir / 'metrics', other_dir / 'reranked', ground_truth=truth)
  for protocol, found in whole.others[0][1].items():
    assert found.interval == parts.others[0][1][protocol].interval
  assert parts.baseline.page == whole.baseline.page
  with pytest.raises(UserError, match=r'rankings without metrics\. Give --ground_truth'):
    compared(finished_dir, other_dir / 'rankings')


def test_what_cannot_be_compared(finished_dir, tmp_path, benchmark):
  with pytest.raises(UserError, match='found 1 runs; give two or more'):
    compared(finished_dir)
  with pytest.raises(UserError, match=r'no run there \(config\.pbtxt is missing\)'):
    compared(finished_dir, tmp_path)
  with pytest.raises(UserError, match='holds index, but metrics are needed'):
    compared(finished_dir, finished_dir / 'index')
  truth = json.loads(benchmark.ground_truth_path.read_text(encoding='utf-8'))
  truth['queries'] = truth['queries'][1:]
  fewer = tmp_path / 'fewer.json'
  fewer.write_text(json.dumps(truth), encoding='utf-8')
  with pytest.raises(
    UserError, match=r'scored by ground truth \w{16} \(.*\), .* by \w{16} \(.*fewer\.json\)'
  ):
    paired_runs.compare(
      [
        paired_runs.open_run(finished_dir),
        paired_runs.open_run(finished_dir / 'rankings', ground_truth=fewer),
      ]
    )


def test_report_of_other_metrics_is_not_linked(finished_dir, tmp_path):
  copied = tmp_path / 'run'
  shutil.copytree(finished_dir / 'metrics', copied / 'metrics')
  assert paired_runs.open_run(copied / 'metrics').page is None
  config = (finished_dir / 'config.pbtxt').read_text(encoding='utf-8')
  (copied / 'config.pbtxt').write_text(config, encoding='utf-8')
  shutil.copytree(finished_dir / 'report', copied / 'report')
  assert paired_runs.open_run(copied / 'metrics').page == copied / 'report' / 'index.html'
  (copied / 'config.pbtxt').write_text(config + 'verification { }', encoding='utf-8')
  assert paired_runs.open_run(copied / 'metrics').page is None
