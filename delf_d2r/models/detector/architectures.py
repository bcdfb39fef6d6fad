"""RetinaNet and Faster R-CNN of tf-models-official behind one interface: targets, losses and detections.

Boxes are `[ymin, xmin, ymax, xmax]` in pixels of the square that the network sees. Class 0 is the background.
"""

import tensorflow as tf

from delf_d2r.models.detector import detector_backbones, model_garden, sampling
from delf_d2r.protos import detector_pb2

CLASSES = ('landmark',)
LANDMARK = 1
# Number of best boxes that are compared with each other, as in Lin et al.; comparing the official 5,000 takes
# twice as long as EfficientNet-Lite0 itself.
_CANDIDATES = 1000

Config = detector_pb2.DetectorModelConfig
Losses = detector_pb2.DetectorLossConfig


def build(config: Config, losses: Losses, *, synchronized: bool = False):
  """Returns the network of a config, of random weights, with its targets, losses and detections.

  Args:
    config: a resolved DetectorModelConfig.
    losses: how its losses are weighted.
    synchronized: batch normalisation over all replicas.

  Raises:
    UserError: tf-models-official is not installed.
  """
  kind = RetinaNet if config.architecture == Config.RETINANET else FasterRcnn
  return kind(config, losses, synchronized=synchronized)


