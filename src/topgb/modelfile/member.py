"""Encode and decode the modules of a model file: its members and the second stage."""

from collections.abc import Mapping

import torch

from topgb.devices import Precision, Resident, free_memory
from topgb.errors import InputError
from topgb.modelfile.encodings import checked_parts, decode, encode_plain
from topgb.modelfile.header import CHANGED, RERANKER, Header, TensorEncoding
from topgb.models import Tagger, build_tagger
from topgb.models.byfeature import set_child
from topgb.models.few_rows import prepare_to_predict
from topgb.models.frontend import Frontend
from topgb.models.initial_values import unfilled
from topgb.models.reranker import Reranker, RerankerOptions

# The most frames that a model which depends on padding may have: it pads every video to them. YouTube-8M has 300.
MOST_PADDING = 1 << 12
IMPOSSIBLE_SIZES = f"the sizes in the header make no model; {CHANGED}"


def encode_member(
    index: int, state: dict[str, torch.Tensor]
) -> tuple[dict[str, TensorEncoding], dict[str, torch.Tensor]]:
    """Entries and unquantised tensors of member `index`, by full name, from `state`, a `Tagger.state_dict()`."""
    entries, tensors = {}, {}
    for name, tensor in state.items():
        full = f"members.{index}.{name}"
        entries[full], parts = encode_plain(tensor, "float32")
        tensors[full] = parts[""]
    return entries, tensors


def decode_member(
    header: Header,
    index: int,
    entries: dict[str, TensorEncoding],
    stored: Mapping[str, torch.Tensor],
    resident: Resident,
    precision: Precision = "float32",
) -> Tagger:
    """Member `index`, without gradients, from the `stored` tensors of the file.

    `entries` are the member's encodings, by tensor names without the prefix `members.I.`. Raises `InputError` where the
    file's tensors do not match the member's architecture, or a value is impossible.
    """
    member, prefix = header.members[index], f"members.{index}."
    _check_modules(member.model.mixture * getattr(member.model.aggregator_options, "layers", 1), entries)
    tagger = unfilled(lambda: build_tagger(header.features, header.classes, member.model), IMPOSSIBLE_SIZES)
    expected = {name: tensor.shape for name, tensor in tagger.state_dict().items()}
    modules = dict(tagger.named_modules())
    if tagger.frontend.pads_to_max_frames and member.model.max_frames > MOST_PADDING:
        raise InputError(
            f"it looks at padding up to {member.model.max_frames} frames, and at most {MOST_PADDING} are possible; "
            "make the model anew with a lower 'model.max_frames'"
        )
    packed: dict[str, torch.nn.Module] = {}
    if resident == "half" or precision == "bfloat16" or any(entry.encoding != "float32" for entry in entries.values()):
        # Imported here, because many models are float32.
        from topgb.modelfile.packed_linear import is_packed, packed_linear

        for name, entry in entries.items():
            path = name.removesuffix(".weight")
            linear = modules.get(path)
            fits = linear is not None and entry.shape == expected.get(name)
            if linear is not None and fits and is_packed(linear, entry, resident, precision):
                parts = checked_parts(stored, entry, prefix + name)
                packed[path] = packed_linear(linear, parts, entry, prefix + name, resident)
    state = {n: decode(stored, e, prefix + n) for n, e in entries.items() if n.removesuffix(".weight") not in packed}
    _check_fit(entries, state, expected, prefix)
    for name, tensor in state.items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise InputError(f"tensor {prefix}{name} has a negative variance; {CHANGED}")
    for path, module in packed.items():
        parent, _, child = path.rpartition(".")
        set_child(modules[parent], child, module)
    tagger.load_state_dict(state, assign=True)
    prepare_to_predict(tagger.eval(), free_memory)
    # Build the frontend last: its buffers are as wide as the header says, and only now is the header checked.
    tagger.frontend = Frontend(header.features, member.model, tagger.frontend.pads_to_max_frames)
    return tagger.requires_grad_(False)


def decode_reranker(
    header: Header, options: RerankerOptions, entries: dict[str, TensorEncoding], stored: Mapping[str, torch.Tensor]
) -> Reranker:
    """The second stage, without gradients. `entries` and errors are as for `decode_member`."""
    _check_modules(options.layers, entries)
    reranker = unfilled(lambda: Reranker(header.classes, options), IMPOSSIBLE_SIZES)
    expected = {name: tensor.shape for name, tensor in reranker.state_dict().items()}
    state = {name: decode(stored, entry, RERANKER + name) for name, entry in entries.items()}
    _check_fit(entries, state, expected, RERANKER)
    reranker.load_state_dict(state, assign=True)
    return reranker.requires_grad_(False)


def _check_fit(
    entries: Mapping[str, TensorEncoding],
    state: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Size],
    prefix: str,
) -> None:
    """Raise `InputError` where names or shapes of the file's tensors differ from the architecture's."""
    if entries.keys() != expected.keys():
        odd = sorted(entries.keys() ^ expected.keys())
        raise InputError(f"file and architecture disagree about the tensors {', '.join(map(repr, odd[:3]))}; {CHANGED}")
    for name, tensor in state.items():
        if tensor.shape != expected[name]:
            raise InputError(
                f"tensor {prefix}{name} is {list(tensor.shape)}, but its architecture needs {list(expected[name])}; "
                f"{CHANGED}"
            )


def _check_modules(modules: int, entries: Mapping[str, TensorEncoding]) -> None:
    """Raise `InputError` where `modules`, the modules that own tensors, outnumber the tensors of the file."""
    # Building modules takes time and memory, on the meta device too.
    if modules > len(entries):
        raise InputError(f"the sizes in the header make no model of its tensors; {CHANGED}")
