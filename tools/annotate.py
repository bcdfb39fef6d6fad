"""Serves a web page for drawing one box on each photo of a folder.

  d2r annotate --images=DIR --output=boxes.csv
  d2r make_detection_records --images=DIR --boxes=boxes.csv --output=RECORDS

A detector for objects of your own is trained on such boxes. Every box is saved at once, as
image,ymin,xmin,ymax,xmax; the same command continues where it was stopped. Photos that are labelled as
showing no object are named in boxes.csv.no_object.json.
"""

from absl import flags

from delf_d2r import command_line, common_flags

flags.DEFINE_string('images', None, 'Folder of photos, subfolders included.', required=True)
common_flags.define_exclude()
flags.DEFINE_string('output', None, 'CSV file of the boxes; made if missing, else extended.', required=True)
common_flags.define_address(8766)
FLAGS = flags.FLAGS


def main(_):
  # Imported late, so that --help does not need the libraries of the server.
  from delf_d2r.serving import server

  server.annotate(
    FLAGS.images,
    FLAGS.output,
    host=FLAGS.host,
    port=FLAGS.port,
    allowed_hosts=FLAGS.allowed_hosts,
    exclude=FLAGS.exclude,
  )


if __name__ == '__main__':
  command_line.run(main)
