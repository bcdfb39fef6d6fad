"""Shards on loopback give the ranking of the whole index, and say what is missing in it."""

import contextlib
import gzip
import itertools
import json
import pathlib
import socket
import threading
import time
import types
from concurrent import futures

import numpy as np
import pytest
from oracles.index_inputs import random_descriptor, random_descriptors, random_masked_descriptors
from support.servers import serving_all

from delf_d2r.data import files
from delf_d2r.data.artefacts import index_files
from delf_d2r.errors import ArtefactError, UnavailableError, UserError
from delf_d2r.index import InvertedIndex
from delf_d2r.index.images import NameTable
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.serving.options import Options
from delf_d2r.serving.shard_app import create_shard_app
from delf_d2r.sharding import layout
from delf_d2r.sharding.addresses import Addresses
from delf_d2r.sharding.layout import Split
from delf_d2r.sharding.messages import MAX_REQUEST_BYTES, ShardQuery, ShardResponse
from delf_d2r.sharding.shard import Shard
from delf_d2r.sharding.sharded_index import ShardedIndex

IMAGES = 40
BOUNDS = (0, 13, 14, 40)
NOBODY = 'http://127.0.0.1:9'  # no server listens there
DRAWN = {'num_words': 30, 'dimensions': 20}


def split(index: InvertedIndex, folder: pathlib.Path, bounds=BOUNDS, name='a split') -> list[Shard]:
  """The parts of an index below a folder."""
  whole = Split(name, bounds, index.num_entries)
  front = folder / layout.FRONT
  front.mkdir()
  layout.save_names(index.image_names, front)
  layout.save_split(whole, front)
  shards = []
  for number in range(len(whole)):
    directory = folder / layout.shard_directory(number, len(whole))
    directory.mkdir()
    index.subset(whole.images(number), directory=directory / 'inverted')
    files.save_array(directory / layout.LIST_SIZES, index.list_sizes())
    layout.save_split(whole, directory, shard=number)
    shards.append(Shard(directory))
  return shards


@contextlib.contextmanager
def served(shards):
  options = Options(max_upload_bytes=MAX_REQUEST_BYTES)
  with serving_all([create_shard_app(shard, options) for shard in shards]) as addresses:
    yield addresses


@contextlib.contextmanager
def front(folder, addresses, **options):
  index = ShardedIndex(folder / layout.FRONT, Addresses(','.join(addresses)), **options)
  try:
    yield index
  finally:
    index.close()


def make_index(kernel, *, seed=0, is_regional=False, masks=False, directory=None):
  rng = np.random.default_rng(seed)
  counts = rng.integers(0, 4, IMAGES) if is_regional else np.ones(IMAGES, int)
  draw = random_masked_descriptors if masks else random_descriptors
  return InvertedIndex.build(
    # Coarse: many equal scores, so that ties are decided by image id across shards.
    draw(seed, int(counts.sum()), **DRAWN, kernel=kernel, coarse=True),
    [f'photo {m} ä\udcff.jpg' for m in range(IMAGES)],
    **DRAWN,
    kernel=kernel,
    entry_images=np.repeat(np.arange(IMAGES), counts) if is_regional else None,
    region_masks=masks,
    directory=directory,
  )


def assert_equal(found, expected):
  for field in ('image_ids', 'scores', 'best_regions'):
    np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=field)
  assert found.query == expected.query


