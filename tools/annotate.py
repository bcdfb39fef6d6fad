"""Serves a web page that draws one box on each photo of a folder.

  d2r annotate --images=DIR --output=boxes.csv
  d2r make_detection_records --images=DIR --boxes=boxes.csv --output=RECORDS

The boxes are what a detector for objects of one's own is trained from. Every box is saved as soon as it is
drawn, as image,ymin,xmin,ymax,xmax; the same command goes on where it was left. Photos said to show no object
are named in boxes.csv.no_object.json.
"""

from absl import flags

from delf_d2r import command_line
from delf_d2r.data.photos.image_list import ImageList

flags.DEFINE_string('images', None, 'Folder of photos, subfolders included.', required=True)
flags.DEFINE_string('output', None, 'CSV file of the boxes; made if missing, else taken up.', required=True)
flags.DEFINE_string('host', '127.0.0.1', 'Address to bind to. 0.0.0.0 lets other machines in.')
flags.DEFINE_integer('port', 8766, 'Port; 0 takes a free one.', lower_bound=0, upper_bound=65535)
FLAGS = flags.FLAGS


def main(_):
  # Here, so that --help needs nothing of it.
  from delf_d2r.serving import server
  from delf_d2r.serving.annotations import Annotations
  from delf_d2r.serving.app import create_app
  from delf_d2r.serving.options import Options

  annotations = Annotations(ImageList.from_folder(FLAGS.images), FLAGS.output)
  options = Options(allowed_hosts=server.allowed_hosts(FLAGS.host))
  app = create_app(None, options, annotations=annotations)
  server.run(app, host=FLAGS.host, port=FLAGS.port)


if __name__ == '__main__':
  command_line.run(main)
