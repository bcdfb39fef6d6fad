"""CSV rows: whatever a text holds, it is read back equal."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delf_d2r.data import csv_rows

ODD = [
  'a\rb.jpg',
  '\r',
  'a\r\nb.jpg',
  'a\nb',
  '=1+1.jpg',
  '+a',
  '-a',
  '@SUM(A1)',
  '\ta',
  'a"b',
  '"',
  'a,b',
  "'a'",
  ' a ',
  'a\u2028b\x85c\x0bd\x0ce\x1cf',
  '\ufeffa',
  'gr\u00fc\u00dfe',
  '#a',
]


@pytest.mark.parametrize('line_end', ['\n', '\r\n'])
@pytest.mark.parametrize('name', ODD)
def test_odd_names_come_back(tmp_path, name, line_end):
  path = tmp_path / 'rows.csv'
  path.write_bytes(
    csv_rows.format_rows([('name', 'number'), (name, 0.5), (name, -1)], line_end=line_end).encode()
  )
  rows = [row for _, row in csv_rows.read_rows(path, ('name', 'number'))]
  assert rows == [{'name': name, 'number': '0.5'}, {'name': name, 'number': '-1'}]


@pytest.mark.parametrize('name', ['=1+1.jpg', '+a', '-a', '@a', 'a\rb'])
def test_beginnings_of_formulas_and_carriage_returns_are_quoted(name):
  assert csv_rows.format_rows([(name, -0.5, None)]) == f'"{name}",-0.5,\n'


def texts(excluded):
  letters = st.characters(codec='utf-8', exclude_characters=excluded)
  return st.lists(st.text(letters), min_size=2, max_size=4)


@given(texts('\0'))
def test_any_text_comes_back(row):
  (found,) = csv.reader(io.StringIO(csv_rows.format_rows([row]), newline=''))
  assert found == row


@given(texts('\0\r=+-@\t'))
def test_other_rows_are_written_as_by_the_csv_module(row):
  expected = io.StringIO()
  csv.writer(expected, lineterminator='\n').writerow([*row, 1, 0.25, None])
  assert csv_rows.format_rows([[*row, 1, 0.25, None]]) == expected.getvalue()
