"""Photos of every kind become RGB, or one clear error."""

import contextlib
import pathlib
import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, features

from delf_d2r.data.photos import images
from delf_d2r.errors import ImageError

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


@pytest.fixture
def saved(tmp_path):
  """Saves an image and returns its path."""

  def save(image, name='gr\u00fc\u00dfe 1.png', **options):
    path = tmp_path / name
    image.save(path, **options)
    return path

  return save


def gradient(height=20, width=30):
  rows, columns = np.mgrid[:height, :width]
  return Image.fromarray(np.stack([8 * rows, 8 * columns, rows + columns], 2).astype(np.uint8))


def png_header(width, height):
  """Returns a PNG with a header and no pixels."""
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  chunks = [(b'IHDR', header), (b'IDAT', zlib.compress(b'')), (b'IEND', b'')]
  body = [
    struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    for kind, data in chunks
  ]
  return b'\x89PNG\r\n\x1a\n' + b''.join(body)


@pytest.mark.parametrize('extension', ['png', 'bmp', 'tiff', 'ppm', 'webp'])
def test_lossless_files_come_as_they_are(saved, extension):
  options = {'lossless': True} if extension == 'webp' else {}
  if extension == 'webp' and not features.check('webp'):
    pytest.skip('this Pillow has no WebP')
  found = images.load_image(saved(gradient(), f'x.{extension}', **options))
  assert_array_equal(found, np.asarray(gradient()))
  assert found.dtype == np.uint8


def test_rows_come_first(saved):
  path = saved(gradient(20, 30))
  assert images.load_image(path).shape == (20, 30, 3)
  assert images.image_size(str(path)) == (20, 30)


def test_one_pixel(saved):
  assert_array_equal(images.load_image(saved(Image.new('RGB', (1, 1), RED))), [[RED]])


def test_sixteen_bits_are_scaled_not_clipped(saved):
  values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
  found = images.load_image(saved(Image.fromarray(values), 'x.png'))
  assert_array_equal(found[0, :, 0], [0, 0, 1, 128, 255])
  assert_array_equal(images.load_image(saved(Image.fromarray(values), 'x.tif')), found)


def test_grey_and_black_and_white(saved):
  assert_array_equal(images.load_image(saved(Image.new('L', (1, 1), 77))), [[[77, 77, 77]]])
  assert_array_equal(images.load_image(saved(Image.new('1', (1, 1), 1))), [[WHITE]])


def test_cmyk(saved):
  path = saved(Image.new('CMYK', (16, 16), (0, 255, 255, 0)), 'x.jpg', quality=100)
  assert np.abs(images.load_image(path).astype(int) - RED).max() < 4


def test_transparency_is_composed_over_white(saved):
  half = Image.new('RGBA', (2, 1), (*RED, 128))
  half.putpixel((1, 0), (0, 0, 0, 0))
  assert_array_equal(images.load_image(saved(half)), [[(255, 127, 127), WHITE]])
  grey = Image.new('LA', (1, 1), (0, 0))
  assert_array_equal(images.load_image(saved(grey)), [[WHITE]])


def test_palette_with_a_transparent_colour(saved):
  image = Image.new('P', (2, 1))
  image.putpalette([*RED, *GREEN])
  image.putpixel((1, 0), 1)
  assert_array_equal(images.load_image(saved(image)), [[RED, GREEN]])
  assert_array_equal(images.load_image(saved(image, transparency=1)), [[RED, WHITE]])


def test_colour_key_transparency(saved):
  image = Image.new('RGB', (2, 1), RED)
  image.putpixel((1, 0), GREEN)
  assert_array_equal(images.load_image(saved(image, transparency=GREEN)), [[RED, WHITE]])


def test_animation_gives_its_first_frame(saved):
  frames = [Image.new('RGB', (4, 4), colour) for colour in (RED, GREEN)]
  path = saved(frames[0], 'x.gif', save_all=True, append_images=frames[1:])
  assert_array_equal(images.load_image(path)[0, 0], RED)


