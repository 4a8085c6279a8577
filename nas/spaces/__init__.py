"""Search spaces by the name a config gives them."""

from nas.spaces.mlp import MlpChoices
from nas.spaces.mobile import MobileChoices
from nas.spaces.resnet import ResnetChoices

Choices = MobileChoices | ResnetChoices | MlpChoices

SPACES: dict[str, type[MobileChoices] | type[ResnetChoices] | type[MlpChoices]] = {
    "mobile": MobileChoices,
    "resnet": ResnetChoices,
    "mlp": MlpChoices,
}
