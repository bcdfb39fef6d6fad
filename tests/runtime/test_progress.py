"""Progress: the items pass through unchanged, whatever the total."""

import pytest

from delf_d2r.runtime import progress


@pytest.mark.parametrize('items', [[], [1], [1, 2, 3]])
def test_items_pass_through(items, capsys):
  assert list(progress.track(items, total=len(items), what='features', unit='images')) == items
  assert 'features' in capsys.readouterr().err


def test_earlier_work_is_counted(capsys):
  with progress.bar(total=4, what='features', unit='images', done=2) as bar:
    bar.update(2)
  assert '4/4' in capsys.readouterr().err


def test_items_are_taken_one_by_one():
  taken = []
  tracked = progress.track(map(taken.append, range(9)), total=9, what='x', unit='y')
  next(tracked)
  assert taken == [0]
  tracked.close()


@pytest.mark.parametrize('total', [0, 1, 5])
def test_callback_draws_one_bar(total, capsys):
  update = progress.callback('k-means')
  for done in range(total + 1):
    update(done, total)
  text = capsys.readouterr().err
  assert text.count('\n') == 1  # A second bar would begin a line of its own.
  assert f'{total}/{total}' in text or total == 0
