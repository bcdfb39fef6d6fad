"""The items that belong to missing shards; the ledger itself is tested by making artefacts with it."""

from delf_d2r.data.artefacts import shard_ledger
from delf_d2r.data.artefacts.shard_ledger import ShardRange


def test_items_of_missing_shards():
  shards = [ShardRange(number, '', range(3 * number, min(3 * number + 3, 8))) for number in range(3)]
  assert list(shard_ledger.items_of(shards, iter(range(8)))) == list(range(8))
  assert list(shard_ledger.items_of([shards[0], shards[2]], range(8))) == [0, 1, 2, 6, 7]
  assert list(shard_ledger.items_of(shards[1:2], range(100))) == [3, 4, 5]
  assert list(shard_ledger.items_of([], range(8))) == []
