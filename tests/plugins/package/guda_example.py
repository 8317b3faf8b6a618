"""A package that adds an operator and a method to guda by its entry points, with settings of their own."""

from guda_cli.attribution.methods import COUNTERFACTUAL, IMAGES, Method
from guda_cli.sections import POSITIVE, Setting
from guda_cli.unlearning.catalog import OperatorRow

FADE = OperatorRow(
    "fade",
    "guda_example_fade:Fade",
    "faded to grey by a share `fading`",
    (Setting("fading", 0.5, POSITIVE), Setting("t_min", 0.0)),
    tried={"fading": (0.5, 1.0)},
)
BRIGHTNESS = Method(
    "brightness",
    IMAGES,
    "brightness",
    "the training images' mean brightness was compared with the query's",
    ("minus the distance of mean brightness", "nothing"),
    "guda_example_brightness:Brightness",
    (Setting("contrast", 2.0, POSITIVE), Setting("seed")),
    of_model=False,
)
NO_ENGINE = Method("no-engine", IMAGES, "none", "it cannot", ("none", "nothing"), "guda_example:Method")
COMPARING = Method("comparing", COUNTERFACTUAL, "comparing", "it compared", ("none", "nothing"))
COMMENT = "no row of anything"
