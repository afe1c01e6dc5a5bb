"""The commands that configs document, and smaller networks to run them with."""

import ast
import functools
import inspect
import re
import shlex
from pathlib import Path

from kd_cls.models.resnet import ResNet
from kd_cls.models.wideresnet import WideResNet
from kd_reid import torchreid
from timm.models.regnet import RegStage
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import resnet

ROOT = Path(__file__).parents[1]
SYSTEMS = ROOT / "docs/systems.md"
TOOLS = ("cls_train", "cls_compare", "reid_train", "reid_compare")
QUICK = {
    "cls": ["data.batch_size=2"],
    "reid": ["data.batch_size=8", "data.image_size=[64, 32]"],
}


def documented(path):
    """Return the commands in a config's docstring, or in a text: the tool and its arguments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text), clean=False) or ""
    elif path == SYSTEMS:
        text = "\n".join(re.findall(r"`(tools/[^`]+)`", text))
    else:
        text = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    lines = text.replace("\\\n", " ").splitlines()
    tools = [f"tools/{name}.py" for name in TOOLS]
    found = [(tool, line.partition(tool)[2]) for tool in tools for line in lines if tool in line]
    return [(tool, *shlex.split(arguments, comments=True)) for tool, arguments in found]


def smaller(names):
    """Return options for images of fewer than 224 pixels, for the configs of a command."""
    files = {Path(name).name for name in names}
    if "cifar100_224.py" in files:
        return ["data.image_size=64", "data.augment=[]"]  # or it is scaled to 256 all the same
    large = {"imagenet.py", "image_folder.py", "image_list.py", "unlabelled.py", "webdataset.py"}
    return ["data.image_size=64"] if files & large else []


def make_small(monkeypatch):
    """Let networks have fewer blocks, and wide ones fewer channels; they have the same taps."""
    for network, method, argument, fewer in SMALLER:
        monkeypatch.setattr(network, method, changed(getattr(network, method), argument, fewer))
    monkeypatch.setattr(resnet.ResNet, "__init__", with_fitting_head(resnet.ResNet.__init__))


def one_each(numbers):
    return [1 for _ in numbers]


def few_for(rest):
    """Return what makes a depth of 6 n + rest one of about log2(n) blocks.

    So networks of 9 and of 3 blocks a stage still have different numbers of them.
    """
    return lambda depth: 6 * max(1, ((depth - rest) // 6).bit_length() - 1) + rest


def quarter(channels):
    return channels // 4


def quarters(widths):
    """Return a quarter of the channels of `resnet32x4` and its like; the others are narrow."""
    return tuple(map(quarter, widths)) if widths[-1] > 64 else widths


SMALLER = [
    (resnet.ResNet, "__init__", "layers", one_each),
    (resnet.ResNet, "_make_layer", "planes", quarter),
    (torchreid.models.resnet.ResNet, "__init__", "layers", one_each),
    (torchreid.models.resnet.ResNet, "_make_layer", "planes", quarter),
    (torchreid.models.resnet.ResNet, "_construct_fc_layer", "input_dim", quarter),
    (torchreid.models.pcb.PCB, "__init__", "layers", one_each),
    (torchreid.models.osnet.OSNet, "__init__", "layers", one_each),
    (ResNet, "__init__", "depth", few_for(2)),
    (ResNet, "__init__", "widths", quarters),
    (WideResNet, "__init__", "depth", few_for(4)),
    (RegStage, "__init__", "depth", lambda depth: 1),
    (VisionTransformer, "__init__", "depth", lambda depth: min(depth, 4)),
]
"""Methods that build networks of repeated blocks, and the argument that says how many of them, or
how many channels."""


def changed(build, argument, change):
    """Return a method one of whose arguments, if it is given, is changed."""
    signature = inspect.signature(build)

    @functools.wraps(build)
    def method(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        given.arguments[argument] = change(given.arguments[argument])
        return build(*given.args, **given.kwargs)

    return method


def with_fitting_head(build):
    """Return torchvision's constructor of ResNets, whose head takes what the last block gives."""

    @functools.wraps(build)
    def init(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.fc = nn.Linear(self.inplanes, self.fc.out_features)

    return init
