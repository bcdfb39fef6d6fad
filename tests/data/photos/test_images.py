"""Photos of every kind become RGB, or one clear error."""

import contextlib
import errno
import os
import pathlib
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, features

from delf_d2r.data.photos import images
from delf_d2r.errors import ImageError, PhotoUnavailableError
from delf_d2r.report.thumbnails import PhotoError, make_thumbnail

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


# Files that Pillow turns itself, and metadata of odd types


@pytest.mark.parametrize('orientation', range(1, 9))
def test_tiff_is_turned_once(saved, orientation):
  upright = np.asarray(gradient())
  exif = Image.Exif()
  exif[0x0112] = orientation
  jpeg_like = saved(Image.fromarray(upright), 'x.png', exif=exif)
  path = saved(Image.fromarray(upright), 'x.tif', exif=exif)
  for turned in (True, False):
    expected = images.load_image(jpeg_like, apply_exif_orientation=turned)
    assert_array_equal(images.load_image(path, apply_exif_orientation=turned), expected)
    assert images.image_size(path, apply_exif_orientation=turned) == expected.shape[:2]


def ifd(*entries):
  """Returns a little-endian EXIF block with (tag, type, count, four bytes) each."""
  body = b''.join(struct.pack('<HHI', *entry[:3]) + entry[3].ljust(4, b'\0') for entry in sorted(entries))
  return b'II*\0\x08\0\0\0' + struct.pack('<H', len(entries)) + body + bytes(4)


TURNED = (0x0112, 3, 1, b'\x06\0')
ODD_TAGS = [
  (0x0128, 2, 3, b'in\0'),  # ResolutionUnit as text
  (0x0213, 2, 3, b'ab\0'),  # YCbCrPositioning as text
  (0x0128, 4, 1, b'\xff\xff\xff\x7f'),  # a number that its type cannot hold
  (0x0132, 11, 1, struct.pack('<f', 2.5)),  # DateTime as a float
  (0x8769, 2, 3, b'ab\0'),  # the place of the EXIF block as text
  (0x8769, 9, 1, struct.pack('<i', -4)),
  (0x8825, 11, 1, struct.pack('<f', 1.5)),
]


@pytest.mark.parametrize('tag', ODD_TAGS)
@pytest.mark.parametrize('name', ['x.jpg', 'x.png', 'x.webp'])
def test_one_odd_tag_does_not_matter(saved, name, tag):
  options = {'quality': 95} if name != 'x.png' else {}
  plain = images.load_image(saved(gradient(), name, **options))
  path = saved(gradient(), name, exif=b'Exif\0\0' + ifd(TURNED, tag), **options)
  assert_array_equal(images.load_image(path), np.rot90(plain, -1))
  assert images.image_size(path) == (30, 20)


def tiff(pixels, *extra):
  """Returns a TIFF file of uint8 [H, W, 3], orientation 6, with further tags."""
  height, width = pixels.shape[:2]
  entries = [
    (256, 4, 1, struct.pack('<I', width)),
    (257, 4, 1, struct.pack('<I', height)),
    (258, 3, 1, b'\x08\0'),
    (259, 3, 1, b'\x01\0'),
    (262, 3, 1, b'\x02\0'),
    TURNED,
    (277, 3, 1, b'\x03\0'),
    (278, 4, 1, struct.pack('<I', height)),
    (279, 4, 1, struct.pack('<I', pixels.nbytes)),
    *extra,
  ]
  start = len(ifd(*entries)) + 12
  return ifd(*entries, (273, 4, 1, struct.pack('<I', start))) + pixels.tobytes()


@pytest.mark.parametrize('tag', [*ODD_TAGS, (700, 3, 2, b'\x05\0\x07\0')])
def test_one_odd_tag_of_a_tiff_does_not_matter(tmp_path, tag):
  pixels = np.ascontiguousarray(gradient())
  (tmp_path / 'x.tif').write_bytes(tiff(pixels, tag))
  assert_array_equal(images.load_image(tmp_path / 'x.tif'), np.rot90(pixels, -1))
  assert_array_equal(images.load_image(tmp_path / 'x.tif', apply_exif_orientation=False), pixels)
  assert images.image_size(tmp_path / 'x.tif') == (30, 20)


# Depths of grey

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)


@pytest.mark.parametrize('name', ['x.png', 'x.tif'])
@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_bits_in_sixteen(saved, name, bits):
  path = saved(Image.fromarray(RAMP << (bits - 8)), name)
  assert_array_equal(images.load_image(path)[..., 0], RAMP)


