"""Readers of files of others: legacy formats, ground truth, CSV files, checkpoints, photos."""

import io
import json
import pathlib
import pickle

import numpy as np
from fuzzing import mutations, valid_files
from fuzzing.reader import Reader, single
from fuzzing.sandbox import MEBIBYTE
from fuzzing.valid_files import ValidFiles
from hypothesis import strategies as st

from delf_d2r.conversion import single_files
from delf_d2r.data.boxes import csv_file, training_boxes
from delf_d2r.data.foreign import hloc_files, torch_checkpoint
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.legacy import box_files, config_files, datum, delf_files, descriptor_files, mapping_files
from delf_d2r.data.legacy.mapping_files import MappedImage
from delf_d2r.data.photos import class_names, distractor_list, images, object_labels
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.training import training_examples
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.serving.annotations import NO_OBJECT, Annotations
from delf_d2r.structures import AggregatedDescriptor, Boxes, LocalFeatures

_RNG = np.random.default_rng(0)
_WORDS = np.array([1, 3], np.uint32)
_NUM_WORDS, _DIMENSIONS = 8, 16


def readers(made: ValidFiles) -> list[Reader]:
  """Returns all readers."""
  photos = ImageList.from_folder(made.photos)
  return [*_legacy_files(), *_ground_truths(photos), *_csv_files(photos), *_checkpoints(), *_photos()]


def _legacy_files() -> list[Reader]:
  features = LocalFeatures(*(_RNG.random(shape, np.float32) for shape in ((3, 2), 3, 3, (3, _DIMENSIONS))))
  boxes = Boxes.from_coordinates([[0, 0, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]])
  floats = AggregatedDescriptor(_WORDS, _RNG.random((2, _DIMENSIONS), np.float32), _DIMENSIONS)
  bits = AggregatedDescriptor(_WORDS, _RNG.integers(0, 256, (2, 2), np.uint8), _DIMENSIONS)
  descriptors = {
    f'x{descriptor_files.extension(kernel, regional=False)}': descriptor_files.encode(
      bits if kernel is Kernel.ASMK_STAR else floats, kernel=kernel, num_words=_NUM_WORDS
    )
    for kernel in Kernel
  }

  def read_descriptors(path):
    found = descriptor_files.read(path, num_words=_NUM_WORDS, dimensions=_DIMENSIONS)
    assert np.isfinite(found.values).all()
    assert all(found.visual_words < _NUM_WORDS)

  config = b'model_path: "m"\nimage_scales: .25\nimage_scales: 2.0\ndelf_local_config { use_pca: false }\n'
  mapping = mapping_files.encode([MappedImage('a', ('a_0',)), MappedImage('b')]).encode()
  arrays = [_RNG.random((2, 3), np.float32), _RNG.integers(0, 9, 4, np.uint32)]
  return [
    single('.datum', 'x.datum', [datum.encode(array).SerializeToString() for array in arrays], datum.read),
    single('.delf', 'x.delf', [delf_files.encode(features)], delf_files.read),
    single('.boxes', 'x.boxes', [box_files.encode(boxes)], box_files.read),
    *(single(name[1:], name, [data], read_descriptors) for name, data in descriptors.items()),
    single('mapping CSV', 'x.csv', [mapping], mapping_files.read, _csv(mapping_files.COLUMNS)),
    single('delf_config', 'x.pbtxt', [config], config_files.load_extraction),
  ]


