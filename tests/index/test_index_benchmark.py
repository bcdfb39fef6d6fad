"""The benchmark runs, and its data have the properties that it claims."""

import json

import numpy as np
import pytest

from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.compiled import HAVE_NUMBA

pytestmark = pytest.mark.slow


def test_benchmark_prints_its_table(capsys):
  pytest.importorskip('asmk', reason='the package asmk is not installed')
  if not HAVE_NUMBA:
    pytest.skip('the table compares the compiled path; numba is absent')
  from benchmarks import benchmark_index

  benchmark_index.main(
    benchmark_index.parse_flags(
      ['--images=300', '--queries=6', '--large_queries=2', '--asmk_build_images=20', '--batch=20']
    )
  )
  table = capsys.readouterr().out
  for row in ('query of 600 words, top 100', 'query of 3,000 words', 'build, ns a posting', 'opening'):
    assert row in table


def test_benchmark_of_a_million_goes_on_where_it_was(tmp_path, capsys):
  from benchmarks import benchmark_million

  def run(sizes):
    flags = [f'--work={tmp_path}', f'--sizes={sizes}', f'--picture={tmp_path / "growth.svg"}']
    benchmark_million.main(benchmark_million.parse_flags(flags))
    return json.loads((tmp_path / 'results.json').read_text())

  first = run('40')
  assert [step['images'] for step in first['build']] == [40]
  second = run('40,100')
  assert second['build'][0] == first['build'][0]
  assert second['measured']['40'] == first['measured']['40']
  assert second['measured']['100']['warm']['images'] == 100
  assert '| 100 |' in capsys.readouterr().out
  assert 'Index on the disk' in (tmp_path / 'growth.svg').read_text()


@pytest.mark.parametrize('kernel', [Kernel.ASMK_STAR, Kernel.ASMK])
def test_synthetic_descriptors(kernel):
  from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator

  options = {'num_words': 5000, 'dimensions': 100, 'kernel': kernel, 'words_per_image': 600}
  drawn = DescriptorGenerator(**options, seed=3).draw_many(50)
  again = DescriptorGenerator(**options, seed=3).draw_many(50)
  for one, two in zip(drawn, again, strict=True):
    assert one.values.tobytes() == two.values.tobytes()
    assert (np.diff(one.visual_words.astype(int)) > 0).all()
    assert one.visual_words.max() < 5000
    if kernel is Kernel.ASMK_STAR:
      assert not (one.values[:, -1] & 0x0F).any()
    else:
      np.testing.assert_allclose(np.linalg.norm(one.values, axis=1), 1, rtol=1e-5)
  assert 500 < np.mean([len(one) for one in drawn]) < 650
  # Zipf-like: the commonest tenth of the words holds far more than a tenth of the postings.
  sizes = np.sort(np.bincount(np.concatenate([one.visual_words for one in drawn]), minlength=5000))[::-1]
  assert 0.2 < sizes[:500].sum() / sizes.sum() < 0.6
