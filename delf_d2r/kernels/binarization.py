"""ASMK*: the signs of the residuals, packed to bytes (the binary kernel of Tolias et al., ICCV 2013)."""

import numpy as np


def binarize(values: np.ndarray) -> np.ndarray:
  """Bit 1 where a value is above zero (zero gives 0): float [W, D] -> uint8 [W, ceil(D / 8)].

  The first dimension is the most significant bit of byte 0; the last byte is padded with zeros
  (docs/reference.md 2.7).
  """
  return np.packbits(values > 0, axis=1)


def unpack_signs(codes: np.ndarray, dimensions: int) -> np.ndarray:
  """The signs +1 and -1 behind packed bits: uint8 [W, ceil(D / 8)] -> float32 [W, D]."""
  bits = np.unpackbits(codes, axis=1, count=dimensions)
  return 2 * bits.astype(np.float32) - 1
