"""Real processes: a front and its shards, one of which dies and is replaced while the front goes on."""

import contextlib
import os
import subprocess
import sys
import time

import httpx
import pytest

from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ArtefactError, UserError
from delf_d2r.sharding.addresses import Addresses
from delf_d2r.sharding.sharded_index import ShardedIndex
from delf_d2r.stages import split_index

SHARDS = 3


class Server:
  """`d2r COMMAND` until it is stopped; `address` is what it prints."""

  def __init__(self, command: str, *flags: str):
    code = 'import sys; sys.argv[0] = "d2r"; from delf_d2r.command_line import main; main()'
    self._process = subprocess.Popen(
      [sys.executable, '-c', code, command, '--port=0', *flags],
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    )

  @property
  def address(self) -> str:
    line = self._process.stdout.readline()
    assert line.startswith('http://'), line
    return line.split()[0].rstrip('/')

  def kill(self) -> None:
    self._process.kill()
    self._process.wait()
    self._process.stdout.close()


@pytest.fixture(scope='module')
def parts(index_dir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('shards')
  return folder, split_index.run(Artefact.open(index_dir / 'index', 'index'), folder, shards=SHARDS)


@pytest.mark.slow
def test_a_front_answers_while_a_shard_is_replaced(index_dir, parts, query_path, tmp_path):
  _, (front, *shards) = parts
  expected = [
    (result.name, result.score) for result in SearchEngine.load(index_dir).search(query_path).results
  ]
  listed = tmp_path / 'shards.txt'
  with contextlib.ExitStack() as stack:

    def start(*command):
      server = Server(*command)
      stack.callback(server.kill)
      return server

    servers = [start('serve_shard', f'--index={shard.path}', '--warm') for shard in shards]
    addresses = [server.address for server in servers]
    listed.write_text('\n'.join(addresses))
    # A shard that is down refuses at once; one on a busy machine is given its time.
    patient = '--shard_seconds=60'
    address = start('serve', f'--index={front.path}', f'--shards={listed}', patient).address
    client = stack.enter_context(httpx.Client(base_url=address, timeout=30, trust_env=False))

    def search(**fields):
      with open(query_path, 'rb') as photo:
        answer = client.post('/api/search', files={'photo': photo}, data={'top_k': 10, **fields})
      assert answer.status_code == 200, answer.text
      return answer.json()

    def found(answer):
      return [(result['name'], result['score']) for result in answer['results']]

    answer = search()
    assert found(answer) == expected
    assert answer['missing_shards'] == []
    assert answer['note'] is None
    best = answer['results'][0]['id']
    match = client.get('/api/match', params={'query': answer['query'], 'image': best}).json()
    assert match['score'] == pytest.approx(expected[0][1], rel=1e-5)

    servers[1].kill()
    answer = search()
    assert answer['missing_shards'] == [1]
    assert 'Incomplete' in answer['note']
    own = Artefact.open(shards[1].path, 'shard').counts['images']
    assert own > 0
    assert len(answer['results']) == min(10, len(SearchEngine.load(index_dir)) - own)
    assert set(found(answer)) != set(expected)

    replacement = start('serve_shard', f'--index={shards[1].path}').address
    listed.write_text('\n'.join([addresses[0], replacement, addresses[2]]))
    deadline = time.monotonic() + 10
    while (answer := search())['missing_shards'] and time.monotonic() < deadline:
      time.sleep(0.1)
    assert answer['missing_shards'] == []
    assert found(answer) == expected
    verified = search(verify='true')
    assert verified['missing_shards'] == []
    assert verified['results'][0]['inliers'] > 10


def test_splitting_again_does_nothing_and_another_number_is_refused(index_dir, parts):
  folder, _ = parts
  index = Artefact.open(index_dir / 'index', 'index')
  before = {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.is_file()}
  split_index.run(index, folder, shards=SHARDS)
  assert before == {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.is_file()}
  with pytest.raises(UserError, match='--redo'):
    split_index.run(index, folder, shards=2)
  with pytest.raises(UserError, match='the index has 26 images, fewer than 1000 shards'):
    split_index.run(index, folder / 'new', shards=1000)


def test_a_front_alone_says_what_it_needs(parts):
  _, (front, *_) = parts
  with pytest.raises(ArtefactError, match='--shards'):
    SearchEngine.load(front.path)


def test_a_split_index_is_not_changed(parts, query_path):
  _, (front, *_) = parts
  index = ShardedIndex(front.path, Addresses('http://127.0.0.1:9'))
  engine = SearchEngine.load(front.path, index=index)
  with pytest.raises(UserError, match='it is split'):
    engine.remove([index.image_names[0]])
  index.close()
