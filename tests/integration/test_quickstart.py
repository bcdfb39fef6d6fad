"""The notebook docs/quickstart.ipynb runs from top to bottom."""

import asyncio
import pathlib

import pytest

pytestmark = pytest.mark.slow

nbformat = pytest.importorskip('nbformat', reason="nbclient is not installed: pip install 'delf_d2r[docs]'")
nbclient = pytest.importorskip('nbclient', reason="nbclient is not installed: pip install 'delf_d2r[docs]'")

NOTEBOOK = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'quickstart.ipynb'


@pytest.fixture(scope='module')
def stored():
  return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_without_outputs(stored):
  nbformat.validate(stored)
  for cell in stored.cells:
    assert not cell.get('outputs')
    assert not cell.get('execution_count')


def test_it_runs(stored, tmp_path):
  notebook = stored.copy()
  client = nbclient.NotebookClient(
    notebook, timeout=300, kernel_name='python3', resources={'metadata': {'path': str(tmp_path)}}
  )
  # Not its execute(), which leaves an event loop open and so causes a warning in a later test.
  asyncio.run(client.async_execute())
  outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
  printed = ''.join(output.text for output in outputs if output.output_type == 'stream')
  assert '42 photos to index, 12 queries' in printed
  assert 'inliers' in printed
  # The drawing of the matches.
  assert [output for output in outputs if 'image/png' in output.get('data', {})]
  assert (tmp_path / 'quickstart_output' / 'sift_rasmk_star' / 'report' / 'index.html').is_file()