def _ground_truths(photos: ImageList) -> list[Reader]:
  query = {'image': '0.jpg', 'easy': ['1.jpg'], 'hard': ['2.jpg'], 'junk': [], 'box': [0, 0, 1, 1]}
  own = {'version': 1, 'name': 'x', 'index_images': list(photos.names), 'queries': [query]}
  keys = ('version', 'name', 'index_images', 'queries', *query, 'box_pixels')
  revisited = {
    'imlist': ['a', 'b', 'c'],
    'qimlist': ['q'],
    'gnd': [{'bbx': [1.0, 2.0, 30.0, 40.0], 'easy': np.array([0]), 'hard': [1], 'junk': []}],
  }
  documents = st.fixed_dictionaries(
    {
      'version': st.just(1) | mutations.json_values(),
      'queries': st.lists(mutations.json_values(keys), max_size=3),
    },
    optional={'name': mutations.json_values(), 'index_images': mutations.json_values(keys)},
  ).map(mutations.json_bytes)

  def load(path):
    truth = ground_truth.load(path)
    assert truth.queries
    for found in truth.queries:
      assert found.name

  return [
    single('ground truth .json', 'x.json', [json.dumps(own).encode()], load, documents),
    single(
      'ground truth .pkl',
      'x.pkl',
      [pickle.dumps(revisited, protocol) for protocol in range(6)],
      load,
      _pickles(),
    ),
    single('ground truth .mat', 'x.mat', _matlab(), load),
  ]


def _pickles():
  """Pickles put together of opcodes: calls of what is admitted and of what is not, memo slots, sizes."""
  opcodes = st.sampled_from(
    (
      b'cos\nsystem\n',
      b'cbuiltins\neval\n',
      b'cnumpy\nndarray\n',
      b'cnumpy\ndtype\n',
      b'cnumpy.core.multiarray\n_reconstruct\n',
      b'cnumpy.core.multiarray\nscalar\n',
      b'cnumpy._core.numeric\n_frombuffer\n',
      b'c_codecs\nencode\n',
      b'X\x04\x00\x00\x00echo',
      b'X\x02\x00\x00\x00f8',
      b'K\x01',
      b'J\xff\xff\xff\x7f',
      b'\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f',
      b'B\x08\x00\x00\x0012345678',
      *(bytes([letter]) for letter in b'()]}Nt\x85\x86\x87Rbsuaed2p0q\x00h\x00\x81\x93\x94l'),
    )
  )
  return st.lists(opcodes, max_size=14).map(lambda parts: b'\x80\x04' + b''.join(parts) + b'.')


def _matlab() -> list[bytes]:
  import scipy.io

  found = []
  for compressed in (False, True):
    gnd = np.zeros((1, 1), [(name, object) for name in ('bbx', 'easy', 'hard', 'junk')])
    gnd[0, 0] = (np.array([[1.0, 2, 30, 40]]), np.array([[1]]), np.array([[2]]), np.zeros((0, 0)))
    names = np.array([['a'], ['b'], ['c']], object)
    file = io.BytesIO()
    content = {'imlist': names, 'qimlist': np.array([['q']], object), 'gnd': gnd}
    scipy.io.savemat(file, content, do_compression=compressed)
    found.append(file.getvalue())
  return found


def _csv(columns):
  return mutations.csv_texts(columns, (*valid_files.NAMES, 'a', 'b'))