@pytest.mark.parametrize('largest', [1, 255, 1023, 4095, 65535])
def test_floats(saved, largest):
  values = RAMP.astype(np.float32) / 255 * largest
  found = images.load_image(saved(Image.fromarray(values), 'x.tif'))[..., 0]
  assert np.abs(found.astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_bits_in_sixteen_of_pgm(tmp_path, bits):
  words = RAMP << (bits - 8)
  (tmp_path / 'x.pgm').write_bytes(b'P5 16 16 65535\n' + words.astype('>u2').tobytes())
  assert_array_equal(images.load_image(tmp_path / 'x.pgm')[..., 0], RAMP)
  (tmp_path / 'y.pgm').write_text('P2 16 16 65535\n' + ' '.join(map(str, words.ravel())))
  assert_array_equal(images.load_image(tmp_path / 'y.pgm')[..., 0], RAMP)


@pytest.mark.parametrize('name', ['x.png', 'x.tif', 'x.ppm', 'x.jp2'])
@pytest.mark.parametrize('bits', [8, 10, 12, 16])
def test_colours_in_sixteen_bits(tmp_path, name, bits):
  colours = np.tile(np.stack([RAMP, RAMP[::-1], RAMP.T], 2), (4, 4, 1))
  lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if name == 'x.jp2' else []
  assert cv2.imwrite(str(tmp_path / name), (colours << (bits - 8))[..., ::-1], lossless)
  found = images.load_image(tmp_path / name)
  assert np.abs(found.astype(int) - colours).max() <= (bits == 16 and name in ('x.ppm', 'x.jp2'))


@pytest.mark.parametrize('opaque', [4095, 65535])
def test_transparency_of_colours_in_sixteen_bits(tmp_path, opaque):
  colours = np.stack([RAMP, RAMP[::-1], RAMP.T], 2)
  alpha = np.full((16, 16, 1), opaque, np.uint16)
  alpha[8:] = 0
  assert cv2.imwrite(str(tmp_path / 'x.png'), np.concatenate([(colours << 4)[..., ::-1], alpha], 2))
  found = images.load_image(tmp_path / 'x.png')
  assert_array_equal(found[:8], colours[:8])
  assert (found[8:] == 255).all()


def test_dark_colours_stay_dark(tmp_path):
  dark = np.full((64, 64, 3), 5, np.uint8)
  for name in ('x.jp2', 'x.ppm', 'x.png'):
    assert cv2.imwrite(str(tmp_path / name), dark)
    assert np.abs(images.load_image(tmp_path / name).astype(int) - 5).max() <= 1


def test_floats_slightly_outside_of_the_unit_range(saved):
  values = (RAMP.astype(np.float32) / 255) * 1.1 - 0.05
  found = images.load_image(saved(Image.fromarray(values), 'x.tif'))[..., 0]
  assert_array_equal(found, np.round(values * 255.0).clip(0, 255))


def test_signed_values_are_stretched(saved):
  values = RAMP.astype(np.float32) * 8 - 1000
  found = images.load_image(saved(Image.fromarray(values), 'x.tif'))[..., 0]
  assert_array_equal(found, RAMP)


def test_floats_that_are_no_numbers(saved):
  with pytest.raises(ImageError, match=r'x\.tif: cannot be decoded .*NaN'):
    images.load_image(saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), 'x.tif'))


@pytest.mark.parametrize('values', [RAMP * 257, RAMP << 4, (RAMP / 255).astype(np.float32)])
def test_white_is_zero(saved, values):
  path = saved(Image.fromarray(values), 'x.tif', tiffinfo={262: 0})
  with Image.open(path) as image:
    assert image.tag_v2[262] == 0
  assert_array_equal(images.load_image(path)[..., 0], 255 - RAMP)


def test_depth_that_the_file_says(saved):
  dark = RAMP[:4] << 4  # at most 1008 of 4095
  path = saved(Image.fromarray(dark), 'x.tif', tiffinfo={281: 4095})
  assert_array_equal(images.load_image(path)[..., 0], RAMP[:4])
  (path.parent / 'x.pgm').write_bytes(b'P5 16 4 4095\n' + dark.astype('>u2').tobytes())
  assert np.abs(images.load_image(path.parent / 'x.pgm')[..., 0].astype(int) - RAMP[:4]).max() <= 1


# A JPEG without its end


@pytest.mark.parametrize('progressive', [False, True])
@pytest.mark.parametrize('missing', [1, 2, 10, 300])
def test_jpeg_that_lacks_its_last_bytes(tmp_path, caplog, missing, progressive):
  noise = np.random.default_rng(0).integers(0, 255, (320, 240, 3), np.uint8)
  path = tmp_path / 'x.jpg'
  Image.fromarray(noise).resize((480, 640)).save(path, progressive=progressive)
  whole = images.load_image(path)
  path.write_bytes(path.read_bytes()[:-missing])
  photo = images.read_photo(path)
  assert photo.is_truncated
  assert_array_equal(photo.pixels[:512], whole[:512]) if not progressive else None
  assert np.abs(photo.pixels.astype(int) - whole).mean() < 3
  assert_array_equal(images.load_image(path), photo.pixels)
  assert 'x.jpg: truncated' in caplog.text


