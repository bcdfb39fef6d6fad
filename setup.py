"""Generates the protocol buffers' Python code before packing; all else is in pyproject.toml.

The top level of the repository is fixed (`delf_d2r/ protos/ configs/ tools/`); inside the installed
package the binaries live at `delf_d2r.tools` and the configs at `delf_d2r/configs`.
"""

import pathlib

import setuptools
from setuptools.command import build_py

ROOT = pathlib.Path(__file__).parent.resolve()


class BuildPyWithProtos(build_py.build_py):
  """Runs the protocol compiler on `protos/` before the Python files are collected.

  The generated files go to `delf_d2r/protos/` of the source tree, so editable installations and wheels
  are served alike.
  """

  def run(self):
    generate_protos()
    super().run()


def generate_protos():
  """Writes `delf_d2r/protos/*_pb2.py` and their types, `*_pb2.pyi`.

  Raises:
    RuntimeError: the protocol compiler refused a file.
  """
  import grpc_tools
  from grpc_tools import protoc

  sources = sorted((ROOT / 'protos').glob('*.proto'))
  arguments = [
    'protoc',
    f'-Idelf_d2r/protos={ROOT / "protos"}',
    f'-I{pathlib.Path(grpc_tools.__file__).parent / "_proto"}',
    f'--python_out={ROOT}',
    f'--pyi_out={ROOT}',
    *(f'delf_d2r/protos/{source.name}' for source in sources),
  ]
  if protoc.main(arguments) != 0:
    raise RuntimeError(f'protoc failed: {" ".join(arguments)}')


setuptools.setup(
  # pyproject.toml either finds packages or lists them; here are both.
  packages=[*setuptools.find_packages(include=['delf_d2r*']), 'delf_d2r.tools', 'delf_d2r.configs'],
  cmdclass={'build_py': BuildPyWithProtos},
)
