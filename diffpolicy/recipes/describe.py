"""Describe: what a checkpoint is, how large its network is, and what a decision costs here."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from diffpolicy.errors import InputError
from diffpolicy.recipes.run import use_threads

if TYPE_CHECKING:
    from diffpolicy.policy.policy import Policy

__all__ = ["Describe", "cost", "described"]

BATCHES = (1, 32)
FLOPS = "matrix products and convolutions, where a multiplication and an addition are two"
LATENCY = "predict, queue empty, measured now against nothing: a busy machine, or another, differs"


@dataclass(frozen=True)
class Describe:
    """Describe a checkpoint: parameters, FLOPs, latency here, spaces, schedule, sampler, provenance."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """A checkpoint folder, or the run that holds one."""
    json: bool = False
    """Print JSON, with all of the provenance."""
    calls: int = 200
    """Decisions whose latency is measured, at batch 1 and at batch 32; 0: none."""
    threads: int = 0
    """Threads of torch; 0 takes one."""

    def __call__(self) -> dict[str, Any]:
        """Print the description, and return it."""
        from diffpolicy.policy.checkpoint import load_checkpoint

        if not 0 <= self.calls <= 1_000_000:
            raise InputError(f"expected --calls from 0 to 1000000, got {self.calls}")
        threads = use_threads(self.threads)
        checkpoint = load_checkpoint(self.checkpoint)
        content = {
            "checkpoint": str(checkpoint.folder),
            **described(checkpoint.policy),
            **cost(checkpoint.policy),
            "latency": _latency(checkpoint.policy, self.calls, threads),
            "latency_on": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores, torch {version('torch')}",
            "provenance": dict(checkpoint.provenance),
        }
        print(json.dumps(content, indent=1) if self.json else "\n".join(_lines(content)))
        return content


def described(policy: Policy) -> dict[str, Any]:
    """What a policy is: its environment, spaces, settings and grid of diffusion times, as plain values."""
    return {
        "environment": policy.environment,
        "spaces": policy.spaces.to_json(),
        "policy": asdict(policy.config),
        "grid": [round(float(t), 6) for t in policy.sampler.grid()],
    }


def cost(policy: Policy) -> dict[str, Any]:
    """Parameters, FLOPs of a network call at one row, and calls, rows and FLOPs of a decision in one environment."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network, calls = policy.network, list[tuple[Any, ...]]()
    windows = torch.zeros(1, policy.config.n_obs_steps, policy.layout.width, device=policy.device)
    noise = torch.zeros(policy._draws(False), 1, policy.config.horizon, policy.action_size, device=policy.device)
    hook = network.register_forward_pre_hook(lambda _, args: calls.append(args))
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as decision:
            policy.chunk(windows, noise if len(noise) > 1 else noise[0], noise[0])  # not an episode's first
    finally:
        hook.remove()
    total, rows = decision.get_total_flops(), sum(len(args[0]) for args in calls)
    return {
        "parameters": sum(p.numel() for p in policy.parameters() if p.requires_grad),
        "flops_per_call": total // rows,
        "network_calls": len(calls),
        "network_rows": rows,
        "flops_per_decision": total,
    }


def _latency(policy: Policy, calls: int, threads: int) -> list[dict[str, Any]]:
    from diffpolicy.recipes.export import latencies

    rows = []
    for batch in BATCHES if calls else ():
        (taken,) = latencies([policy], policy, calls, batch)
        p50, p99 = np.percentile(taken, (50, 99))
        row = {"batch": batch, "threads": threads, "calls": calls, "p50_us": round(p50, 1), "p99_us": round(p99, 1)}
        rows.append(row)
    return rows


def _lines(content: dict[str, Any]) -> Iterator[str]:
    """The description as text, a line for each thing."""
    policy = content["policy"]
    network, sampler = dict(policy["network"]), dict(policy["sampler"])
    acting = ("horizon", "n_obs_steps", "n_action_steps")
    calls, rows = content["network_calls"], content["network_rows"]
    yield f"{content['checkpoint']}, of {content['environment'] or 'no environment that it names'}"
    yield from _spaces(content["spaces"])
    beside = {name: value for name, value in policy["acting"].items() if value}
    yield _line("acting", _words({name: policy[name] for name in acting} | beside))
    yield _line("network", f"{network.pop('kind')}, {_words(network)}; {content['parameters']:,} parameters")
    modes = f", modes {policy['modes']}" if policy["model"] == "mixture" else ""
    yield _line("model", f"{policy['model']}{modes}")
    yield _line("schedule", f"{policy['schedule']}, prediction {policy['prediction']}")
    yield _line("sampler", _words(sampler))
    yield _line("", f"times {' '.join(f'{t:.4g}' for t in content['grid'])}")
    if policy["condition_dropout"]:
        yield _line("training", f"condition_dropout {policy['condition_dropout']:g}")
    yield _line("network call", f"{content['flops_per_call'] / 1e6:,.2f} MFLOPs a row ({FLOPS})")
    more = "" if rows == calls else f" of {rows // calls} rows"
    yield _line("decision", f"{calls} network calls{more}, {content['flops_per_decision'] / 1e6:,.2f} MFLOPs")
    for row in content["latency"]:
        taken = f"p50 {row['p50_us']:,.0f} us, p99 {row['p99_us']:,.0f} us"
        yield _line("latency", f"batch {row['batch']}: {taken} ({row['calls']} decisions, threads {row['threads']})")
    if content["latency"]:
        yield _line("", f"on {content['latency_on']}; {LATENCY}")
    for name, value in content["provenance"].items():
        if value not in ("", None) and not isinstance(value, dict | list):
            yield _line("provenance", f"{name} {value}")


def _spaces(spaces: dict[str, Any]) -> Iterator[str]:
    shown = {name: len(bounds["low"]) for name, bounds in spaces["observations"].items()}
    yield _line("observation", f"{_words(shown)}{' (one array)' if spaces['boxed'] else ''}")
    yield _line("action", f"{len(spaces['action']['low'])} numbers")


def _line(name: str, text: str) -> str:
    return f"{name:13} {text}"


def _words(values: dict[str, Any]) -> str:
    shown = {name: f"{value:g}" if type(value) is float else str(value) for name, value in values.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