@pytest.mark.parametrize('progressive', [False, True])
def test_jpeg_of_which_much_is_missing(tmp_path, progressive):
  noise = np.random.default_rng(0).integers(0, 255, (320, 240, 3), np.uint8)
  path = tmp_path / 'x.jpg'
  Image.fromarray(noise).save(path, progressive=progressive)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // (4 if progressive else 2)])
  with pytest.raises(ImageError, match='truncated'):
    images.load_image(path)


# The limit of Pillow


def test_limit_of_the_host_stays(tmp_path):
  """Importing and using the package does not change a global variable of Pillow."""
  code = (
    'import sys; from PIL import Image; Image.MAX_IMAGE_PIXELS = 1234;'
    ' import delf_d2r; from delf_d2r.data.photos import images; from delf_d2r.report import thumbnails;'
    ' print(images.load_image(sys.argv[1]).shape, Image.MAX_IMAGE_PIXELS)'
  )
  Image.new('L', (100, 80)).save(tmp_path / 'x.tif', compression='tiff_lzw')
  found = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path / 'x.tif')], check=True, capture_output=True, text=True
  )
  assert found.stdout.split(')') == ['(80, 100, 3', ' 1234\n']


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
    with pytest.raises(ImageError, match=rf'{path.name}: cannot be read'):
      images.load_image(path)


def test_file_without_permission(tmp_path, monkeypatch):
  (tmp_path / 'x.jpg').write_bytes(b'x')

  def refuse(*_arguments, **_options):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(images.Image, 'open', refuse)
  with pytest.raises(ImageError, match=r'x\.jpg: cannot be read .*Permission denied'):
    images.load_image(tmp_path / 'x.jpg')


@pytest.mark.parametrize('name', ['x.jpg', 'x.png', 'x.gif', 'x.webp', 'x.bmp', 'x.tif'])
def test_truncated_and_damaged_photos_raise_nothing_else(saved, name):
  if name == 'x.webp' and not features.check('webp'):
    pytest.skip('this Pillow has no WebP')
  generator = np.random.default_rng(0)
  noise = Image.fromarray(generator.integers(0, 255, (40, 40, 3), np.uint8))
  path = saved(noise, name)
  content = path.read_bytes()
  end = len(content) - len(content) // 8
  for size in (1, 3, 10, len(content) // 4, len(content) // 2, *(() if name == 'x.jpg' else (end,))):
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


@pytest.mark.parametrize('name', ['x.png', 'x.tif', 'x.webp', 'x.gif'])
def test_one_wrong_byte_in_the_middle(saved, name):
  """Looking for metadata must not swallow the error of the pixels."""
  noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
  path = saved(Image.fromarray(noise), name, **({'compression': 'tiff_lzw'} if name == 'x.tif' else {}))
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0xFF
  path.write_bytes(content)
  try:
    with Image.open(path) as image:
      image.load()
      pixels = np.asarray(image.convert('RGB'))
  except Exception:
    with pytest.raises(ImageError, match='cannot be decoded'):
      images.load_image(path)
    with pytest.raises(PhotoError):
      make_thumbnail(path)
  else:
    assert_array_equal(images.load_image(path), pixels)


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


# Errors that are not about the photo


@pytest.mark.parametrize('number', [errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOENT, errno.ENOTCONN])
def test_errors_of_the_system_are_told_apart(saved, monkeypatch, number):
  def fail(*_arguments, **_options):
    raise OSError(number, 'not now')

  path = saved(gradient())
  monkeypatch.setattr('builtins.open', fail)
  with pytest.raises(PhotoUnavailableError, match=r'cannot be read .not now.*again'):
    images.read_photo(path)


@pytest.mark.parametrize('place', ['PIL.Image.open', 'PIL.ImageFile.ImageFile.load', 'numpy.asarray'])
def test_shortage_of_memory_is_told_apart(saved, monkeypatch, place):
  def fail(*_arguments, **_options):
    raise MemoryError

  path = saved(gradient())
  monkeypatch.setattr(place, fail)
  with pytest.raises(PhotoUnavailableError, match='not enough memory'):
    images.read_photo(path)


def test_a_photo_from_a_pipe(tmp_path):
  Image.new('RGB', (30, 20), (200, 0, 0)).save(tmp_path / 'a.png')
  reader, writer = os.pipe()
  try:
    os.write(writer, (tmp_path / 'a.png').read_bytes())
    os.close(writer)
    pixels = images.load_image(f'/dev/fd/{reader}')
  finally:
    os.close(reader)
  assert pixels.shape == (20, 30, 3)
  assert (pixels == (200, 0, 0)).all()
