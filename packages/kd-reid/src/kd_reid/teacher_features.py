"""Networks without a classifier of identities: any that give an embedding or tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kd_core.errors import UserError
from kd_core.files.weights import load_weights, matching_state
from kd_core.networks.outputs import known_key
from kd_core.networks.probe import untouched
from kd_core.networks.roles import tap_list
from kd_core.networks.tap_paths import entries
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch
from kd_core.networks.tokens import known_tokens
from torch import Tensor, nn

from kd_reid.embedder import NO_LOSS, Embedder
from kd_reid.heads import Heads
from kd_reid.outputs import Embedding

_POOLED = ("pooler_output", "image_embeds", "embedding", "embeddings")
_LAST_NORMS = ("norm", "layernorm", "encoder.ln")  # of timm, Hugging Face and torchvision
_TOKENS = ("last_hidden_state", "tokens")


class FeatureEmbedder(Embedder):
    """Prepares images for a network that gives an embedding or tokens, and has no loss.

    What is searched by is the tap of the role `embedding`.

    Args:
        network: From images [N, 3, H, W] to anything.
        left_out: Paths of the classifier's layers, which were left out.
        options: See `Embedder`; `roles` has `embedding`.
    """

    def __init__(
        self, network: nn.Module, *, left_out: tuple[str, ...] = (), **options: Any
    ) -> None:
        super().__init__(network, **{**options, "heads": Heads((), ())})
        self.left_out = left_out

    def forward(self, batch: Batch) -> Embedding:
        """Return the embedding alone.

        Raises:
            UserError: In training: there is no loss.
        """
        if self.training:
            raise UserError(f"student: {type(self.network).__name__} {NO_LOSS}")
        return self.embed(batch["image"])

    def run_for_taps(self, batch: Batch) -> None:
        """Run the network."""
        self.network(self.prepare(batch["image"]))

    def embed(self, images: Tensor) -> Embedding:
        """Return the embedding of images, without logits."""
        return self.search(self.prepare(images))

    def search(self, prepared: Tensor) -> Embedding:
        """Return the embedding of images of `prepare`, without logits."""
        path = tap_list("@embedding[0]", self)[0]
        with FeatureTap(self.network, path) as seen:
            self.network(prepared)
        return Embedding(seen[path], (), ())

    def without_role(self, role: str) -> str:
        """Return what to do where a tap asks for a role that this teacher lacks."""
        if role == "logits":
            return "it has no classifier of identities: learn its @embedding, as rkd.py does"
        if role == "tokens":
            return "it gives no tokens: learn its @embedding, or name a module (--list-taps)"
        return ""


@dataclass
class FeatureFitting:
    """Takes the classifier off a network, and loads a file into the rest.

    Args:
        where: Place of the node.
        images: Prepared, float [N, C, H, W].
        file: Weights, or None.
        is_student: Whether it is trained.
        notes: What was done, line by line.
    """

    where: str
    images: Tensor
    file: str | None = None
    is_student: bool = False
    notes: list[str] = field(default_factory=list)

    def fit(self, network: nn.Module, heads: tuple[str, ...]) -> nn.Module:
        """Return the network, changed in place.

        Args:
            network: The network.
            heads: Paths of its classifier's layers.

        Raises:
            UserError: If the file does not fit.
        """
        for path in heads:
            owner, _, last = path.rpartition(".")
            setattr(network.get_submodule(owner), last, nn.Identity())
        left = [*heads]
        if self.file:
            own = network.state_dict()
            parts = {name.partition(".")[0] for name in own}
            state = matching_state(self.file, own, silent=True)
            # Whole parts that this network does not have: classifiers, necks, text encoders.
            more = {
                name
                for name in state
                if name not in own
                and (name.partition(".")[0] not in parts or name.startswith(_inside(heads)))
            }
            left += sorted({name.partition(".")[0] for name in more} - {*heads})
            load_weights(
                network,
                self.file,
                adapt=lambda found: {k: v for k, v in found.items() if k not in more},
            )
        if left:
            what = "it ends in its embedding" if self.is_student else "it teaches by its features"
            self.notes.append(f"{', '.join(left)} left out: {what}")
        return network


def _inside(heads: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{head}." for head in heads)


def last_linear(network: nn.Module, images: Tensor) -> tuple[str, int] | None:
    """Return the path and width of the linear layer whose output the network returns, if any.

    Args:
        network: Run once; nothing in it changes.
        images: Prepared.
    """
    places: dict[int, str] = {}
    kept: list[object] = []

    def note(name: str, output: object) -> None:
        kept.append(output)
        places[id(output)] = name

    handles = [
        module.register_forward_hook(lambda m, args, output, name=name: note(name, output))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with untouched(network):
            given = network(images)
    finally:
        for handle in handles:
            handle.remove()
    if (key := known_key(network)) is not None:
        given = entries(given).get(key)
    found = places.get(id(given))
    return None if found is None else (found, int(given.shape[-1]))


def feature_roles(network: nn.Module, images: Tensor, output: str | int | None) -> dict[str, Any]:
    """Return where a network gives its embedding, and its tokens if it does.

    Args:
        network: Run once; nothing in it changes.
        images: Prepared.
        output: Name or number of the embedding or tokens among what it returns.

    Raises:
        UserError: If it is not known which of its outputs is the embedding.
    """
    roles: dict[str, Any] = {"logits": ()}
    given, last = _run(network, images)
    if last is not None:
        roles |= {"tokens": (f"{last}:tokens",), "map": (f"{last}:map",)}
    found = {"output": given} if isinstance(given, Tensor) else _listed(given)
    if output is not None:
        entry = f"output[{output}]"
        found = {entry: _one(found, entry, network)}
    pooled, tokens = _chosen(found, 2, _POOLED), _chosen(found, 3, _TOKENS)
    facts = None if tokens is None else known_tokens(network, "")
    mean = None
    if facts is not None:
        roles |= {"tokens": (f"{tokens}:tokens",), "map": (f"{tokens}:map",)}
        mean = f"{tokens}:{'cls' if facts.class_token else 'mean'}"
    path = pooled or mean
    if path is None:
        shown = ", ".join(f"{name} {list(value.shape)}" for name, value in found.items())
        name = next(iter(found), "output")
        raise UserError(
            f"{type(network).__name__} gives {shown or type(given).__name__}; which is the "
            "embedding [N, D]? Name it in the teacher's node, as in roles.embedding="
            f"{name}:cls, :mean(prefix=1), or :nchw:mean of a map"
        )
    return {**roles, "embedding": (path,), "pooled": (path,)}


def _run(network: nn.Module, images: Tensor) -> tuple[Any, str | None]:
    """Return what a network gives, and where a transformer has its last tokens, if it is known."""
    names = [name for name, _ in network.named_modules() if name in _LAST_NORMS]
    last = next((name for name in names if known_tokens(network, name) is not None), None)
    seen: list[Any] = []
    hook = None
    if last is not None:
        layer = network.get_submodule(last)
        hook = layer.register_forward_hook(lambda module, args, out: seen.append(out))
    try:
        with untouched(network):
            given = network(images)
    finally:
        if hook is not None:
            hook.remove()
    once = len(seen) == 1 and isinstance(seen[0], Tensor) and seen[0].dim() == 3
    return given, last if once else None


def _listed(given: Any) -> dict[str, Tensor]:
    values = entries(given).items()
    return {f"output[{name}]": value for name, value in values if isinstance(value, Tensor)}


def _one(found: Mapping[str, Tensor], path: str, network: nn.Module) -> Tensor:
    if path not in found:
        raise UserError(
            f"output: {type(network).__name__} gives no {path!r}; it gives {', '.join(found)}"
        )
    return found[path]


def _chosen(found: Mapping[str, Tensor], dims: int, names: tuple[str, ...]) -> str | None:
    """Return the only output of so many dimensions, or the one with a usual name."""
    fitting = [path for path, value in found.items() if value.dim() == dims]
    usual = [path for name in names for path in fitting if path == f"output[{name}]"]
    return next(iter(usual), fitting[0] if len(fitting) == 1 else None)
