"""Splits items into training and validation by a hash of their names, so that new items move no others."""

import hashlib


def in_validation(key: str, *, share: float, seed: int) -> bool:
  """Tells whether an item belongs to validation; the answer is the same in every run.

  Args:
    key: name of the item, or of its group if the items of a group must not be separated.
    share: share of all keys that belongs to validation, in [0, 1).
    seed: selects one of many splits.
  """
  digest = hashlib.sha256(f'{seed}/{key}'.encode('utf-8', 'surrogateescape')).digest()
  return int.from_bytes(digest[:8], 'big') < share * 2**64
