"""The split by hash: it has the requested share and is reproducible."""

import pytest

from delf_d2r.data.training import split

KEYS = [f'photo_{number}.jpg' for number in range(4000)]


def chosen(**options):
  return {key for key in KEYS if split.in_validation(key, **options)}


@pytest.mark.parametrize('share', [0.1, 0.5])
def test_share(share):
  assert len(chosen(share=share, seed=3)) == pytest.approx(share * len(KEYS), rel=0.12)


def test_nothing_validates_at_share_zero():
  assert not chosen(share=0, seed=3)


def test_a_larger_share_keeps_what_was_chosen_and_a_seed_decides():
  assert chosen(share=0.1, seed=0) < chosen(share=0.2, seed=0)
  assert chosen(share=0.1, seed=0) != chosen(share=0.1, seed=1)


def test_known_answers():
  # SHA-256 of '0/a', '0/b', ...: another answer would mix what was trained on with what validates.
  assert [split.in_validation(key, share=0.5, seed=0) for key in 'abcdefgh'] == ANSWERS


ANSWERS = [False, True, True, False, True, True, True, False]
