"""Squared distances of single pairs of descriptors: compiled, and in NumPy with the same bytes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from delf_d2r.kernels.compiled import intrinsic

# Squares are added in so many lanes, in the same order everywhere.
LANES = 16

Floats = npt.NDArray[np.float32]


def whole_lanes(descriptors: Floats) -> Floats:
  """Returns descriptors [N, D] in C order with zeros behind them up to whole lanes, read-only.

  They are not copied if they are so already. Numba compiles for each kind of array anew, of which there is
  only one then.
  """
  missing = -descriptors.shape[1] % LANES
  padded = np.pad(descriptors, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(descriptors)
  found = padded.view()
  found.flags.writeable = False
  return found


@intrinsic
def squared_distance(typing_context: Any, one: Any, i: Any, other: Any, j: Any) -> Any:
  """Returns the squared distance of `one[i]` and `other[j]`, float32 [n, D] in C order, D a multiple of 16.

  Squares are added in 16 lanes, whose halves are then added to each other. Numba's own loop does not make
  vectors of them without the right to change the order, which NumPy could not follow.
  """
  from llvmlite import ir
  from numba import types
  from numba.core import cgutils

  del typing_context

  def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    lanes, index = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)
    arrays = [
      context.make_array(signature.args[which])(context, builder, arguments[which]) for which in (0, 2)
    ]
    dimensions = builder.extract_value(arrays[0].shape, 1)
    starts = [
      builder.gep(array.data, [builder.mul(row, dimensions)])
      for array, row in zip(arrays, (arguments[1], arguments[3]), strict=True)
    ]
    with builder.goto_entry_block():
      total = builder.alloca(lanes)
    builder.store(ir.Constant(lanes, [0.0] * LANES), total)
    zero, step = ir.Constant(index, 0), ir.Constant(index, LANES)
    with cgutils.for_range_slice(builder, zero, dimensions, step) as (d, _):
      values = [
        builder.load(builder.bitcast(builder.gep(start, [d]), lanes.as_pointer()), align=4)
        for start in starts
      ]
      apart = builder.fsub(*values)
      builder.store(builder.fadd(builder.load(total), builder.fmul(apart, apart)), total)
    folded, width = builder.load(total), LANES
    while width > 1:
      width //= 2
      int32 = ir.IntType(32)
      halves = [
        builder.shuffle_vector(
          folded,
          folded,
          ir.Constant(ir.VectorType(int32, width), [ir.Constant(int32, first + w) for w in range(width)]),
        )
        for first in (0, width)
      ]
      folded = builder.fadd(*halves)
    return builder.extract_element(folded, ir.Constant(ir.IntType(32), 0))

  return types.float32(one, types.int64, other, types.int64), generate


def squared_distances(one: Floats, other: Floats) -> Floats:
  """Returns float32 [P] of float32 [P, D], added in the order of `squared_distance`."""
  lanes = np.zeros((len(one), LANES), np.float32)
  for start in range(0, one.shape[1], LANES):
    apart = one[:, start : start + LANES] - other[:, start : start + LANES]
    lanes += apart * apart
  while lanes.shape[1] > 1:
    half = lanes.shape[1] // 2
    lanes = lanes[:, :half] + lanes[:, half:]
  return lanes[:, 0]
