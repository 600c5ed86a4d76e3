"""A policy as one ONNX graph: from raw observation windows and noise to a raw chunk, checked against torch."""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffpolicy.errors import InputError
from diffpolicy.policy.files import plain, require_writable, to_json, write_bytes
from diffpolicy.policy.graph import CHUNK, FORMAT, KEY, NOISE, OPSET, UNSEALED, feed, open_session, sealed
from diffpolicy.policy.policy import Policy

__all__ = ["BATCHES", "PARITY", "SEEDS", "Exported", "export_onnx", "traced"]

PARITY = 1e-5  # greatest difference from torch that is let pass [normalised action]
BATCHES, SEEDS = (1, 2, 5, 32), (0, 1, 2)  # that it is checked on
_LARGEST = 2**31 - 2**20  # bytes that one protobuf file can hold, with room for the graph


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its chunks are from torch's."""

    path: Path
    size: int  # [bytes]
    parity: float  # greatest difference in normalised units
    parity_raw: float  # and in the environment's
    chunks: int  # number of chunks that were compared


def export_onnx(policy: Policy, path: str | Path, about: Mapping[str, Any] | None = None) -> Exported:
    """Write the whole policy, metadata included, to one ONNX file, in one move, once it agrees with torch.

    The graph's inputs are the observation windows by name, each (B,To,O) in raw units, and ``noise``: (B,H,A), or
    (B,K+1,H,A) where the sampler's steps are noisy. Its output ``chunk`` is (B,H,A) in raw units. `about` goes into
    the metadata. `diffpolicy.runtime.OnnxPolicy` acts with it.

    Raises InputError where a package is missing, the policy is not fitted or not finite, or the graph and torch
    differ by more than 1e-5; nothing is written then.
    """
    path = Path(path)
    _require_packages()
    _require_exportable(policy)
    require_writable(path)
    policy = copy.deepcopy(policy).cpu().float().eval()
    inputs = feed(policy.layout, *_drawn(policy, 2, 0))
    model = traced(_Whole(policy), {name: torch.from_numpy(value) for name, value in inputs.items()}, CHUNK)
    model.metadata_props.clear()
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, to_json({**_described(policy), "about": dict(about or {})}, "the metadata")
    content = sealed(model.SerializeToString())
    parity, raw, chunks = _compared(policy, content)
    write_bytes(content, path)
    return Exported(path, len(content), parity, raw, chunks)


def _described(policy: Policy) -> dict[str, Any]:
    """What acting with the graph takes, and where it comes from."""
    from safetensors.torch import save

    weights = save({name: plain(tensor) for name, tensor in policy.state_dict().items()})
    return {
        "format": FORMAT,
        "policy": asdict(policy.config),
        "space_spec": policy.spaces.to_json(),
        "draws": len(policy.sampler) + 1 if policy.sampler.stochastic else 1,
        "environment": policy.environment,
        "provenance": policy.provenance,
        "versions": {name: version(name) for name in ("diffpolicy", "torch", "onnx", "onnxscript", "onnxruntime")},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),  # that of the checkpoint's model.safetensors
        "sha256": UNSEALED.decode(),  # of this file, with zeros in this place
    }


class _Whole(nn.Module):
    """All of a policy as one function of tensors, with the batch first in each."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *inputs: Tensor) -> Tensor:
        *windows, noise = inputs
        draws = noise if noise.dim() == 3 else noise.transpose(0, 1)
        names = [name for name, _ in self.policy.layout.sizes]
        return self.policy.chunk(dict(zip(names, windows, strict=True)), draws)


class _Positional(nn.Module):
    """Any module as one that takes all its inputs by place, which is how their shapes are told to the exporter."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.module(*inputs)
        return out


def traced(module: nn.Module, inputs: Mapping[str, Tensor], output: str) -> Any:
    """A module as an onnx.ModelProto; it is called with the inputs in order, and their batch may be any."""
    from onnxscript import optimizer

    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Positional(module).eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=(tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),),
            external_data=False,
            optimize=False,  # it takes a factor of 0.99999 for 1
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        optimizer.fold_constants(program.model)  # exact
        optimizer.remove_unused_nodes(program.model)
        return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says about itself, and not about the policy."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")  # operators of torchvision
    level = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        registry.setLevel(level)


def _drawn(policy: Policy, batch: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random observation windows (B,To,C), most of them within the normaliser's ranges, and noise (B,D,H,A)."""
    rng = np.random.default_rng(seed)
    centre, scale = (side.numpy() for side in policy.normaliser.ranges())
    place = rng.uniform(-1, 1, (batch, policy.config.n_obs_steps, len(centre)))
    place *= np.where(rng.random(place.shape) < 0.02, 10, 1)  # a few far outside, where the encoder clips
    draws = len(policy.sampler) + 1 if policy.sampler.stochastic else 1
    noise = rng.standard_normal((batch, draws, policy.config.horizon, policy.action_size), np.float32)
    return (centre + scale * place).astype(np.float32), noise


def _compared(policy: Policy, content: bytes) -> tuple[float, float, int]:
    """Greatest difference from torch in normalised and in raw units, and how many chunks were compared."""
    session = open_session(content)
    span = policy.normaliser.action
    scale, far = span.scale.double().numpy(), span.centre.abs().numpy()
    allowed = PARITY * scale + np.where(far > scale, np.spacing(far), 0)  # the last digit of actions far from 0
    normalised, raw, chunks = 0.0, 0.0, 0
    for batch in BATCHES:
        for seed in SEEDS:
            past, noise = _drawn(policy, batch, seed)
            (theirs,) = session.run([CHUNK], feed(policy.layout, past, noise))
            difference = np.abs(policy._draw(past, noise).astype(np.float64) - theirs)
            chunks += batch
            raw, normalised = max(raw, difference.max()), max(normalised, (difference / scale).max())
            if not (difference <= allowed).all():  # a NaN is not
                raise InputError(
                    f"expected chunks of the exported graph within {PARITY:g} of torch's in normalised units, got a "
                    f"difference of {(difference / scale).max():.3g} (batch {batch}, seed {seed}). Nothing written: "
                    "dividing an eps prediction by a small alpha amplifies rounding, and so do heun's long steps to a "
                    "little noise; train with another prediction, or take more steps or ddim"
                )
    return float(normalised), float(raw), chunks


def _require_exportable(policy: Policy) -> None:
    if policy.config.acting.looks_back:
        raise InputError(
            "expected a policy whose chunks are drawn from the observation alone, got one with acting.warm_start or "
            "acting.real_time; set both to null (diffpolicy change) and export that"
        )
    policy.normaliser.normalise_action(torch.zeros(policy.action_size, device=policy.device))  # raises if not fitted
    taken = sorted({NOISE, CHUNK} & policy.spaces.observations.keys())
    if taken:
        raise InputError(f"expected observations of other names than the graph's own, got {taken}; rename them")
    bad = [name for name, tensor in policy.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise InputError(f"expected finite weights, got NaN or infinity in {bad}; export an earlier checkpoint")
    size = sum(4 * tensor.numel() for tensor in policy.state_dict().values())
    if size > _LARGEST:
        raise InputError(f"expected weights of less than 2 GB, which one ONNX file can hold, got {size / 1e9:.1f} GB")


def _require_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(
            f'expected the packages of the extra "export", got no {", ".join(missing)}; '
            'run: pip install "diffpolicy[export]"'
        )
