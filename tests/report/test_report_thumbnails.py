import base64
import io

import numpy as np
import pytest
from PIL import Image

from delf_d2r.report.thumbnails import PhotoError, make_thumbnail


def decode(thumbnail):
  header, data = thumbnail.data_uri.split(',')
  assert header == 'data:image/jpeg;base64'
  image = Image.open(io.BytesIO(base64.b64decode(data)))
  assert image.size == (thumbnail.width, thumbnail.height)
  assert image.mode == 'RGB'
  return image


def colour(image, x, y):
  return image.getpixel((int(x * image.width), int(y * image.height)))


def assert_close(found, expected):
  np.testing.assert_allclose(found, expected, atol=12)


def test_long_side_and_aspect(make_photo):
  assert decode(make_thumbnail(make_photo(size=(900, 300)), long_side=150)).size == (150, 50)


def test_small_photos_are_not_enlarged(make_photo):
  assert decode(make_thumbnail(make_photo(size=(30, 20)))).size == (30, 20)


def test_extreme_aspect_keeps_a_pixel(make_photo):
  assert decode(make_thumbnail(make_photo(size=(4000, 2)))).size == (200, 1)


def test_exif_orientation_is_applied_once(tmp_path):
  pixels = np.zeros((200, 400, 3), np.uint8)
  pixels[:, :200] = (220, 20, 20)
  exif = Image.Exif()
  exif[0x0112] = 6  # Shown rotated by 90 degrees clockwise: the left half is at the top.
  Image.fromarray(pixels).save(tmp_path / 'a.jpg', exif=exif, quality=95)
  image = decode(make_thumbnail(tmp_path / 'a.jpg', long_side=100))
  assert image.size == (50, 100)
  assert_close(colour(image, 0.5, 0.2), (220, 20, 20))
  assert_close(colour(image, 0.5, 0.8), (0, 0, 0))
  assert 0x0112 not in image.getexif()


@pytest.mark.parametrize('compression', ['raw', 'tiff_lzw'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_tiff_is_turned_once(tmp_path, orientation, compression):
  pixels = np.zeros((200, 400, 3), np.uint8)
  pixels[:, :200] = (220, 20, 20)
  pixels[:100] += 20
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(pixels).save(tmp_path / 'a.tif', exif=exif, compression=compression)
  Image.fromarray(pixels).save(tmp_path / 'a.png', exif=exif)
  found, expected = (decode(make_thumbnail(tmp_path / name, long_side=100)) for name in ('a.tif', 'a.png'))
  np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_jpeg_without_its_last_bytes_is_shown(make_photo, tmp_path):
  path = tmp_path / 'cut.jpg'
  path.write_bytes(make_photo(size=(600, 400)).read_bytes()[:-3])
  assert decode(make_thumbnail(path, long_side=150)).size == (150, 100)


def test_nothing_of_the_metadata_is_carried_over(tmp_path):
  exif = Image.Exif()
  exif[0x010E] = 'a private remark'
  Image.new('RGB', (300, 300)).save(tmp_path / 'a.jpg', exif=exif, comment=b'a private comment')
  data = base64.b64decode(make_thumbnail(tmp_path / 'a.jpg').data_uri.split(',')[1])
  assert b'private' not in data


@pytest.mark.parametrize('mode', ['L', 'P', 'LA', 'RGBA', 'CMYK', '1'])
def test_every_mode_becomes_rgb(tmp_path, mode):
  path = tmp_path / ('a.tif' if mode == 'CMYK' else 'a.png')
  Image.new('RGB', (40, 30), (255, 255, 255)).convert(mode).save(path)
  assert_close(colour(decode(make_thumbnail(path)), 0.5, 0.5), (255, 255, 255))


def test_transparent_becomes_white(tmp_path):
  Image.new('RGBA', (40, 30), (0, 0, 0, 0)).save(tmp_path / 'a.png')
  assert_close(colour(decode(make_thumbnail(tmp_path / 'a.png')), 0.5, 0.5), (255, 255, 255))


def test_sixteen_bit_grey_is_stretched(tmp_path):
  grey = np.repeat(np.array([[1000, 3000]], np.uint16), 40, axis=1).repeat(20, axis=0)
  Image.fromarray(grey).save(tmp_path / 'a.png')
  image = decode(make_thumbnail(tmp_path / 'a.png'))
  assert_close(colour(image, 0.1, 0.5), (0, 0, 0))
  assert_close(colour(image, 0.9, 0.5), (255, 255, 255))


def test_array_and_image_are_taken_and_left_alone():
  pixels = np.full((300, 400, 3), 90, np.uint8)
  image = Image.fromarray(pixels)
  assert make_thumbnail(pixels) == make_thumbnail(image)
  assert image.size == (400, 300)
  assert_close(colour(decode(make_thumbnail(pixels)), 0.5, 0.5), (90, 90, 90))


def test_missing_photo(tmp_path):
  with pytest.raises(PhotoError, match='not found'):
    make_thumbnail(tmp_path / 'nowhere.jpg')


@pytest.mark.parametrize('content', [b'', b'not a photo', b'\xff\xd8\xff\xe0junk', b'\x89PNG\r\n\x1a\n1234'])
def test_undecodable_photo(tmp_path, content):
  (tmp_path / 'a.jpg').write_bytes(content)
  with pytest.raises(PhotoError, match='cannot be decoded'):
    make_thumbnail(tmp_path / 'a.jpg')


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_truncated_photo(tmp_path, name):
  noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
  Image.fromarray(noise).save(tmp_path / name)
  content = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(content[: len(content) // 2])
  with pytest.raises(PhotoError, match='cannot be decoded'):
    make_thumbnail(tmp_path / name)


def test_photo_too_large_to_decode(tmp_path):
  path = tmp_path / 'a.pgm'
  path.write_bytes(b'P5 20000 20000 255 ')
  with pytest.raises(PhotoError, match='cannot be decoded'):
    make_thumbnail(path)
