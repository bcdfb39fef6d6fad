"""Photos as users send them: files that are no photos, too large ones, and valid ones in unusual formats."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, file_format, **options)
  return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
  """Returns a PNG file with that size in its header, without pixels."""

  def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
  return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(bytes(100))) + chunk(b'IEND', b'')


# What is no photo, and what is said of it.
REFUSED = [
  (b'', 'empty (0 bytes)'),
  (b'no photo at all\n' * 40, 'not an image that Pillow can read'),
  (png_header(40_000, 40_000), '1600 megapixels'),
  (png_header(64, 64), 'cannot be decoded'),
  (b'\xff\xd8\xff\xe0' + bytes(200), 'not an image that Pillow can read'),
]


def kinds(photo: Image.Image) -> dict[str, bytes]:
  """Returns a photo in unusual but valid formats, by name."""
  rgba = photo.copy()
  rgba.putalpha(255)
  palette = photo.quantize(256)
  black = Image.new('RGB', photo.size)
  animation = {'save_all': True, 'append_images': [black, black]}
  exif = Image.Exif()
  exif[0x0112] = 6
  turned = photo.transpose(Image.Transpose.ROTATE_90)  # undone by the orientation
  return {
    'CMYK': encoded(photo.convert('CMYK'), 'JPEG', quality=95),
    '16-bit grey': encoded(Image.fromarray(np.asarray(photo.convert('L'), np.uint16) * 257), 'PNG'),
    'transparent palette': encoded(palette, 'PNG', transparency=0),
    'alpha': encoded(rgba, 'PNG'),
    'EXIF orientation': encoded(turned, 'JPEG', exif=exif, quality=95),
    'animated GIF': encoded(photo, 'GIF', **animation),
    'animated WebP': encoded(photo, 'WEBP', lossless=True, **animation),
    'animated PNG': encoded(photo, 'PNG', **animation),
    'TIFF': encoded(photo, 'TIFF'),
    'BMP': encoded(photo, 'BMP'),
  }
