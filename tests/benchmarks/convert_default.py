"""Makes the forms of the package's network for other runtimes than TensorFlow again.

  python tests/benchmarks/convert_default.py [--photos=DIR --every=N]

Writes delf_d2r/models/default_network/: network.onnx, the same bytes for the same SavedModel, and with
`--photos`, calibration.json, the ranges of its activations on some photos, which INT8 needs.
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402

from delf_d2r.data.photos.images import load_image  # noqa: E402
from delf_d2r.extractors.registry import DEFAULT_MODEL, DEFAULT_NETWORK  # noqa: E402
from delf_d2r.extractors.resize import resize  # noqa: E402
from delf_d2r.models.converted import convert, network_file, quantization, runtimes  # noqa: E402
from delf_d2r.models.converted.pyramid import Pyramid  # noqa: E402
from delf_d2r.protos import extraction_pb2  # noqa: E402

# Those of the default, one for each photo in turn.
SCALES = (1.0, 0.7071, 0.5, 0.3536, 0.25)
SIZE = 800


def main(flags) -> None:
  convert.write(DEFAULT_MODEL, DEFAULT_NETWORK)
  print(f'{DEFAULT_NETWORK}: {DEFAULT_NETWORK.stat().st_size} bytes')
  if not flags.photos:
    return
  network = network_file.load(DEFAULT_NETWORK, DEFAULT_MODEL)
  run = runtimes.open_network(
    quantization.observed(network),
    quantization.activations(network),
    runtime=extraction_pb2.ExtractionConfig.ONNXRUNTIME,
    precision=extraction_pb2.ExtractionConfig.FLOAT32,
  )
  pyramid = Pyramid(network)
  paths = sorted(flags.photos.rglob('*.jpg'))[:: flags.every]

  def inputs():
    for number, path in enumerate(paths):
      photo = resize(load_image(path), max_size=SIZE, min_size=SIZE)
      yield pyramid.level(pyramid.normalized(photo), np.float32(SCALES[number % len(SCALES)]))[0]

  ranges = quantization.calibrate(network, run, inputs())
  quantization.write_calibration(network, ranges, photos=f'{len(paths)} of {flags.what}')
  print(f'{len(ranges)} ranges of {len(paths)} photos')


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--photos', type=pathlib.Path)
  parser.add_argument('--every', type=int, default=40, help='take each so manieth photo')
  parser.add_argument('--what', default='photos of places', help='what the photos are, for the file')
  main(parser.parse_args())
