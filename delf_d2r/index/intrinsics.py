"""Two machine instructions that numba has no function for. Import only where numba is there."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def popcount(typing_context, value):
  """Number of bits that are 1: uint64 -> uint64."""
  del typing_context, value

  def generate(context, builder, signature, arguments):
    del context, signature
    return builder.ctpop(arguments[0])

  return types.uint64(types.uint64), generate


@intrinsic
def prefetch(typing_context, array, index):
  """Asks for the cache line of `array[index]`, array [n]; any index is harmless, none is read."""
  del typing_context

  def generate(context, builder, signature, arguments):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    byte_pointer = ir.IntType(8).as_pointer()
    int32 = ir.IntType(32)
    function = builder.module.declare_intrinsic(
      'llvm.prefetch', (byte_pointer,), ir.FunctionType(ir.VoidType(), [byte_pointer, int32, int32, int32])
    )
    address = builder.bitcast(builder.gep(data, [arguments[1]]), byte_pointer)
    read, keep_in_all_caches, is_data = (ir.Constant(int32, flag) for flag in (0, 3, 1))
    builder.call(function, [address, read, keep_in_all_caches, is_data])
    return context.get_dummy_value()

  return types.void(array, index), generate
