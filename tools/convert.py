r"""Converts files of the tensorflow/models DELF code into artefacts and back.

  d2r convert --input=k65536_codebook_tfckpt/codebook --config_path=delf_gld_config.pbtxt \
    --output=out/codebook
  d2r convert --input=index_0.1 --mapping=index_mapping_0.1.csv --boxes=boxes --images=photos \
    --config_path=delf_gld_config.pbtxt --output=out/features
  d2r convert --input=query --queries --images=photos --ground_truth=gnd_roxford5k.mat \
    --config_path=delf_gld_config.pbtxt --output=out/query_features
  d2r convert --input=aggregation/index_0.1 --codebook=out/codebook --images=photos --output=out/descriptors
  d2r convert --input=out/features --output=delf_files
  d2r convert --input=out/features --to=hdf5 --output=features.h5
  d2r convert --input=out/reranked --to=hdf5 --output=matches.h5
  d2r convert --input=out/reranked --to=pairs --output=pairs.txt
  d2r convert --input=mean.datum --output=mean.npy

--to also exports NPZ, and HDF5 for hloc. The kind of --input is detected:

  artefacts of features, boxes, descriptors, codebook   .delf, .boxes, .vlad .asmk .asmk_star .rvlad .rasmk
                                                        .rasmk_star, checkpoint; --to for other forms
  an artefact of metrics                                metrics.txt
  rankings; of rerank_results                           --to=pairs; also --to=hdf5: matches
  folders of those files, checkpoints                   the artefacts
  .datum, .delf, metrics.txt                            .npy, .npz, .json, and back; for .datum also folders

The files of --to=hdf5 and --to=pairs are those of hloc, which reads photos as they are stored: if EXIF turns
some of them, extract features with --override='extraction.apply_exif_orientation: false'.

A conversion that was stopped continues when it is run again; other contents at --output are refused.
"""

from absl import flags

from delf_d2r import command_line
from delf_d2r.conversion import run

flags.DEFINE_string('input', None, 'A file, a folder of files, a checkpoint or an artefact.', required=True)
flags.DEFINE_string('output', None, 'File or folder to write; for a checkpoint its prefix.', required=True)
flags.DEFINE_enum(
  'to', run.LEGACY, run.FORMS, 'Form that an artefact is converted to; research_tf1 is for codebooks.'
)
flags.DEFINE_string('images', None, 'Folder of the photos that the files belong to.')
flags.DEFINE_string('ground_truth', None, "Queries: .json, or Revisited's gnd_*.pkl or .mat.")
flags.DEFINE_string('query_images', None, 'Folder of the query photos; that of --images by default.')
flags.DEFINE_bool('queries', False, 'The .delf files are those of the queries of --ground_truth.')
flags.DEFINE_string(
  'config_path',
  None,
  'Config that the features were made with: a delf_config of the tensorflow/models DELF code, or an'
  ' ExtractionConfig.',
)
flags.DEFINE_multi_string('override', [], "Change a field: 'extraction.max_features: 500'. Repeatable.")
flags.DEFINE_string(
  'mapping',
  None,
  'CSV file of the tensorflow/models DELF code that lists the regions; without it only whole images are'
  ' read.',
)
flags.DEFINE_string('boxes', None, 'Folder of the .boxes files of --mapping; --input by default.')
flags.DEFINE_string('codebook', None, 'Artefact of the codebook that the descriptors were aggregated with.')
flags.DEFINE_bool('redo', False, 'Replace the contents of --output instead of refusing.')
FLAGS = flags.FLAGS


def main(_):
  options = run.Options(
    FLAGS.to,
    FLAGS.images,
    FLAGS.ground_truth,
    FLAGS.query_images,
    FLAGS.queries,
    FLAGS.config_path,
    FLAGS.override,
    FLAGS.mapping,
    FLAGS.boxes,
    FLAGS.codebook,
    FLAGS.redo,
  )
  run.run(FLAGS.input, FLAGS.output, options)
  print(FLAGS.output)


if __name__ == '__main__':
  command_line.run(main)
