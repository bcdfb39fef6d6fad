"""make_detection_records and make_detection_scenes: what they write, name, split, resume and refuse."""

import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from delf_d2r import config
from delf_d2r.data.artefacts import artefact_writer
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.photos import photo_state
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.scenes import composed_scenes
from delf_d2r.data.training import detection_examples, split
from delf_d2r.errors import ArtefactError, ConfigError, ImageError, UserError
from delf_d2r.stages import make_detection_records, make_detection_scenes
from delf_d2r.stages.shared.detection_writing import CONTACT_SHEET, KIND, LABEL_MAP
from delf_d2r.stages.shared.sharded import Options

ONE = Options(workers=1)
HEADER = 'image,ymin,xmin,ymax,xmax,class,group\n'


def write_photo(path, seed, size=(60, 40), **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
  Image.fromarray(pixels).resize(size).save(path, **options)


@pytest.fixture
def photos(tmp_path):
  for number in range(12):
    write_photo(tmp_path / f'photos/{number:02d}.jpg', number)
  return ImageList.from_folder(tmp_path / 'photos')


@pytest.fixture
def boxes(tmp_path):
  path = tmp_path / 'boxes.csv'
  rows = [f'{number:02d}.jpg,0.1,0.2,0.8,0.9,tower,g{number % 3}\n' for number in range(10)]
  path.write_text(HEADER + ''.join(rows))
  return path


def records_config(text=''):
  return config.load_or_default(
    None,
    ['detection_records'],
    overrides=['detection_records.validation_share: 0', f'detection_records {{ {text} }}'],
  )


def make(photos, boxes, output, text='', **arguments):
  return make_detection_records.run(
    records_config(text), photos, boxes, output, **({'options': ONE} | arguments)
  )


def examples(artefact):
  return [detection_examples.decode(record) for record in artefact.records()]


def contents(folder):
  """Bytes of all files but the manifests, which tell the time."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file() and path.suffix != '.pbtxt'
  }


# make_detection_records


def test_records_keep_the_photos_bytes_and_their_boxes(photos, boxes, tmp_path):
  made = make(photos, boxes, tmp_path / 'out')
  assert list(made) == ['train']
  found = examples(made['train'])
  assert [example.name for example in found] == [f'{number:02d}.jpg' for number in range(10)]
  assert len({example.source_id for example in found}) == 10
  for example in found:
    assert example.encoded == photos.path(example.name).read_bytes()
    assert example.image().shape == (40, 60, 3)
    np.testing.assert_allclose(example.boxes, [[0.1, 0.2, 0.8, 0.9]], rtol=1e-6)
    assert (example.labels.tolist(), example.texts) == ([1], ('landmark',))
  assert found[4].groups == ('g1',)
  assert made['train'].counts == {
    'images': 10,
    'boxes': 10,
    'without_boxes': 0,
    'other_classes': 0,
    'failed': 0,
  }
  output = tmp_path / 'out/train'
  assert (output / LABEL_MAP).read_text() == "item {\n  id: 1\n  name: 'landmark'\n}\n"
  with Image.open(output / CONTACT_SHEET) as sheet:
    assert sheet.size[0] > 1000
  assert not (output / artefact_writer.ERRORS).exists()


def test_photos_without_boxes_become_negatives_on_demand(photos, boxes, tmp_path):
  found = examples(make(photos, boxes, tmp_path / 'out', 'keep_without_boxes: true')['train'])
  assert [example.name for example in found if not len(example.boxes)] == ['10.jpg', '11.jpg']


def test_everything_that_cannot_be_used_is_named(photos, boxes, tmp_path):
  (photos.root / '01.jpg').write_bytes(photos.path('01.jpg').read_bytes()[:300])
  (photos.root / '02.jpg').write_bytes(b'')
  with open(boxes, 'a') as file:
    file.write('10.jpg,0.1,0.2,0.8,1.2,tower,\n')  # Out of range; no other box, so no negative either.
    file.write('03.jpg,0.8,0.2,0.1,0.9,tower,\n')  # Inverted; the good box of that photo is kept.
    file.write('99.jpg,0.1,0.2,0.8,0.9,tower,\n')  # No such photo.
  artefact = make(photos, boxes, tmp_path / 'out', 'keep_without_boxes: true')['train']
  names = [example.name for example in examples(artefact)]
  assert names == [f'{number:02d}.jpg' for number in (0, 3, 4, 5, 6, 7, 8, 9, 11)]
  lines = (artefact.path / artefact_writer.ERRORS).read_text().splitlines()
  errors = {line['name']: line['error'] for line in map(json.loads, lines)}
  assert sorted(errors) == ['01.jpg', '02.jpg', '03.jpg', '10.jpg', '99.jpg']
  assert 'cannot be decoded' in errors['01.jpg']
  assert 'empty' in errors['02.jpg']
  assert 'boxes.csv:13' in errors['03.jpg']
  assert 'boxes.csv:12' in errors['10.jpg']
  assert "'99.jpg' is not among the 12 photos" in errors['99.jpg']
  assert artefact.counts['failed'] == 5
  assert artefact.counts['without_boxes'] == 1


@pytest.mark.parametrize('row', ['03.jpg,0.8,0.2,0.1,0.9', '99.jpg,0.1,0.2,0.8,0.9'])
def test_strict_stops_at_the_first_error(photos, boxes, tmp_path, row):
  with open(boxes, 'a') as file:
    file.write(f'{row},tower,\n')
  with pytest.raises(ImageError, match=r'boxes\.csv:12: .*stopped, because of --strict'):
    make(photos, boxes, tmp_path / 'out', options=Options(workers=1, strict=True))


def test_nothing_usable_leaves_nothing_behind(photos, tmp_path):
  path = tmp_path / 'boxes.csv'
  path.write_text(HEADER + '01.jpg,0.8,0.2,0.1,0.9,,\n')
  with pytest.raises(
    UserError, match=r'none of the 1 detection records \(train\) could be read: .*boxes.csv:2'
  ):
    make(photos, path, tmp_path / 'out')
  assert not list((tmp_path / 'out/train').iterdir())


def test_classes_are_numbered_in_order_and_others_left_out(photos, tmp_path):
  path = tmp_path / 'boxes.csv'
  path.write_text(
    HEADER + '00.jpg,0,0,0.5,1,door,\n00.jpg,0,0,1,1,tower,\n00.jpg,0,0,0.2,1,tree,\n01.jpg,0,0,1,1,tree,\n'
  )
  artefact = make(photos, path, tmp_path / 'out', 'classes: "tower" classes: "door"')['train']
  (example,) = examples(artefact)
  assert (example.labels.tolist(), example.texts) == ([2, 1], ('door', 'tower'))
  assert artefact.counts['other_classes'] == 2
  assert "id: 2\n  name: 'door'" in (artefact.path / LABEL_MAP).read_text()


@pytest.mark.parametrize(
  'name, options',
  [
    ('turned.jpg', {'exif': Image.Exif()}),
    ('alpha.png', {}),
    ('palette.gif', {}),
    ('large.jpg', {'size': (200, 100)}),
  ],
)
def test_photos_that_tensorflow_would_not_read_alike_are_encoded_anew(tmp_path, name, options):
  path = tmp_path / 'photos' / name
  if 'exif' in options:
    options['exif'][0x0112] = 6
  write_photo(path, 0, **options)
  if name == 'alpha.png':
    Image.open(path).convert('RGBA').save(path)
  boxes = tmp_path / 'boxes.csv'
  boxes.write_text(f'{HEADER}{name},0,0,1,1,,\n')
  photos = ImageList.from_folder(tmp_path / 'photos')
  (example,) = examples(make(photos, boxes, tmp_path / 'out', 'max_image_size: 100')['train'])
  size = {'turned.jpg': (60, 40), 'large.jpg': (50, 100)}.get(name, (40, 60))
  assert example.format == 'jpeg'
  assert example.image().shape[:2] == size
  assert Image.open(io.BytesIO(example.encoded)).getexif().get(0x0112, 1) == 1


def test_groups_stay_together_and_parts_are_disjoint(photos, boxes, tmp_path):
  made = make(photos, boxes, tmp_path / 'out', 'validation_share: 0.5 seed: 1')
  groups = {part: {group for example in examples(made[part]) for group in example.groups} for part in made}
  assert groups['train']
  assert groups['validation']
  assert not groups['train'] & groups['validation']
  assert made['train'].counts['images'] + made['validation'].counts['images'] == 10
  by_photo = make(photos, boxes, tmp_path / 'by_photo', 'validation_share: 0.5 split_by_group: false')
  mixed = [{group for example in examples(by_photo[part]) for group in example.groups} for part in by_photo]
  assert mixed[0] & mixed[1]


def test_no_photo_left_to_train_on(photos, boxes, tmp_path):
  boxes.write_text(HEADER + '00.jpg,0,0,1,1,,g\n01.jpg,0,0,1,1,,g\n')
  seed = next(seed for seed in range(64) if split.in_validation('g', share=0.5, seed=seed))
  with pytest.raises(UserError, match='no photo is left to train on; 2 are for validation'):
    make(photos, boxes, tmp_path / 'out', f'validation_share: 0.5 seed: {seed}')
  assert not (tmp_path / 'out').exists()


def test_second_file_of_boxes_validates(photos, tmp_path):
  first, second = tmp_path / 'boxes_split1.csv', tmp_path / 'boxes_split2.csv'
  first.write_text('id,box\n00,0 0 1 1\n01,0 0 0.5 0.5\n')
  second.write_text('id,box\n02,0 0 1 1\n')
  landmarks = tmp_path / 'train.csv'
  landmarks.write_text('id,url,landmark_id\n00,u,7\n01,u,7\n02,u,9\n')
  made = make(photos, first, tmp_path / 'out', validation_boxes_path=second, landmarks_path=landmarks)
  names = {part: [(e.name, e.groups) for e in examples(made[part])] for part in made}
  assert names == {
    'train': [('00.jpg', ('7',)), ('01.jpg', ('7',))],
    'validation': [('02.jpg', ('9',))],
  }
  ids = [example.source_id for part in made for example in examples(made[part])]
  assert len(set(ids)) == 3
  second.write_text('id,box\n00,0 0 1 1\n')
  with pytest.raises(
    UserError, match=r"1 photos have boxes in .*boxes_split1\.csv too, for example '00\.jpg'"
  ):
    make(photos, first, tmp_path / 'other', validation_boxes_path=second)


def test_finished_work_is_not_done_again_and_another_config_is_refused(photos, boxes, tmp_path, monkeypatch):
  make(photos, boxes, tmp_path / 'out')
  monkeypatch.setattr(make_detection_records, '_read', None)
  make(photos, boxes, tmp_path / 'out')
  with pytest.raises(ArtefactError, match=r'detection_records\.jpeg_quality is 90 there, 80 here'):
    make(photos, boxes, tmp_path / 'out', 'jpeg_quality: 80')
  with open(boxes, 'a') as file:
    file.write('11.jpg,0,0,1,1,,\n')
  with pytest.raises(ArtefactError, match='input boxes is'):
    make(photos, boxes, tmp_path / 'out')


class Killed(Exception):
  """What the test does to a run."""


def test_interrupted_work_goes_on_and_gives_the_same_bytes(photos, boxes, tmp_path, monkeypatch):
  text = 'images_per_shard: 3'
  make(photos, boxes, tmp_path / 'whole', text)
  original, seen = make_detection_records._read, []

  def encoded(path, settings):
    if len(seen) == 7:
      raise Killed
    seen.append(path.name)
    return original(path, settings)

  monkeypatch.setattr(make_detection_records, '_read', encoded)
  with pytest.raises(Killed):
    make(photos, boxes, tmp_path / 'out', text)
  with pytest.raises(ArtefactError, match='no finished artefact'):
    Artefact.open(tmp_path / 'out/train', KIND)
  seen.clear()
  make(photos, boxes, tmp_path / 'out', text)
  assert seen == ['06.jpg', '07.jpg', '08.jpg', '09.jpg']
  assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')


def test_mended_photo_is_taken_in(photos, boxes, tmp_path):
  whole = photos.path('01.jpg').read_bytes()
  photos.path('01.jpg').write_bytes(whole[:300])
  assert len(examples(make(photos, boxes, tmp_path / 'out')['train'])) == 9
  assert len(examples(make(photos, boxes, tmp_path / 'out')['train'])) == 9
  with pytest.raises(ImageError, match=r'01\.jpg.*--strict'):
    make(photos, boxes, tmp_path / 'out', options=Options(workers=1, strict=True))
  photos.path('01.jpg').write_bytes(whole)
  photos = ImageList.from_folder(photos.root)
  found = make(photos, boxes, tmp_path / 'out')['train']
  assert [example.name for example in examples(found)] == [f'{number:02d}.jpg' for number in range(10)]
  assert found.counts['failed'] == 0


def test_record_has_the_bytes_that_were_decoded(photos, boxes, tmp_path, monkeypatch):
  """A photo that is replaced after its decoding is read again: boxes and bytes belong together."""
  load = photo_state.read

  def replacing(path):
    found = load(path)
    if pathlib.Path(path).name == '01.jpg':
      monkeypatch.undo()
      write_photo(path, 99, (90, 30))
    return found

  monkeypatch.setattr(photo_state, 'read', replacing)
  found = {example.name: example for example in examples(make(photos, boxes, tmp_path / 'out')['train'])}
  assert found['01.jpg'].encoded == photos.path('01.jpg').read_bytes()
  assert (found['01.jpg'].height, found['01.jpg'].width) == (30, 90)


# make_detection_scenes


@pytest.fixture
def material(tmp_path):
  for number in range(8):
    write_photo(tmp_path / f'objects/thing_{number}/a.jpg', number)
    write_photo(tmp_path / f'backgrounds/{number}.jpg', 100 + number, (90, 60))
  return ImageList.from_folder(tmp_path / 'objects'), [ImageList.from_folder(tmp_path / 'backgrounds')]


def compose(material, output, text='', **arguments):
  loaded = config.load_or_default(
    None,
    ['detection_scenes'],
    overrides=[
      'detection_scenes { num_scenes: 20 image_size: 64 validation_share: 0.25 }',
      f'detection_scenes {{ {text} }}',
    ],
  )
  return make_detection_scenes.run(loaded, *material, output, **({'options': ONE} | arguments))


def test_scenes_of_both_parts_share_no_object(material, tmp_path):
  made = compose(material, tmp_path / 'out')
  assert {part: made[part].counts['images'] for part in made} == {'train': 15, 'validation': 5}
  groups = [{group for example in examples(made[part]) for group in example.groups} for part in made]
  assert groups[0]
  assert groups[1]
  assert not groups[0] & groups[1]
  names = [example.name for part in made for example in examples(made[part])]
  assert names == [f'scene_{number:06d}.jpg' for number in range(20)]
  assert all(max(example.image().shape) == 64 for part in made for example in examples(made[part]))
  counts = made['train'].counts
  assert sum(counts.get(f'{kind}_scenes', 0) for kind in ('background', 'photo', 'pasted')) == 15
  assert counts['boxes'] == sum(len(example.boxes) for example in examples(made['train']))
  assert (tmp_path / 'out/train' / CONTACT_SHEET).is_file()


@pytest.mark.slow
def test_scenes_do_not_depend_on_workers_and_shards_add_up(material, tmp_path):
  text = 'validation_share: 0 scenes_per_shard: 6'
  first = compose(material, tmp_path / 'one', text)
  again = compose(material, tmp_path / 'two', text, options=Options(workers=2))
  assert list(first) == ['train']
  assert len(list((tmp_path / 'one/train').glob('*.tfrecord'))) == 4
  assert contents(tmp_path / 'one') == contents(tmp_path / 'two')
  assert [a.name for a in examples(first['train'])] == [a.name for a in examples(again['train'])]


def test_interrupted_scenes_go_on_and_give_the_same_bytes(material, tmp_path, monkeypatch):
  text = 'validation_share: 0 scenes_per_shard: 6'
  compose(material, tmp_path / 'whole', text)
  original, seen = composed_scenes.compose, []

  def dying(material, settings, number):
    if len(seen) == 14:
      raise Killed
    seen.append(number)
    return original(material, settings, number)

  monkeypatch.setattr(composed_scenes, 'compose', dying)
  with pytest.raises(Killed):
    compose(material, tmp_path / 'out', text)
  seen.clear()
  compose(material, tmp_path / 'out', text)
  assert seen == list(range(12, 20))
  assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')


def test_photos_that_cannot_be_used_are_named_once_and_not_composed_of(material, tmp_path):
  objects, backgrounds = material
  (objects.root / 'thing_0/a.jpg').write_bytes(b'no photo')
  (backgrounds[0].root / '1.jpg').write_bytes(b'')
  artefact = compose(material, tmp_path / 'out', 'validation_share: 0')['train']
  lines = (artefact.path / artefact_writer.ERRORS).read_text().splitlines()
  assert [json.loads(line)['name'] for line in lines] == ['thing_0/a.jpg', '1.jpg']
  assert artefact.counts['images'] == 20
  assert 'thing_0' not in {group for example in examples(artefact) for group in example.groups}
  with pytest.raises(ImageError, match='stopped, because of --strict'):
    compose(material, tmp_path / 'strict', options=Options(workers=1, strict=True))


def test_only_boxed_photos_are_objects_where_there_are_boxes(material, tmp_path):
  boxes = tmp_path / 'boxes.csv'
  boxes.write_text(
    f'{HEADER}thing_1/a.jpg,0.2,0.2,0.8,0.8,,arch\nthing_2/a.jpg,0,0,1,2,,\nnowhere.jpg,0,0,1,1,,\n'
  )
  artefact = compose(material, tmp_path / 'out', 'validation_share: 0', boxes_path=boxes)['train']
  assert {group for example in examples(artefact) for group in example.groups} == {'arch'}
  lines = (artefact.path / artefact_writer.ERRORS).read_text().splitlines()
  assert [json.loads(line)['name'] for line in lines] == ['thing_2/a.jpg', 'nowhere.jpg']


def test_part_without_material_is_refused(material, tmp_path):
  objects, backgrounds = material
  one = ImageList(objects.root, objects.names[:1])
  with pytest.raises(
    UserError, match=r'(train|validation): there must be an object and a background, found 0 ph'
  ):
    compose((one, backgrounds), tmp_path / 'out')
  (objects.root / objects.names[0]).write_bytes(b'')
  with pytest.raises(UserError, match='train: there must be an object and a background'):
    compose((one, backgrounds), tmp_path / 'none', 'validation_share: 0')


# Configs and binaries


@pytest.mark.parametrize(
  'stage, text, message',
  [
    ('detection_records', 'jpeg_quality: 0', r'jpeg_quality is 0; it must be in \[1, 100\]'),
    ('detection_records', 'validation_share: 1', r'validation_share is 1; it must be in \[0, 0\.99\]'),
    ('detection_records', 'classes: "a" classes: "a"', 'give distinct names'),
    ('detection_scenes', 'num_scenes: 0', 'num_scenes is 0; it must be at least 1'),
    ('detection_scenes', 'min_scale: 0.9', r'min_scale 0\.9 is larger than max_scale 0\.8'),
    ('detection_scenes', 'min_objects: 4', 'min_objects 4 is larger than max_objects 3'),
    ('detection_scenes', 'background_share: 0.6 photo_share: 0.5', r'add up to 1\.1; at most 1'),
    ('detection_scenes', 'max_noise: nan', 'max_noise is nan'),
  ],
)
def test_configs_that_make_no_sense_are_refused(stage, text, message):
  with pytest.raises(ConfigError, match=message):
    config.load_or_default(None, [stage], overrides=[f'{stage} {{ {text} }}'])


@pytest.mark.slow
@pytest.mark.parametrize('tool', ['make_detection_records', 'make_detection_scenes'])
def test_binaries_explain_themselves_and_work(photos, boxes, material, tmp_path, tool):
  command = [sys.executable, '-m', f'delf_d2r.tools.{tool}']
  help_text = subprocess.run([*command, '--help'], capture_output=True, text=True, check=True).stdout
  assert '--override' in help_text
  assert '--strict' in help_text
  if tool == 'make_detection_records':
    arguments = [f'--images={photos.root}', f'--boxes={boxes}']
  else:
    arguments = [f'--objects={material[0].root}', f'--backgrounds={material[1][0].root}']
    arguments += ['--override=detection_scenes { num_scenes: 4 image_size: 64 validation_share: 0 }']
  process = subprocess.run(
    [*command, *arguments, f'--output={tmp_path / "out"}', '--workers=1'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert process.returncode == 0, process.stderr
  assert Artefact.open(tmp_path / 'out/train', KIND).counts['images'] > 0


def test_coco_boxes_of_another_size_than_the_photo_are_named_and_left_out(tmp_path):
  # The same boxes upright, of the stored frame, with width and height swapped, and of another photo.
  exif = Image.Exif()
  exif[0x0112] = 6
  write_photo(tmp_path / 'photos/phone.jpg', 0, size=(40, 60), exif=exif)
  write_photo(tmp_path / 'photos/plain.jpg', 1)
  photos = ImageList.from_folder(tmp_path / 'photos')

  def failures(name, width, height, bbox):
    path = tmp_path / f'{name}.json'
    images = [
      {'id': 1, 'file_name': 'phone.jpg', 'width': width, 'height': height},
      {'id': 2, 'file_name': 'plain.jpg', 'width': 60, 'height': 40},
    ]
    annotations = [
      {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': bbox},
      {'id': 2, 'image_id': 2, 'category_id': 1, 'bbox': [6, 4, 24, 16]},
    ]
    categories = [{'id': 1, 'name': 'tower'}]
    path.write_text(json.dumps({'images': images, 'annotations': annotations, 'categories': categories}))
    made = make(photos, path, tmp_path / name)['train']
    for example in examples(made):
      assert example.boxes.round(5).tolist() == [[pytest.approx(value) for value in (0.1, 0.1, 0.5, 0.5)]]
    return {error['name']: error['error'] for error in artefact_writer.read_errors(made)}

  assert failures('upright', 60, 40, [6, 4, 24, 16]) == {}
  assert 'swapped' in failures('stored', 40, 60, [4, 30, 16, 24])['phone.jpg']
  assert 'swapped' in failures('swapped', 40, 60, [6, 4, 24, 16])['phone.jpg']
  assert '100 x 100' in failures('other', 100, 100, [6, 4, 24, 16])['phone.jpg']


def test_mended_source_of_scenes_is_taken_in(material, tmp_path):
  objects, backgrounds = material
  # Its first and last 4 KiB are those of the whole one.
  write_photo(objects.path(objects.names[0]), 0, (600, 400), quality=100)
  path = objects.path(objects.names[0]).rename(objects.root / 'thing_0' / 'b.png')
  Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(path)
  whole = path.read_bytes()
  broken = bytearray(whole)
  broken[len(whole) // 2] ^= 0xFF
  path.write_bytes(broken)

  def failed():
    lists = ImageList.from_folder(objects.root), [ImageList.from_folder(backgrounds[0].root)]
    return sum(artefact.counts['failed'] for artefact in compose(lists, tmp_path / 'out').values())

  assert (failed(), failed()) == (1, 1)
  path.write_bytes(whole)
  assert (failed(), failed()) == (0, 0)
