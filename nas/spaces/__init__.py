"""Search spaces by the name a config gives them."""

from nas.spaces.deepsets import DeepsetsChoices
from nas.spaces.interaction import InteractionChoices
from nas.spaces.mlp import MlpChoices
from nas.spaces.mobile import MobileChoices
from nas.spaces.resnet import ResnetChoices

Choices = MobileChoices | ResnetChoices | MlpChoices | DeepsetsChoices | InteractionChoices

SPACES: dict[str, type[Choices]] = {
    "mobile": MobileChoices,
    "resnet": ResnetChoices,
    "mlp": MlpChoices,
    "deepsets": DeepsetsChoices,
    "interaction": InteractionChoices,
}