@pytest.mark.slow
@pytest.mark.parametrize(
  ('kernel', 'options'),
  [
    *((kernel, {'is_regional': is_regional}) for kernel in Kernel for is_regional in (False, True)),
    (Kernel.ASMK, {'masks': True}),
    (Kernel.ASMK_STAR, {'masks': True}),
  ],
)
def test_the_merged_ranking_is_that_of_the_whole_index_bit_by_bit(tmp_path, kernel, options):
  index = make_index(kernel, **options)
  queries = random_descriptors(1, 6, **DRAWN, kernel=kernel, coarse=True)
  queries.append(random_descriptor(np.random.default_rng(2), **DRAWN, kernel=kernel, present=0))
  scorings = ({}, {'use_idf': True}, {'alpha': 1.5, 'tau': 0.25, 'normalize': False}, {'compat': True})
  with served(split(index, tmp_path)) as addresses, front(tmp_path, reversed(addresses)) as sharded:
    assert list(sharded.image_names) == list(index.image_names)
    # Every query with every scoring, and every scoring with every number of results, since 4 and
    # 5 have no common divisor.
    asked = zip(itertools.product(queries, scorings), itertools.cycle((1, 7, 20, IMAGES, 500)), strict=False)
    for (query, scoring), top_k in asked:
      expected = index.search(query, top_k=top_k, name='q', **scoring)
      found = sharded.search(query, top_k=top_k, name='q', **scoring)
      assert_equal(found, expected)
      assert found.missing_shards == ()
    best = index.search(queries[0], top_k=1, use_idf=True)
    region = {'region': int(best.best_regions[0])}
    asked = (queries[0], int(best.image_ids[0]))
    mine, theirs = (which.word_scores(*asked, use_idf=True, **region) for which in (index, sharded))
    for own, other in zip(mine, theirs, strict=True):
      np.testing.assert_array_equal(own, other)


def test_ties_across_shards_matter_here():
  index = make_index(Kernel.ASMK_STAR)
  ranking = index.search(random_descriptors(1, 1, **DRAWN, kernel=Kernel.ASMK_STAR, coarse=True)[0], top_k=0)
  shards = np.searchsorted(BOUNDS, ranking.image_ids, side='right')
  tied = ranking.scores[1:] == ranking.scores[:-1]
  assert (tied & (shards[1:] != shards[:-1])).any()


@pytest.fixture
def parts(tmp_path):
  index = make_index(Kernel.ASMK_STAR)
  return index, split(index, tmp_path), random_descriptors(1, 1, **DRAWN, kernel=Kernel.ASMK_STAR)[0]


def test_a_shard_that_is_down_is_reported_and_the_others_rank_on(tmp_path, parts):
  index, shards, query = parts
  with served([shards[0], shards[2]]) as addresses, front(tmp_path, [*addresses, NOBODY]) as sharded:
    ranking = sharded.search(query, top_k=IMAGES)
    assert ranking.missing_shards == (1,)
    expected = index.search(query, top_k=IMAGES)
    kept = expected.image_ids != 13
    np.testing.assert_array_equal(ranking.image_ids, expected.image_ids[kept])
    np.testing.assert_array_equal(ranking.scores, expected.scores[kept])
    with pytest.raises(UnavailableError, match='shard 1, which has image 13'):
      sharded.word_scores(query, 13)


def test_without_any_shard_all_are_missing(tmp_path, parts):
  with front(tmp_path, [NOBODY]) as sharded:
    ranking = sharded.search(parts[2], top_k=5)
  assert len(ranking) == 0
  assert ranking.missing_shards == (0, 1, 2)


@pytest.mark.slow
def test_a_shard_that_hangs_is_waited_for_no_longer_than_said(tmp_path, parts):
  _, shards, query = parts
  with served(shards[:2]) as addresses, socket.create_server(('127.0.0.1', 0)) as silent:
    port = silent.getsockname()[1]
    with front(tmp_path, [*addresses, f'http://127.0.0.1:{port}'], timeout=3) as sharded:
      started = time.monotonic()
      assert sharded.search(query).missing_shards == (2,)
      waited = time.monotonic() - started
      # It rests now: the next search does not wait for it at all.
      started = time.monotonic()
      assert sharded.search(query).missing_shards == (2,)
      assert time.monotonic() - started < 2.5
  assert 2.9 < waited < 10


def test_a_replica_that_hangs_is_not_waited_for(tmp_path, parts):
  index, shards, query = parts
  with served(shards) as addresses, socket.create_server(('127.0.0.1', 0)) as silent:
    hanging = f'http://127.0.0.1:{silent.getsockname()[1]}'
    with front(tmp_path, [hanging, *addresses], timeout=20) as sharded:
      started = time.monotonic()
      assert_equal(sharded.search(query, top_k=9, name=''), index.search(query, top_k=9))
      assert time.monotonic() - started < 10


