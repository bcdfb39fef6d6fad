"""Comments cite docs/reference.md by its sections: all exist, and all citations look alike."""

import itertools
import pathlib
import re

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / 'docs' / 'reference.md'
FOLDERS = ('delf_d2r', 'tools', 'tests', 'protos', 'configs', 'docs')

_NUMBER = r'\d+(?:\.\d+)?'
# The one form: the page, then sections, all on one line; of a numbered list perhaps the point.
CITATION = re.compile(
  rf'docs/reference\.md (?P<sections>{_NUMBER}(?:(?:, | to | and ){_NUMBER})*)(?:, point (?P<point>\d+))?'
)
# Between words there may be the end of a line and the sign of a comment.
_GAP = r'[\s#/*"\',:;(\[`]*'
OTHER_FORMS = (
  re.compile(r'reference\.md'),
  re.compile(rf'\breferences?[.,:;]?\s{_GAP}(?:sections?|chapters?|points?|§)?{_GAP}\d', re.IGNORECASE),
  re.compile(rf'\bsections?{_GAP}{_NUMBER}{_GAP}(?:of|in){_GAP}(?:the{_GAP})?reference\b', re.IGNORECASE),
)
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')
_HEADING = re.compile(r'^#+ (\d+(?:\.\d+)?)\.? ', re.MULTILINE)
_FENCE = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)


def sections_of(page):
  """(number, text) of each numbered section, in the order of the page."""
  _, *parts = _HEADING.split(page)
  return list(zip(parts[::2], parts[1::2], strict=True))


def objections(text, sections):
  """Yields (line, what is wrong) of all citations of a text; sections: text by number."""
  cited = list(CITATION.finditer(text))
  for match in cited:
    line = text.count('\n', 0, match.start()) + 1
    numbers = re.findall(_NUMBER, match['sections'])
    yield from ((line, f'{match[0]}: no section {number}') for number in numbers if number not in sections)
    last = sections.get(numbers[-1], '')
    if match['point'] and not re.search(rf'^{match["point"]}\. ', last, re.MULTILINE):
      yield line, f'{match[0]}: no such point'
  fine = [match.span() for match in itertools.chain(cited, LINK.finditer(text))]
  for form in OTHER_FORMS:
    for match in form.finditer(text):
      if not any(start <= match.start() < end for start, end in fine):
        yield text.count('\n', 0, match.start()) + 1, f'{match[0]!r} is not of the form docs/reference.md 2.6'


def missing_files(page):
  """The relative links of a Markdown page that lead to no file."""
  text = _FENCE.sub('', page.read_text(encoding='utf-8'))
  for target in LINK.findall(text):
    file = target.partition('#')[0]
    if file and '://' not in file and not file.startswith('mailto:') and not (page.parent / file).exists():
      yield target


def texts():
  """Yields (path, text) of what may cite, but for generated modules and this one."""
  for folder in FOLDERS:
    for path in sorted((REPOSITORY / folder).rglob('*')):
      if path.is_file() and '__pycache__' not in path.parts and '_pb2' not in path.name:
        try:
          text = path.read_bytes().decode('utf-8')
        except UnicodeDecodeError:
          continue  # A picture, an archive.
        if path != pathlib.Path(__file__).resolve():
          yield path.relative_to(REPOSITORY), text


@pytest.fixture(scope='module')
def sections():
  return dict(sections_of(PAGE.read_text(encoding='utf-8')))


def test_every_citation_leads_to_a_section(sections):
  read = list(texts())
  wrong = [f'{path}:{line}: {what}' for path, text in read for line, what in objections(text, sections)]
  assert not wrong, '\n'.join(wrong)
  citing = {path.parts[0] for path, text in read if CITATION.search(text)}
  assert {'delf_d2r', 'tests', 'protos'} <= citing  # Else nothing was read.
  assert sum(len(CITATION.findall(text)) for _, text in read) > 40


def test_sections_are_numbered_in_order():
  numbers = [number for number, _ in sections_of(PAGE.read_text(encoding='utf-8'))]
  order = [tuple(int(part) for part in number.split('.')) for number in numbers]
  assert order == sorted(set(order))
  assert {number.partition('.')[0] for number in numbers} <= set(numbers)


@pytest.mark.parametrize(
  'text',
  [
    'docs/reference.md 2.6',
    '(docs/reference.md 2.3 to 2.7).',
    'docs/reference.md 1.1, 2.6 and 2.9',
    'docs/reference.md 2.11, point 12',
    'see [the page](reference.md#2-aggregation)',
    'from photo to reference, every fourth query; references[0]',
  ],
)
def test_what_is_fine(text, sections):
  assert list(objections(f'first\n{text}\n', sections)) == []


@pytest.mark.parametrize(
  'text, what',
  [
    ('docs/reference.md 2.99', 'no section 2.99'),
    ('docs/reference.md 1.1, 2.99', 'no section 2.99'),
    ('docs/reference.md 2.3 to 99', 'no section 99'),
    ('docs/reference.md 2.11, point 99', 'no such point'),
    ('docs/reference.md 2.10, point 1', 'no such point'),
    ('docs/reference.md', 'not of the form'),
    ('docs/reference.md, section 2', 'not of the form'),
    ('// docs/reference.md\n// 1.1', 'not of the form'),
    ('reference.md 3.4', 'not of the form'),
    ('../reference.md 3.4', 'not of the form'),
    ('reference 2.6', 'not of the form'),
    ('(Reference, section 2.6)', 'not of the form'),
    ('# as in the reference\n# 4.8', 'not of the form'),
    ('section 2.6 of the reference', 'not of the form'),
  ],
)
def test_what_is_wrong(text, what, sections):
  found = list(objections(f'first\n{text}\n', sections))
  assert found
  assert found[0][0] == 2
  assert what in found[0][1]


def test_links_between_pages():
  pages = [REPOSITORY / 'README.md', *sorted((REPOSITORY / 'docs').rglob('*.md'))]
  assert PAGE in pages
  assert [f'{page.name}: {target}' for page in pages for target in missing_files(page)] == []


def test_a_link_to_nothing(tmp_path):
  (tmp_path / 'there.md').touch()
  page = tmp_path / 'page.md'
  page.write_text(
    '[a](there.md) [b](there.md#part) [c](#part) [d](https://example.org/x)\n'
    '```\n[e](in_code.md)\n```\n![f](absent.jpg) [g](../absent.md#part)\n'
  )
  assert list(missing_files(page)) == ['absent.jpg', '../absent.md#part']
