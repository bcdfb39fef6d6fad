"""The photos of a folder: which, in what order, under what names."""

import errno
import os
import shutil

import pytest
from absl import logging

from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.errors import UserError


@pytest.fixture
def folder(tmp_path):
  """Makes a folder of files with their own name as content."""

  def make(*names, root='pho tos'):
    for name in names:
      path = tmp_path / root / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(name.encode('utf-8', 'surrogateescape'))
    return tmp_path / root

  return make


def test_same_name_in_two_folders_is_two_photos(folder):
  images = ImageList.from_folder(folder('b/1.jpg', 'a/1.jpg', '1.jpg'))
  assert images.names == ('1.jpg', 'a/1.jpg', 'b/1.jpg')
  assert len(images) == 3
  assert images.path('b/1.jpg').read_bytes() == b'b/1.jpg'


def test_photos_are_known_by_extension_in_either_case(folder):
  images = ImageList.from_folder(folder('a.JPG', 'b.Png', 'c.jpeg', 'd.txt', 'e', 'f.jpg.part', 'jpg'))
  assert images.names == ('a.JPG', 'b.Png', 'c.jpeg')


def test_names_with_spaces_and_letters_of_all_alphabets(folder):
  names = ('my photo (1).jpg', '\u5bfa/\u00fc#%.jpg', "it's.png")
  assert ImageList.from_folder(folder(*names)).names == tuple(sorted(names))


def test_hidden_files_and_folders_are_left_out(folder):
  images = ImageList.from_folder(folder('a.jpg', '.b.jpg', '.thumbnails/c.jpg', 'd/.e/f.jpg', '._a.jpg'))
  assert images.names == ('a.jpg',)


def test_order_is_that_of_the_names_not_of_the_file_system(folder):
  names = ['b-1.jpg', 'b/1.jpg', 'b.jpg', 'B.jpg', 'a10.jpg', 'a2.jpg']
  assert list(ImageList.from_folder(folder(*names)).names) == sorted(names)


def test_root_may_be_written_in_any_way(folder, monkeypatch):
  root = folder('a/1.jpg')
  monkeypatch.chdir(root)
  for text in ('.', './', 'a/..', f'{root}/', str(root)):
    assert ImageList.from_folder(text).names == ('a/1.jpg',)


def test_linked_folders_are_followed_but_not_in_circles(folder, tmp_path):
  root = folder('a/1.jpg')
  other = folder('2.jpg', root='other')
  (root / 'linked').symlink_to(other)
  (root / 'a' / 'up').symlink_to(root)
  (root / 'self').symlink_to(root / 'self')
  assert ImageList.from_folder(root).names == ('a/1.jpg', 'linked/2.jpg')
  (tmp_path / 'link').symlink_to(root)
  assert ImageList.from_folder(tmp_path / 'link').names == ('a/1.jpg', 'linked/2.jpg')


# What is refused


def test_no_such_folder(folder):
  root = folder('a.jpg')
  for path in (root / 'nothing', root / 'a.jpg'):
    with pytest.raises(UserError, match=r'no such folder of photos\. Check the path'):
      ImageList.from_folder(path)


def test_empty_folder(tmp_path):
  (tmp_path / 'pho tos' / 'sub').mkdir(parents=True)
  with pytest.raises(UserError, match=r'pho tos: the folder is empty\. Give one with photos'):
    ImageList.from_folder(tmp_path / 'pho tos')


def test_folder_of_hidden_photos_says_so(folder):
  with pytest.raises(UserError, match=r'no photos in it \(found files of type 1 excluded by \.\*'):
    ImageList.from_folder(folder('.hidden.jpg'))


def test_folder_without_photos_says_what_is_there(folder):
  root = folder('a.txt', 'b.txt', 'README', 'c.svg')
  with pytest.raises(
    UserError, match=r'found files of type 2 \.txt, 1 \(no extension\), 1 \.svg; photos are .*\.jpg'
  ):
    ImageList.from_folder(root)


def test_name_that_is_no_utf8_is_left_out_with_a_warning(folder, monkeypatch):
  warnings = []
  monkeypatch.setattr(logging, 'warning', lambda text, *values: warnings.append(text % values))
  bad = os.fsdecode(b'\xff.jpg')
  try:
    root = folder('a.jpg', bad, f'{os.fsdecode(bytes([0xE9]))}/b.jpg')
  except OSError:
    pytest.skip('this file system supports UTF-8 names only')
  assert ImageList.from_folder(root).names == ('a.jpg',)
  assert len(warnings) == 2
  assert 'is not valid UTF-8; rename the photo' in warnings[0]
  (root / 'a.jpg').unlink()
  with pytest.raises(UserError, match=r'2 \.jpg with a name that is not UTF-8'):
    ImageList.from_folder(root)