@pytest.mark.slow
def test_replicas_count_once_and_a_shard_of_another_split_not_at_all(tmp_path, parts):
  index, shards, query = parts
  (tmp_path / 'other').mkdir()
  others = split(make_index(Kernel.ASMK_STAR, seed=5), tmp_path / 'other', name='another split')
  with served([*shards, shards[0]]) as addresses, front(tmp_path, addresses) as sharded:
    assert_equal(sharded.search(query, top_k=9), index.search(query, top_k=9))
  with served([others[0], *shards[1:]]) as addresses, front(tmp_path, addresses) as sharded:
    assert sharded.search(query, top_k=9).missing_shards == (0,)


def test_a_query_that_does_not_fit_is_refused(tmp_path, parts):
  _, shards, query = parts
  wrong = random_descriptor(np.random.default_rng(0), num_words=30, dimensions=24, kernel=Kernel.ASMK_STAR)
  with served(shards) as addresses, front(tmp_path, addresses) as sharded:
    with pytest.raises(UserError, match='expected a descriptor of 20 dimensions, found 24'):
      sharded.search(wrong)
    with pytest.raises(ValueError, match='top_k: expected 1 to 10000 with a split index, found 0'):
      sharded.search(query, top_k=0)


def question(**changes):
  descriptor = random_descriptor(np.random.default_rng(0), **DRAWN, kernel=Kernel.ASMK, present=3)
  return ShardQuery(**({'descriptor': descriptor, 'top_k': 5, 'scoring': {}} | changes))


def test_a_question_arrives_as_it_was_asked():
  asked = question(scoring={'alpha': 2.5, 'use_idf': True}, image_id=7, region=1)
  found = ShardQuery.decode(asked.encode())
  np.testing.assert_array_equal(found.descriptor.visual_words, asked.descriptor.visual_words)
  np.testing.assert_array_equal(found.descriptor.values, asked.descriptor.values)
  assert found.scoring == {'alpha': 2.5, 'tau': 0.0, 'normalize': True, 'use_idf': True, 'compat': False}
  assert (found.top_k, found.image_id, found.region) == (5, 7, 1)


@pytest.mark.parametrize(
  'body, message',
  [
    (b'', 'no field name'),
    (b'nonsense', 'Example'),
    (question(top_k=10_001).encode(), 'top_k: expected 0 to 10000, found 10001'),
    (question(scoring={'alpha': float('nan')}).encode(), 'finite'),
    (question().encode()[:-7], 'Example'),
  ],
)
def test_a_damaged_question_is_refused(body, message):
  with pytest.raises(ArtefactError, match=message):
    ShardQuery.decode(body)


@pytest.mark.parametrize('body', [b'', b'[]', b'{"split": "s"}', b'[' * 100_000])
def test_a_damaged_answer_is_refused(body):
  with pytest.raises(ValueError, match='not a response of a shard'):
    ShardResponse.decode(body)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'names': 7}, 'not a response'),
    ({'image_ids': [1, 'x']}, 'not a response'),
    ({'image_ids': [1 << 70, 2]}, 'not a response'),
    ({'scores': [float('nan'), 1.0]}, 'contradicts'),
    ({'scores': [1.0]}, 'contradicts'),
    ({'words': [3]}, 'contradicts'),
    ({'shard': '1'}, 'shard'),
  ],
)
def test_an_answer_that_contradicts_itself_is_refused(change, message):
  sent = json.loads(ShardResponse('s', 1, np.arange(2), ['a', 'b'], np.ones(2), np.zeros(2)).encode())
  with pytest.raises(ValueError, match=message):
    ShardResponse.decode(json.dumps(sent | change).encode())


def test_an_answer_keeps_every_bit_of_the_scores():
  scores = np.sort(np.random.default_rng(0).standard_normal(100).astype(np.float32))[::-1]
  ids = np.arange(100)
  sent = ShardResponse('s', 1, ids, ['n\udcff'] * 100, scores, ids.astype(np.int32))
  found = ShardResponse.decode(sent.encode())
  np.testing.assert_array_equal(found.scores, scores)
  assert found.names == sent.names


def test_addresses_of_a_file_are_read_anew_when_it_changes(tmp_path):
  path = tmp_path / 'shards.txt'
  path.write_text('http://127.0.0.1:1\n\nhttp://127.0.0.1:2/\n')
  addresses = Addresses(str(path))
  assert addresses() == ('http://127.0.0.1:1', 'http://127.0.0.1:2')
  path.write_text('http://127.0.0.1:3\n')
  assert addresses() == ('http://127.0.0.1:3',)
  path.unlink()
  assert addresses() == ('http://127.0.0.1:3',)