class _Architecture:
  """The part that both architectures have in common.

  Attributes:
    network: the model of tf_keras; its part `backbone` is one too.
    anchors: boxes [h, w, 4 A] of each level, by its name.
  """

  def __init__(self, config: Config, task):
    self._config = config
    self._task = task
    self.network = task.build_model()
    side = config.image_size
    self.anchors = model_garden.load('ops.anchor').build_anchor_generator(
      config.min_level, config.max_level, **_anchors(config), anchor_size=config.anchor_size
    )((side, side))

  def detect(self, images: tf.Tensor, shapes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the boxes that the network finds.

    Args:
      images: float32 [B, S, S, 3], normalised.
      shapes: float32 [B, 2], height and width of the photo in its square, in pixels.

    Returns:
      `boxes` float32 [B, n, 4] within the photo, `scores` float32 [B, n], descending, `counts` int32 [B]: the
      number of the n that are found; the others are zero.
    """
    found = self.network(
      images, image_shape=shapes, anchor_boxes=self._tiled_anchors(tf.shape(images)[0]), training=False
    )
    return {
      'boxes': tf.cast(found['detection_boxes'], tf.float32),
      'scores': tf.cast(found['detection_scores'], tf.float32),
      'counts': found['num_detections'],
    }

  def _tiled_anchors(self, count: tf.Tensor) -> dict[str, tf.Tensor]:
    return {level: tf.tile(boxes[None], (count, 1, 1, 1)) for level, boxes in self.anchors.items()}


class RetinaNet(_Architecture):
  """Anchors are classified and regressed at once (Lin et al., ICCV 2017)."""

  def __init__(self, config: Config, losses: Losses, *, synchronized: bool):
    configs = model_garden.load('configs.retinanet')
    model = configs.RetinaNet(
      **_shared_parts(config, synchronized),
      anchor=configs.Anchor(**_anchors(config), anchor_size=config.anchor_size),
      head=configs.RetinaNetHead(
        num_convs=config.head_convs,
        num_filters=config.head_filters,
        use_separable_conv=config.separable_convs,
      ),
      detection_generator=configs.DetectionGenerator(**_detections(config)),
    )
    weights = configs.Losses(
      focal_loss_alpha=losses.focal_alpha,
      focal_loss_gamma=losses.focal_gamma,
      box_loss_weight=losses.box_weight,
    )
    task_config = configs.RetinaNetTask(model=model, losses=weights)
    super().__init__(config, model_garden.load('tasks.retinanet').RetinaNetTask(task_config))
    self._labeler = model_garden.load('ops.anchor').AnchorLabeler()

  def targets(self, boxes: tf.Tensor, seed: tf.Tensor) -> dict:
    """Returns the targets of the losses of one photo, from its boxes [R, 4]; nothing is random."""
    del seed
    labels = tf.fill((tf.shape(boxes)[0], 1), LANDMARK)
    classes, offsets, _, class_weights, box_weights = self._labeler.label_anchors(self.anchors, boxes, labels)
    return {
      'cls_targets': dict(classes),
      'box_targets': dict(offsets),
      'cls_weights': class_weights,
      'box_weights': box_weights,
    }

  def losses(self, batch) -> dict[str, tf.Tensor]:
    """Returns the `loss` of a batch and its parts; the mean over the replicas is that of the whole batch."""
    targets = batch['targets']
    outputs = _float32(self.network(batch['images'], training=True))
    _, class_loss, box_loss, loss = self._task.build_losses(outputs, targets)
    # These are sums over a replica's own number of positive anchors, and one; all replicas have to share it.
    positives = tf.reduce_sum(targets['box_weights'])
    context = tf.distribute.get_replica_context()
    shared = (context.all_reduce('SUM', positives) + 1.0) / context.num_replicas_in_sync
    losses = {'loss': loss, 'class_loss': class_loss, 'box_loss': box_loss}
    return {name: (positives + 1.0) / shared * value for name, value in losses.items()}


class FasterRcnn(_Architecture):
  """Anchors become proposals, which are looked at again (Ren et al., NIPS 2015; Lin et al., CVPR 2017).

  The losses see a sample of anchors and of proposals. Here it is drawn with the seed of the photo, so that an
  interrupted training continues as it would have; the official samplers draw differently each time.
  """

  def __init__(self, config: Config, losses: Losses, *, synchronized: bool):
    del losses  # Its fields are RetinaNet's.
    configs = model_garden.load('configs.maskrcnn')
    second = config.second_stage
    model = configs.MaskRCNN(
      **_shared_parts(config, synchronized),
      include_mask=False,
      mask_head=None,
      mask_sampler=None,
      mask_roi_aligner=None,
      anchor=configs.Anchor(**_anchors(config), anchor_size=config.anchor_size),
      rpn_head=configs.RPNHead(
        num_convs=config.head_convs,
        num_filters=config.head_filters,
        use_separable_conv=config.separable_convs,
      ),
      detection_head=configs.DetectionHead(
        num_convs=second.convs,
        num_filters=config.head_filters,
        use_separable_conv=config.separable_convs,
        num_fcs=second.fully_connected,
        fc_dims=second.fully_connected_size,
      ),
      roi_generator=configs.ROIGenerator(num_proposals=second.proposals, test_num_proposals=second.proposals),
      roi_sampler=configs.ROISampler(num_sampled_rois=second.sampled_regions),
      detection_generator=configs.DetectionGenerator(**_detections(config)),
    )
    task_config = configs.MaskRCNNTask(model=model)
    super().__init__(config, model_garden.load('tasks.maskrcnn').MaskRCNNTask(task_config))
    self._regions = sampling.RegionSampler(second.sampled_regions)
    self.network.roi_sampler[0]._sampler = self._regions

  def targets(self, boxes: tf.Tensor, seed: tf.Tensor) -> dict:
    """Returns the targets of the losses of one photo, from its boxes [R, 4] and its seed int [2]."""
    labels = tf.ones((tf.shape(boxes)[0], 1))
    scores, offsets = sampling.seeded_anchor_labeler()(seed).label_anchors(self.anchors, boxes, labels)
    return {'rpn_score_targets': dict(scores), 'rpn_box_targets': dict(offsets), 'seed': seed}

  def losses(self, batch) -> dict[str, tf.Tensor]:
    """Returns the `loss` of a batch and its parts; the mean over the replicas is that of the whole batch.

    The official losses see to that but for 0.01 that each replica adds to the numbers by which it divides the
    losses of boxes: four for each box that is learnt from, some hundreds in all.
    """
    targets = batch['targets']
    self._regions.seeds = targets['seed']
    boxes = batch['boxes']
    is_box = boxes[..., 2] > 0
    outputs = self.network(
      batch['images'],
      image_shape=batch['shapes'],
      anchor_boxes=self._tiled_anchors(tf.shape(boxes)[0]),
      # The official code marks the absence of a box by -1.
      gt_boxes=tf.where(is_box[..., None], boxes, -1.0),
      gt_classes=tf.where(is_box, LANDMARK, -1),
      training=True,
    )
    found = self._task.build_losses(_float32(outputs), targets)
    return {
      'loss': found['model_loss'],
      'proposal_class_loss': found['rpn_score_loss'],
      'proposal_box_loss': found['rpn_box_loss'],
      'class_loss': found['frcnn_cls_loss'],
      'box_loss': found['frcnn_box_loss'],
    }


def _shared_parts(config: Config, synchronized: bool) -> dict:
  decoders = model_garden.load('configs.decoders')
  pyramid = decoders.FPN(num_filters=config.pyramid_filters, use_separable_conv=config.separable_convs)
  return {
    'num_classes': len(CLASSES) + 1,
    'input_size': [config.image_size, config.image_size, 3],
    'min_level': config.min_level,
    'max_level': config.max_level,
    'backbone': detector_backbones.backbone_config(config),
    'decoder': decoders.Decoder(type='fpn', fpn=pyramid),
    'norm_activation': model_garden.load('configs.common').NormActivation(
      use_sync_bn=synchronized, norm_momentum=config.norm_momentum
    ),
  }


def _anchors(config: Config) -> dict:
  ratios = list(config.aspect_ratios) or [0.5, 1.0, 2.0]
  return {'num_scales': config.anchor_scales, 'aspect_ratios': ratios}


def _detections(config: Config) -> dict:
  return {
    'pre_nms_top_k': _CANDIDATES,
    'pre_nms_score_threshold': config.min_score,
    'nms_iou_threshold': config.nms_iou,
    'max_num_detections': config.max_detections,
    'nms_version': 'v2',
  }


def _float32(outputs):
  return tf.nest.map_structure(lambda tensor: tf.cast(tensor, tf.float32), outputs)