def test_folder_that_cannot_be_read(folder, monkeypatch):
  root = folder('a.jpg', 'locked/b.jpg')
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith('locked'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  images = ImageList.from_folder(root)
  assert images.names == ('a.jpg',)
  assert images.left_out == {'unreadable folder': 1}
  with pytest.raises(
    UserError,
    match=r'locked: cannot be read \(Permission denied\)\. Check the permissions \(stopped, because',
  ):
    ImageList.from_folder(root, strict=True)
  with pytest.raises(
    UserError, match=r'locked: cannot be read \(Permission denied\)\. Check the permissions$'
  ):
    ImageList.from_folder(root / 'locked')


@pytest.mark.parametrize('number', [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_folder_that_cannot_be_read_for_a_moment_stops(folder, monkeypatch, number):
  root = folder('a.jpg', 'locked/b.jpg')
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith('locked'):
      raise OSError(number, os.strerror(number), str(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(UserError, match='locked: cannot be read'):
    ImageList.from_folder(root)


# Selecting


def test_select_keeps_the_wanted_order_and_may_repeat(folder):
  images = ImageList.from_folder(folder('a/1.jpg', 'a/2.jpg', 'b/3.jpg'))
  assert images.select(['3', 'a/1.jpg', '3'], source='list').names == ('b/3.jpg', 'a/1.jpg', 'b/3.jpg')
  assert images.select([], source='list').names == ()


def test_select_refuses_what_is_missing_or_ambiguous(folder):
  images = ImageList.from_folder(folder('a/1.jpg', 'b/1.jpg'))
  with pytest.raises(UserError, match=r"^list: 1 named images are not among the 2 photos: 'x\.jpg'"):
    images.select(['x.jpg'], source='list')
  with pytest.raises(UserError, match=r"^list: '1\.jpg' matches 2 photos"):
    images.select(['1.jpg'], source='list')


# Fingerprint


def fingerprint(root):
  return ImageList.from_folder(root).fingerprint


def test_fingerprint_stays_when_the_folder_moves_or_is_copied(folder, tmp_path):
  root = folder('a/1.jpg', '2.png')
  before = fingerprint(root)
  shutil.copytree(root, tmp_path / 'copy')
  root.rename(tmp_path / 'moved')
  os.utime(tmp_path / 'moved' / '2.png', (0, 0))
  assert fingerprint(tmp_path / 'copy') == fingerprint(tmp_path / 'moved') == before


@pytest.mark.parametrize('size', [1, 4096, 4097, 100_000])
def test_fingerprint_changes_with_head_tail_and_size(folder, size):
  root = folder('a.jpg')
  content = bytearray(size)
  seen = set()
  for change in (lambda: None, lambda: content.__setitem__(0, 1), lambda: content.__setitem__(-1, 2)):
    change()
    (root / 'a.jpg').write_bytes(content)
    seen.add(fingerprint(root))
  (root / 'a.jpg').write_bytes(content + b'\0')
  seen.add(fingerprint(root))
  assert len(seen) == 4


def test_fingerprint_changes_in_the_middle_of_an_uncompressed_photo(folder):
  root = folder('a.bmp')
  content = bytearray(100_000)
  (root / 'a.bmp').write_bytes(content)
  before = fingerprint(root)
  content[50_000] = 1
  (root / 'a.bmp').write_bytes(content)
  assert fingerprint(root) != before


def test_fingerprint_changes_with_names(folder):
  root = folder('a.jpg', 'b.jpg')
  before = fingerprint(root)
  (root / 'b.jpg').rename(root / 'c.jpg')
  renamed = fingerprint(root)
  (root / 'c.jpg').unlink()
  assert len({before, renamed, fingerprint(root)}) == 3


def test_unreadable_photo_has_a_fingerprint(folder):
  root = folder('a.jpg')
  (root / 'b.jpg').symlink_to(root / 'nowhere')
  images = ImageList.from_folder(root)
  assert images.names == ('a.jpg', 'b.jpg')  # The extraction will count and name it.
  assert images.fingerprint != fingerprint(folder('a.jpg', root='other'))
  assert images.as_input().role == 'images'
  assert images.as_input().path == root.resolve()