@pytest.mark.parametrize('given', ['ftp://a', 'http://', 'http://a/b', 'nowhere.txt', 'http://a,b'])
def test_what_is_no_address_is_refused(given):
  with pytest.raises(UserError):
    Addresses(given)


def test_a_part_has_the_bytes_of_a_fresh_build(tmp_path):
  index = make_index(Kernel.ASMK_STAR)
  drawn = random_descriptors(0, IMAGES, **DRAWN, kernel=Kernel.ASMK_STAR, coarse=True)
  index.subset(range(5, 21), directory=tmp_path / 'part')
  InvertedIndex.build(
    drawn[5:21], index.image_names[5:21], **DRAWN, kernel=Kernel.ASMK_STAR, directory=tmp_path / 'built'
  )
  part, built = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ('part', 'built'))
  assert part == built
  with pytest.raises(ValueError, match='images: expected consecutive ones of 0 to 40, found'):
    index.subset(range(5, 41))


def test_what_is_no_split_is_refused(tmp_path):
  layout.save_split(Split('s', (0, 2), 2), tmp_path)
  with pytest.raises(ArtefactError, match='the front of a split index, not a shard'):
    Shard(tmp_path)
  layout.save_names(NameTable.from_names(['a']), tmp_path)
  with pytest.raises(ArtefactError, match='expected 2 names, found 1'):
    ShardedIndex(tmp_path, lambda: ())
  (tmp_path / layout.SPLIT).write_text('{"id": "s", "bounds": [1, 0], "entries": 2, "shard": null}')
  with pytest.raises(ArtefactError, match='damaged'):
    layout.load_split(tmp_path)


def lie(**changes):
  """Returns a change of the response of a shard."""
  return lambda sent: (
    sent | {key: change(sent[key]) if callable(change) else change for key, change in changes.items()}
  )


EACH = ('image_ids', 'names', 'scores', 'regions')
LIES = {
  'an image twice': lie(image_ids=lambda ids: [ids[0]] * len(ids)),
  'an image of another shard': lie(image_ids=lambda ids: [0, *ids[1:]]),
  'ids that are rounded': lie(image_ids=lambda ids: [m + 0.9 for m in ids]),
  'ids that are true': lie(image_ids=lambda ids: [True] * len(ids)),
  'ids that are texts': lie(image_ids=lambda ids: [str(m) for m in ids]),
  'ids of two axes': lie(image_ids=lambda ids: [[m] for m in ids]),
  'more images': lie(**dict.fromkeys(EACH, lambda values: values * 500)),
  'fewer images': lie(**dict.fromkeys(EACH, lambda values: values[:1])),
  'no images': lie(**{key: [] for key in EACH}),
  'another order': lie(scores=lambda scores: [*range(len(scores))]),
  'scores that are no numbers': lie(scores=lambda scores: [float('nan')] * len(scores)),
  'infinite scores': lie(scores=lambda scores: [1e300, *scores[1:]]),
  'regions that are not there': lie(regions=lambda regions: [1_000_000, *regions[1:]]),
  'negative regions': lie(regions=lambda regions: [-7, *regions[1:]]),
  'other names': lie(names=lambda names: ['<script>'] * len(names)),
  'names that are numbers': lie(names=lambda names: [*range(len(names))]),
  'one text for the names': lie(names=lambda names: 'x' * len(names)),
  'words that were not asked for': lie(words=[1], terms=[1.0]),
}
LIES_ABOUT_TERMS = {
  'terms that are no numbers': lie(terms=lambda terms: [float('nan')] * len(terms)),
  'words beyond the codebook': lie(words=[4_000_000_000], terms=[1.0]),
  'other words than those of the query': lie(words=[29], terms=[1.0]),
  'a word twice': lie(words=lambda words: words * 2, terms=lambda terms: terms * 2),
  'two axes': lie(words=lambda words: [words], terms=lambda terms: [terms]),
  'a ranking': lie(image_ids=[14], names=['photo 14 ä\udcff.jpg'], scores=[1.0], regions=[-1]),
}