# EXIF orientation


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_turns_the_photo_upright(saved, orientation):
  upright = np.asarray(gradient())
  # What a camera stores so that this orientation shows `upright` (EXIF 2.3, tag 0x0112).
  stored = {
    1: upright,
    2: upright[:, ::-1],
    3: upright[::-1, ::-1],
    4: upright[::-1],
    5: upright.transpose(1, 0, 2),
    6: np.rot90(upright, 1),
    7: upright[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(upright, -1),
  }[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = saved(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
  assert_array_equal(images.load_image(path), upright)
  assert images.image_size(path) == upright.shape[:2]
  assert_array_equal(images.load_image(path, apply_exif_orientation=False), stored)
  assert images.image_size(path, apply_exif_orientation=False) == stored.shape[:2]


@pytest.mark.parametrize(
  'exif',
  [
    b'Exif\0\0garbage',
    b'Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12',
    b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0',
    b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x03\0\0\0abc\0',
  ],
)
def test_damaged_exif_is_ignored(saved, exif):
  path = saved(gradient(), 'x.jpg', exif=exif)
  assert images.load_image(path).shape == (20, 30, 3)
  assert images.image_size(path) == (20, 30)


# What cannot be used


def test_empty_file(tmp_path):
  (tmp_path / 'x.jpg').touch()
  with pytest.raises(ImageError, match=r'x\.jpg: the file is empty \(0 bytes\)'):
    images.load_image(tmp_path / 'x.jpg')


def test_text_with_the_name_of_a_photo(tmp_path):
  (tmp_path / 'x.jpg').write_text('not found', encoding='utf-8')
  with pytest.raises(ImageError, match=r'x\.jpg: not an image that Pillow can read'):
    images.load_image(tmp_path / 'x.jpg')


def test_missing_file_and_folder(tmp_path):
  for path in (tmp_path / 'nothing.jpg', tmp_path):
    with pytest.raises(ImageError, match=rf'{path.name}: cannot be decoded'):
      images.load_image(path)


def test_file_without_permission(tmp_path, monkeypatch):
  (tmp_path / 'x.jpg').write_bytes(b'x')

  def refuse(*_arguments, **_options):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(images.Image, 'open', refuse)
  with pytest.raises(ImageError, match=r'x\.jpg: cannot be decoded .*Permission denied'):
    images.load_image(tmp_path / 'x.jpg')


@pytest.mark.parametrize('name', ['x.jpg', 'x.png', 'x.gif', 'x.webp', 'x.bmp', 'x.tif'])
def test_truncated_and_damaged_photos_raise_nothing_else(saved, name):
  if name == 'x.webp' and not features.check('webp'):
    pytest.skip('this Pillow has no WebP')
  generator = np.random.default_rng(0)
  noise = Image.fromarray(generator.integers(0, 255, (40, 40, 3), np.uint8))
  path = saved(noise, name)
  content = path.read_bytes()
  for size in (1, 3, 10, len(content) // 4, len(content) // 2, len(content) - len(content) // 8):
    path.write_bytes(content[:size])
    with pytest.raises(ImageError, match=name):
      images.load_image(path)
  for _ in range(60):
    damaged = bytearray(content)
    for position in generator.integers(0, len(content) if name != 'x.jpg' else 700, 4):
      damaged[position] = generator.integers(256)
    path.write_bytes(damaged)
    with contextlib.suppress(ImageError):
      assert images.load_image(path, max_megapixels=1).shape[2:] == (3,)


def test_photo_that_is_too_large_is_refused_by_its_header(tmp_path):
  path = tmp_path / 'huge.png'
  path.write_bytes(png_header(20_000, 20_000))
  message = r'huge\.png: 20000 x 20000 is 400 megapixels, more than max_megapixels 200\. Reduce'
  with pytest.raises(ImageError, match=message):
    images.load_image(path)
  with pytest.raises(ImageError, match=message):
    images.image_size(path)
  # Within the limit the header is read, and only decoding finds that there are no pixels.
  with images.open_image(path, max_megapixels=400) as image:
    assert image.size == (20_000, 20_000)
  path.write_bytes(png_header(1000, 1000))
  with pytest.raises(ImageError, match='cannot be decoded'):
    images.load_image(path, max_megapixels=1)


def test_limit_is_in_whole_megapixels(saved):
  path = saved(Image.new('L', (1000, 1000)))
  assert images.load_image(path, max_megapixels=1).shape == (1000, 1000, 3)
  path = saved(Image.new('L', (1001, 1000)))
  with pytest.raises(ImageError, match='more than max_megapixels 1'):
    images.load_image(path, max_megapixels=1)


def test_path_may_be_text(saved):
  assert images.load_image(str(saved(gradient()))).shape == (20, 30, 3)
  assert isinstance(saved(gradient()), pathlib.Path)
