"""Curves of a training: table, picture and what the model card shows of them."""

import json
import xml.etree.ElementTree as ET

from delf_d2r.stages.shared import training_curves

LINES = [
  {'step': 0, 'group': 'validation', 'map': 0.25},
  {'step': 1, 'group': 'training', 'loss': 2.0, 'rate': None},
  {'step': 2, 'group': 'training', 'loss': 1.5, 'rate': 0.1},
  {'step': 2, 'group': 'validation', 'map': 0.5},
]


def write(folder, lines=LINES):
  (folder / 'history.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return folder / 'history.jsonl'


def test_a_row_for_each_step_and_an_empty_cell_where_nothing_was_noted(tmp_path):
  training_curves.write(write(tmp_path), tmp_path)
  assert (tmp_path / 'curves.csv').read_text() == (
    'step,validation map,training loss,training rate\n0,0.25,,\n1,,2.0,\n2,0.5,1.5,0.1\n'
  )
  drawn = ET.parse(tmp_path / 'curves.svg').getroot()
  space = '{http://www.w3.org/2000/svg}'
  assert [group[0].text for group in drawn.findall(f'{space}g')] == [
    'validation map',
    'training loss',
    'training rate',
  ]
  assert len(drawn.findall(f'{space}g/{space}polyline')) == 3


def test_no_history_makes_an_empty_table_and_picture(tmp_path):
  training_curves.write(tmp_path / 'none.jsonl', tmp_path)
  assert (tmp_path / 'curves.csv').read_text() == 'step\n'
  ET.parse(tmp_path / 'curves.svg')
  assert training_curves.summary(tmp_path / 'none.jsonl') == {}


def test_the_summary_shows_the_steps_of_validations(tmp_path):
  assert training_curves.summary(write(tmp_path)) == {
    'step 0': 'validation map 0.25',
    'step 2': 'validation map 0.5, training loss 1.5, training rate 0.1',
  }
  many = [{'step': step, 'group': 'training', 'loss': 1.0} for step in range(100)]
  found = training_curves.summary(write(tmp_path, many), points=5)
  assert list(found) == ['step 0', 'step 24', 'step 49', 'step 74', 'step 99']