@contextlib.contextmanager
def lying(shards, change):
  """Serves shards of which the last one changes its responses."""

  class Liar(Shard):
    def answer(self, query):
      honest = super().answer(query).encode()
      return types.SimpleNamespace(encode=lambda: json.dumps(change(json.loads(honest))).encode())

  with served(shards) as addresses:
    shards[-1].__class__ = Liar
    yield addresses


@pytest.mark.parametrize('change', LIES.values(), ids=LIES)
def test_a_shard_that_lies_about_its_images_is_missing(tmp_path, parts, change):
  index, shards, query = parts
  index_files.save_boxes([np.zeros((1 + m % 3, 4), np.float32) for m in range(IMAGES)], tmp_path / 'front')
  with lying(shards, change) as addresses, front(tmp_path, addresses) as sharded:
    ranking = sharded.search(query, top_k=9)
    assert ranking.missing_shards == (2,)
    kept = index.search(query, top_k=IMAGES)
    np.testing.assert_array_equal(ranking.image_ids, kept.image_ids[kept.image_ids < 14][:9])


@pytest.mark.parametrize('change', LIES_ABOUT_TERMS.values(), ids=LIES_ABOUT_TERMS)
def test_a_shard_that_lies_about_terms_is_missing(tmp_path, parts, change):
  index, shards, _ = parts
  query = random_descriptor(
    np.random.default_rng(3), **{**DRAWN, 'num_words': 20}, kernel=Kernel.ASMK_STAR, present=20
  )
  image = next(m for m in range(14, IMAGES) if len(index.word_scores(query, m)[0]))
  with (
    lying(shards, change) as addresses,
    front(tmp_path, addresses) as sharded,
    pytest.raises(UnavailableError, match='shard 2'),
  ):
    sharded.word_scores(query, image)


def trickle(connection, header: bytes) -> None:
  with contextlib.suppress(OSError), connection:
    connection.recv(1 << 16)
    connection.sendall(header)
    while True:
      connection.sendall(b'X: a\r\n' if b'\r\n\r\n' not in header else b' ')
      time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize('header', [b'', b'HTTP/1.1 200 OK\r\n', b'HTTP/1.1 200 OK\r\nA: 1\r\n\r\n'])
def test_a_shard_that_trickles_does_not_take_the_others_down(tmp_path, parts, header, monkeypatch):
  monkeypatch.setattr('delf_d2r.sharding.client._BACK_OFF_SECONDS', 0.0)
  monkeypatch.setattr('delf_d2r.sharding.client._MOST_REQUESTS', 4)
  _, shards, query = parts
  with contextlib.ExitStack() as stack:
    listener = stack.enter_context(socket.create_server(('127.0.0.1', 0)))

    def accept():
      with contextlib.suppress(OSError):
        while True:
          threading.Thread(target=trickle, args=(listener.accept()[0], header), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    addresses = stack.enter_context(served(shards[:2]))
    slow = f'http://127.0.0.1:{listener.getsockname()[1]}'
    sharded = stack.enter_context(front(tmp_path, [*addresses, slow], timeout=1))
    pool = stack.enter_context(futures.ThreadPoolExecutor(8))
    started = time.monotonic()
    rankings = list(pool.map(lambda _: sharded.search(query), range(24)))
    assert time.monotonic() - started < 12
    assert {ranking.missing_shards for ranking in rankings} == {(2,)}
    assert sum(thread.name == 'shards' for thread in threading.enumerate()) == 1


def test_a_compressed_response_is_refused(tmp_path, parts):
  _, shards, query = parts
  bomb = gzip.compress(b' ' * 50_000_000)

  def answer(listener):
    with contextlib.suppress(OSError):
      while True:
        connection, _ = listener.accept()
        with connection:
          connection.recv(1 << 16)
          header = f'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n'
          connection.sendall(header.encode() + bomb)

  with served(shards[:2]) as addresses, socket.create_server(('127.0.0.1', 0)) as listener:
    threading.Thread(target=answer, args=(listener,), daemon=True).start()
    slow = f'http://127.0.0.1:{listener.getsockname()[1]}'
    with front(tmp_path, [*addresses, slow]) as sharded:
      assert sharded.search(query).missing_shards == (2,)
