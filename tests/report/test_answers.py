"""An answer as text and as JSON, with any names of photos."""

import json
import types

import numpy as np

from delf_d2r.engine import Answer, SearchResult
from delf_d2r.report import answers

NAMES = ('a b\u00e9.jpg', 'x\n   1      9.0000  fake.jpg', '\x1b[2J\u2028\\.jpg')


def answer():
  results = (SearchResult(rank, name, 0.5, np.zeros((0, 4)), -1) for rank, name in enumerate(NAMES, start=1))
  return Answer(tuple(results), types.SimpleNamespace(features=range(3)), {'search': 0.001})


def test_text_has_a_line_for_each_result():
  assert answers.to_text(answer(), 'q\r.jpg', None).splitlines() == [
    'q\\r.jpg: 3 features; search 1.0 ms',
    '   1      0.5000  a b\u00e9.jpg',
    '   2      0.5000  x\\n   1      9.0000  fake.jpg',
    '   3      0.5000  \\x1b[2J\\u2028\\.jpg',
  ]


def test_json_has_the_names_as_they_are():
  document = json.loads(answers.to_json(answer(), 'q\r.jpg', None))
  assert (document['query'], *(result['name'] for result in document['results'])) == ('q\r.jpg', *NAMES)
