"""Folders of photos: links, files that are none, excluded ones, photos of any format under any name."""

import os
import socket

import numpy as np
import pytest
from PIL import Image

from delf_d2r.data.photos import images, photo_formats, photo_listing
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError


@pytest.fixture
def root(tmp_path):
  return tmp_path / 'photos'


def write(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 6)).save(path, 'PNG')
  return root


def listed(root, **options):
  return list(ImageList.from_folder(root, **options).names)


# Links


def test_folders_that_link_to_each_other_are_entered_once(root):
  write(root, '2023/a.png', '2024/b.png')
  (root / '2023/next').symlink_to('../2024')
  (root / '2024/previous').symlink_to('../2023')
  assert listed(root) == ['2023/a.png', '2024/b.png']


def test_many_folders_that_all_link_to_each_other(root):
  letters = 'abcdef'
  write(root, *(f'{letter}/1.png' for letter in letters))
  for one in letters:
    for other in letters:
      if one != other:
        (root / one / f'to_{other}').symlink_to(f'../{other}')
  assert listed(root) == [f'{letter}/1.png' for letter in letters]


def test_a_folder_outside_is_entered_by_the_first_link(root, tmp_path):
  write(tmp_path / 'outside', '1.png', 'deep/2.png')
  write(root, 'z/3.png')
  for name in ('b', 'a', 'z/c'):
    (root / name).symlink_to(tmp_path / 'outside')
  (root / 'z/deep').symlink_to(tmp_path / 'outside/deep')
  assert listed(root) == ['a/1.png', 'a/deep/2.png', 'z/3.png']


def test_links_lead_into_no_parent_of_the_folder(root, tmp_path):
  write(tmp_path, 'other.png', 'outside/1.png')
  write(root, 'a/2.png')
  (root / 'a/up').symlink_to(tmp_path)
  (root / 'out').symlink_to(tmp_path / 'outside')
  (tmp_path / 'outside/back').symlink_to(tmp_path)
  (root / 'itself').symlink_to('itself')
  assert listed(root) == ['a/2.png', 'out/1.png']


def test_links_to_photos_are_photos(root, tmp_path):
  write(tmp_path, 'original.png')
  write(root, 'a.png')
  (root / 'b.png').symlink_to(tmp_path / 'original.png')
  assert listed(root) == ['a.png', 'b.png']


# Files that are none


def test_only_regular_files_are_photos(root):
  write(root, 'a.png')
  os.mkfifo(root / 'b.jpg')
  os.mkfifo(root / 'c')
  server = socket.socket(socket.AF_UNIX)
  server.bind(str(root / 'd.jpg'))
  (root / 'e.png').symlink_to('/dev/zero')
  (root / 'f').symlink_to('nowhere')
  found = ImageList.from_folder(root)
  server.close()
  assert found.names == ('a.png',)
  assert found.left_out == {'FIFO': 2, 'socket': 1, 'device': 1, 'broken link': 1}


# Excluded


def test_hidden_files_and_folders_of_servers_are_excluded(root):
  others = ['.b.png', '.c/d.png', '@eaDir/a.png', 'x/__MACOSX/a.png', '#recycle/a.png', 'lost+found/a.png']
  write(root, 'a.png', *others)
  found = ImageList.from_folder(root)
  assert found.names == ('a.png',)
  assert found.left_out == {
    'excluded by .*': 2,
    'excluded by @eaDir': 1,
    'excluded by __MACOSX': 1,
    'excluded by #recycle': 1,
    'excluded by lost+found': 1,
  }


@pytest.mark.parametrize(
  ('exclude', 'names'),
  [
    ([], ['a.png', 'a_thumb.png', 'raw/b.png', 'x/raw/c.png']),
    (['*_thumb.*'], ['a.png', 'raw/b.png', 'x/raw/c.png']),
    (['raw'], ['a.png', 'a_thumb.png']),
    (['raw/'], ['a.png', 'a_thumb.png']),
    (['raw/*'], ['a.png', 'a_thumb.png', 'x/raw/c.png']),
    (['x/raw', 'a.png'], ['a_thumb.png', 'raw/b.png']),
    (['a[._]*', './x'], ['raw/b.png']),
    ([''], ['.hidden/d.png', 'a.png', 'a_thumb.png', 'raw/b.png', 'x/raw/c.png']),
    (['', 'raw'], ['.hidden/d.png', 'a.png', 'a_thumb.png']),
  ],
)
def test_globs(root, exclude, names):
  write(root, 'a.png', 'a_thumb.png', 'raw/b.png', 'x/raw/c.png', '.hidden/d.png')
  assert listed(root, exclude=exclude) == names


def test_a_single_glob_is_no_list_of_globs(root):
  write(root, 'a.png')
  with pytest.raises(TypeError, match='exclude'):
    ImageList.from_folder(root, exclude='*.png')


# Formats

PIXELS = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))

FORMATS = {
  'JPEG': ('jpg', 'jpeg', 'jpe', 'jfif'),
  'PNG': ('png', 'apng'),
  'GIF': ('gif',),
  'WEBP': ('webp',),
  'BMP': ('bmp',),
  'TIFF': ('tif', 'tiff'),
  'PPM': ('ppm', 'pnm'),
  'JPEG2000': ('jp2', 'jpx', 'j2k'),
  'AVIF': ('avif',),
  'HEIF': ('heic', 'heif', 'hif'),
}


