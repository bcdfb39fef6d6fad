import numpy as np
import pytest

from delf_d2r.report.markup import Markup, fragment, tag, text


def test_text_escapes():
  assert text('<a href="x">&\'') == '&lt;a href=&quot;x&quot;&gt;&amp;&#x27;'


@pytest.mark.parametrize('character', ['\0', '\x1b', '\x7f', '\x85', '\udcff', '\ufffe'])
def test_text_replaces_what_html_cannot_carry(character):
  escaped = text(f'a{character}b')
  assert escaped == 'a\ufffdb'
  escaped.encode('utf-8')


def test_text_keeps_other_letters():
  assert text('Köln 大教堂\t🏰\n') == 'Köln 大教堂\t🏰\n'


def test_fragment_takes_markup_as_it_is_and_spreads_iterables():
  assert fragment(Markup('<b>'), ['<', (None, 3)], (c for c in 'xy'), np.int64(7)) == '<b>&lt;3xy7'


def test_fragment_keeps_zero_and_drops_none():
  assert fragment(0, None, '') == '0'


def test_tag_attributes():
  element = tag('p', class_='a', aria_label='"', viewBox='0', hidden=True, id=None, open=False, tabindex=0)
  assert element == '<p class="a" aria-label="&quot;" viewBox="0" hidden tabindex="0"></p>'


def test_tag_may_have_a_name_attribute():
  assert tag('meta', name='x') == '<meta name="x">'


def test_tag_closes_svg_shapes():
  assert tag('path', d='M0 0z') == '<path d="M0 0z"/>'


def test_void_element_takes_no_children():
  with pytest.raises(ValueError, match='<meta> takes no children, found 1'):
    tag('meta', 'x')
