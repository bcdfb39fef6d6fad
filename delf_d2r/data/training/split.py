"""Training or validation: decided for each item by a hash of its name, so that more items change none."""

import hashlib


def in_validation(key: str, *, share: float, seed: int) -> bool:
  """Whether `key` belongs to the `share` of all keys that validate; the same in every run.

  Args:
    key: the item's name, or that of the group that must stay together.
    share: in [0, 1).
    seed: another seed is another split.
  """
  digest = hashlib.sha256(f'{seed}/{key}'.encode('utf-8', 'surrogateescape')).digest()
  return int.from_bytes(digest[:8], 'big') < share * 2**64