def save(path, form):
  path.parent.mkdir(parents=True, exist_ok=True)
  if form == 'JPEG2000' and path.suffix == '.j2k':
    Image.fromarray(PIXELS).save(path, form, no_jp2=True)
  else:
    Image.fromarray(PIXELS).save(path, form)


@pytest.mark.parametrize('form', FORMATS)
def test_every_format_is_found_under_any_name_and_decodes(root, form):
  names = [f'a.{extension}' for extension in FORMATS[form]]
  names += ['b.JPG', f'c.{FORMATS[form][0].upper()}', 'd', 'e.dat', 'f.jpg_large', 'g.txt', 'h.jpg~', 'i.mp4']
  for name in names:
    save(root / name, form)
  found = ImageList.from_folder(root)
  assert found.names == tuple(sorted(names))
  assert found.left_out == {}
  for name in names:
    assert np.abs(images.load_image(found.path(name)).astype(int) - PIXELS).mean() < 40


def test_files_without_photos_are_counted_by_kind(root):
  write(root, 'a.png')
  contents = {
    'b.txt': b'BMW, P5 and GIF are no photos',
    'c.TXT': b'',
    'd.md': b'P6 is a road\n',
    'README': b'II* is TIFF',
    'e.json': b'{}',
    'f.mp4': b'\0\0\0\x18ftypmp42\0\0\0\0mp42isom',
    'g.nef': None,
    'h.dng': None,
    'i.jpg.part': None,
    'j.fit': b'\x0e\x10\x5e\x09.FIT',
    'k.h5': b'\x89HDF\r\n\x1a\n',
    'l.pdf': b'%PDF-1.4',
    'm.eps': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n',
    'n.svg': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
  }
  for name, content in contents.items():
    if content is None:
      save(root / name, 'TIFF')
    else:
      (root / name).write_bytes(content)
  found = ImageList.from_folder(root)
  assert found.names == ('a.png',)
  assert found.left_out == {
    '.txt': 2,
    '(no extension)': 1,
    **dict.fromkeys(('.md', '.json', '.mp4', '.nef', '.dng', '.part', '.fit', '.h5', '.pdf', '.eps'), 1),
    '.svg': 1,
  }
  assert photo_listing.describe(found.left_out, most=2) == '2 .txt, 1 (no extension), 11 of other kinds'


def test_other_formats_of_pillow_are_found_by_their_extension(root):
  for name in ('a.ico', 'b.pcx', 'c.tga', 'd.sgi', 'e.psd.bak'):
    save(root / name, {'.ico': 'ICO', '.pcx': 'PCX', '.tga': 'TGA', '.sgi': 'SGI'}.get(name[1:], 'PNG'))
  (root / 'f.ico').write_bytes(b'no icon')
  found = ImageList.from_folder(root)
  assert found.names == ('a.ico', 'b.pcx', 'c.tga', 'd.sgi', 'e.psd.bak')
  assert found.left_out == {'.ico': 1}


def test_photos_by_extension_are_not_opened(root, monkeypatch):
  write(root, 'a.png', 'b.heic')
  (root / 'damaged.jpg').write_bytes(b'no photo')
  monkeypatch.setattr(photo_formats, '_accepts', None)
  assert listed(root) == ['a.png', 'b.heic', 'damaged.jpg']  # Whoever reads it reports it.


def test_a_file_that_cannot_be_read_and_whose_name_does_not_tell_is_counted(root, monkeypatch):
  write(root, 'a.png', 'b')
  monkeypatch.setattr(photo_formats, 'is_photo', lambda path: refuse() if str(path).endswith('b') else True)

  def refuse():
    raise PermissionError(13, 'Permission denied')

  found = ImageList.from_folder(root)
  assert found.names == ('a.png',)
  assert found.left_out == {'(no extension), unreadable': 1}


def test_heic_is_upright(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(PIXELS).save(tmp_path / 'a.heic', exif=exif)
  # Readers of HEIC turn by its own property, and ignore the orientation of EXIF.
  assert images.load_image(tmp_path / 'a.heic').shape == PIXELS.shape
  assert images.image_size(tmp_path / 'a.heic') == PIXELS.shape[:2]


def test_damaged_heic_is_an_error_of_the_photo(tmp_path):
  Image.fromarray(PIXELS).save(tmp_path / 'a.heic')
  data = (tmp_path / 'a.heic').read_bytes()
  (tmp_path / 'a.heic').write_bytes(data[: len(data) // 2])
  with pytest.raises(UserError, match=r'a\.heic'):
    images.load_image(tmp_path / 'a.heic')


def test_a_folder_that_may_not_be_read(root):
  write(root, 'a.png', 'locked/b.png')
  (root / 'locked').chmod(0)
  try:
    if os.access(root / 'locked', os.R_OK):
      pytest.skip('this user may read every folder')
    assert photo_listing.walk(root).unreadable == ('locked',)
    with pytest.raises(UserError, match='locked'):
      photo_listing.walk(root, strict=True)
  finally:
    (root / 'locked').chmod(0o700)
