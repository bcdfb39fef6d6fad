"""Strategies of hypothesis that damage valid files."""

import json
import struct

from hypothesis import strategies as st

# Tokens that parsers often fail on: limits of integers, values that are no numbers, incomplete characters,
# paths that lead out of a folder, opening brackets.
TOKENS = (
  *(struct.pack('<q', value) for value in (0, 1, -1, 2**31 - 1, -(2**31), 2**62, -(2**63))),
  *(struct.pack('<i', value) for value in (0, -1, 2**31 - 1)),
  b'\xff' * 10,
  b'nan',
  b'-inf',
  b'1e999',
  b'-1',
  b'99999999999999999999',
  b'\xed\xa0\x80',
  b'\xef\xbb\xbf',
  b'\x00',
  b'"',
  b'\\',
  b'\n',
  b',',
  b'{' * 40,
  b'[' * 3000,
  b'null',
  b'../../../etc/passwd',
  b'/etc/passwd',
)


@st.composite
def damaged(draw, seeds: tuple[bytes, ...]):
  """Changes one of `seeds` up to four times: bits, bytes, cuts, copies, tokens, parts of another seed."""
  data = bytearray(draw(st.sampled_from(seeds)))
  for _ in range(draw(st.integers(0, 4))):
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    length = draw(st.integers(1, 64))
    change = draw(
      st.sampled_from(('flip', 'set', 'cut', 'delete', 'repeat', 'insert', 'overwrite', 'splice'))
    )
    if change == 'flip' and data:
      data[at] ^= 1 << draw(st.integers(0, 7))
    elif change == 'set' and data:
      data[at] = draw(st.integers(0, 255))
    elif change == 'cut':
      del data[at:]
    elif change == 'delete':
      del data[at : at + length]
    elif change == 'repeat':
      data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
    elif change in ('insert', 'overwrite'):
      token = draw(st.sampled_from(TOKENS))
      data[at : at + (len(token) if change == 'overwrite' else 0)] = token
    elif change == 'splice':
      other = draw(st.sampled_from(seeds))
      start = draw(st.integers(0, len(other)))
      data[at : at + length] = other[start : start + draw(st.integers(0, 4096))]
  return bytes(data)


@st.composite
def damaged_files(draw, seeds: tuple[dict[str, bytes], ...]):
  """Damages or removes a file of one of `seeds`, or replaces it by that of another seed."""
  files = dict(draw(st.sampled_from(seeds)))
  name = draw(st.sampled_from(sorted(files)))
  if len(files) > 1 and draw(st.integers(0, 15)) == 0:
    del files[name]
  else:
    alike = tuple(seed[name] for seed in seeds if name in seed)
    files[name] = draw(damaged(alike))
  return files


def json_values(keys: tuple[str, ...] = ('a',)):
  """Generates any JSON values; objects have some of `keys`."""
  scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
  return st.recursive(
    scalars,
    lambda inner: (
      st.lists(inner, max_size=4)
      | st.dictionaries(st.sampled_from(keys) | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=12,
  )


def json_bytes(value: object) -> bytes:
  """Encodes a document, which may contain NaN."""
  return json.dumps(value).encode()


def csv_texts(columns: tuple[str, ...], names: tuple[str, ...]):
  """Generates CSV files with about these columns, names of photos and numbers."""
  cell = (
    st.sampled_from(names)
    | st.floats(width=32).map(str)
    | st.integers(-2, 9).map(str)
    | st.sampled_from(('', 'nan', '"', 'a,b', '\u00e4', '../x.jpg', '\x00', '0.1 0.2 0.3 0.4'))
  )
  header = st.just(','.join(columns)) | st.lists(st.sampled_from(columns), max_size=7).map(','.join)
  row = st.lists(cell, min_size=max(0, len(columns) - 1), max_size=len(columns) + 1).map(','.join)
  lines = st.tuples(header, st.lists(row, max_size=6))
  return lines.map(lambda both: '\n'.join([both[0], *both[1]]).encode())