def _csv_files(photos: ImageList) -> list[Reader]:
  boxes = b'image,ymin,xmin,ymax,xmax,score\n0.jpg,0,0,1,1,0.5\n1.jpg,0.1,0.1,0.5,0.5,\n'
  google = b'id,box\n0,0.1 0.1 0.5 0.5\n1,0 0 1 1\n'
  coco = {
    'images': [{'id': 1, 'file_name': '0.jpg', 'width': 160, 'height': 160}],
    'annotations': [{'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 30, 40]}],
    'categories': [{'id': 1, 'name': 'tower'}],
  }
  coco_keys = (*coco, *coco['images'][0], *coco['annotations'][0], 'name', 'iscrowd')
  documents = mutations.json_values(coco_keys).map(mutations.json_bytes)
  columns = ('image', 'ymin', 'xmin', 'ymax', 'xmax', 'score')
  annotated = {'x.csv': boxes.replace(b',score', b'').replace(b',0.5\n', b'\n', 1).replace(b',\n', b'\n')}
  annotated[f'x.csv{NO_OBJECT}'] = b'["2.jpg"]'
  training = {'x.csv': b'path,label\n0.jpg,a\n1.jpg,a\n', '0.jpg': b'0', '1.jpg': b'1'}

  def read_boxes(path):
    for found in csv_file.read_boxes(path, photos.names).values():
      assert np.isfinite(found.coordinates).all()
      assert (found.coordinates[:, :2] <= found.coordinates[:, 2:]).all()

  def read_landmarks(path):
    for found in training_boxes.read(path, photos):
      assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()

  def read_labels(path):
    for group in object_labels.load(path, photos.names):
      assert len(group) > 1

  def read_annotations(folder):
    found = Annotations(photos, folder / 'x.csv')
    assert 0 <= found.num_labelled <= len(found)

  return [
    single('boxes CSV', 'x.csv', [boxes], read_boxes, _csv(columns)),
    single('landmark boxes CSV', 'x.csv', [boxes, google], read_landmarks, _csv((*columns, 'id', 'box'))),
    single('COCO JSON', 'x.json', [json.dumps(coco).encode()], read_landmarks, documents),
    Reader('annotations', (annotated,), read_annotations),
    Reader('training CSV', (training,), lambda folder: training_examples.load(folder / 'x.csv')),
    single('labels CSV', 'x.csv', [training['x.csv']], read_labels, _csv(('path', 'label'))),
    single('list of classes', 'x.txt', [b'a\nb\n'], class_names.read),
    single('list of distractors', 'x.txt', [b'0.jpg\n1.jpg\n'], distractor_list.read_list),
  ]


def _checkpoints() -> list[Reader]:
  file = io.BytesIO()
  np.savez(
    file, keypoints=np.ones((3, 2), np.float32), descriptors=np.ones((4, 3), np.float32), scores=np.ones(3)
  )
  squeezed = io.BytesIO()
  np.savez_compressed(squeezed, keypoints=np.ones((3, 2)), descriptors=np.ones((4, 3)), scores=np.ones(3))
  array = io.BytesIO()
  np.save(array, np.arange(6, dtype=np.float32).reshape(2, 3))

  def convert(path):
    single_files.convert(path, path.with_suffix('.datum'), redo=True)

  return [
    single('.npy', 'x.npy', [array.getvalue()], convert),
    single('hloc .npz', 'x.npz', [file.getvalue(), squeezed.getvalue()], hloc_files.read_npz),
    single('PyTorch checkpoint', 'x.pth', [_torch()], torch_checkpoint.load, _pickles()),
  ]


def _torch() -> bytes:
  """Returns a state dict of one tensor [2, 2], written by hand."""
  state = (
    b'\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n'
    b'((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04NtQK\x00'
    b'K\x02K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)RtRu.'
  )
  pickles = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)]
  pickles += [pickle.dumps({'little_endian': True}, 2), state, pickle.dumps(['0'], 2)]
  return b''.join(pickles) + (4).to_bytes(8, 'little') + np.arange(4, dtype='<f4').tobytes()


def _photos() -> list[Reader]:
  photo = valid_files.photo(3, 48)
  kinds = {
    'JPEG': [
      valid_files.encoded(photo, 'jpeg'),
      valid_files.encoded(photo.convert('CMYK'), 'jpeg', progressive=True),
    ],
    'PNG': [valid_files.encoded(photo, 'png'), valid_files.encoded(photo.convert('I;16'), 'png')],
    'TIFF': [valid_files.encoded(photo, 'tiff', compression=kind) for kind in ('raw', 'tiff_lzw', 'jpeg')],
    'GIF': [valid_files.encoded(photo, 'gif', save_all=True, append_images=[valid_files.photo(4, 48)])],
    'WebP': [valid_files.encoded(photo, 'webp', lossless=lossless) for lossless in (False, True)],
    'BMP': [valid_files.encoded(photo, 'bmp')],
    'PPM': [valid_files.encoded(photo, 'ppm')],
  }

  def load(path: pathlib.Path):
    found = images.load_image(path, max_megapixels=4)
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3
    images.image_size(path)

  # 4 megapixels in three copies of four bytes, and what the decoders keep.
  return [single(kind, f'x.{kind}', seeds, load, memory=192 * MEBIBYTE) for kind, seeds in kinds.items()]
