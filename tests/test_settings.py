"""Laws of settings: what cannot be, is refused by the field's name, from Python, a command line or an edited file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy.diffusion import MLPConfig, SamplerConfig, TransformerConfig, UNetConfig
from diffpolicy.diffusion.settings import Number, Whole
from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig
from diffpolicy.updates import RegressionConfig

NAN, INF = float("nan"), float("inf")
WRONG: dict[type, dict[str, list[Any]]] = {
    MLPConfig: {
        "width": [0, -1, 10**7, 2**20, 256.0, "256", True, None, NAN, [256], 10**400],
        "blocks": [0, 1000, 2.5, "3"],
        "time_dim": [0, 1, 3, 2.0, 10**7],
        "two_times": [0, 1, "yes", None],
    },
    UNetConfig: {
        "width": [0, 8, 20, 2**14 + 8, 64.0, True, None],
        "levels": [0, 9, 2.0, True],
        "kernel": [0, 4, 65, 5.0, None],
        "time_dim": [1, 3, "64"],
        "two_times": [1, "no"],
    },
    TransformerConfig: {
        "width": [0, 130, 128.0, True],
        "blocks": [0, 1000, 2.5],
        "heads": [0, 3, 257, 4.0],
        "time_dim": [1, 3, "64"],
        "two_times": [0.0, None],
    },
    SamplerConfig: {
        "steps": [0, -3, 10**9, 8.0, "8", True, None],
        "eta": [-0.1, NAN, INF, "0", True, None, 1e9],
        "floor": [-0.1, NAN, INF, "0"],
        "t_min": [-0.1, 1.0, 2, NAN, "0"],
        "clip": [0.0, -1.0, NAN, INF, "1", True],
        "guidance": [-0.1, 101, NAN, INF, "1", True, None],
        "solver": ["euler", "dpm", None, 2],
        "schedule": ["Cosine", "", 3],
        "grid": ["Karras", None],
        "times": [(1.0, 0.0), (0.5,), (0.0, 1.0), (*[0.5] * 9,), "1, 0", (2.0, 1.0), (1.0, NAN), [None, 0.0], 0.5],
        "rho": [0.5, NAN, None],
        "sigma_min": [0.0, NAN, INF],
        "sigma_max": [0.0, None],
        "churn": [-1.0, NAN, INF],
        "churn_range": [(0.0,), (-1.0, 1.0), (0.0, INF), None],
    },
    PolicyConfig: {
        "horizon": [0, -1, 2.5, "16", True, None, 10**9],
        "n_obs_steps": [0, 1.5, True, 10**9],
        "n_action_steps": [0, 8.0, "8", 17],
        "schedule": ["Cosine", "lines", "", None, 3, ["cosine"]],
        "prediction": ["epsilon", "flows", None],
        "network": [None, {"width": 8}, SamplerConfig()],
        "sampler": [None, 8, MLPConfig()],
        "condition_dropout": [-0.1, 1.0, NAN, "0.1", True, None],
    },
    RegressionConfig: {
        "lr": [0.0, -1e-3, 11.0, NAN, INF, "1e-3", True, None],
        "weight_decay": [-1e-6, NAN, INF, 1e3],
        "betas": [(0.9,), (0.9, 0.99, 0.999), (0.9, 1.0), (-0.1, 0.9), (NAN, 0.9), ("0.9", 0.9), 0.9, "ab", None],
        "warmup": [-1, 1.5, "100", 10**12, True],
        "clip": [0.0, -1.0, NAN, "1", None],
        "ema_decay": [-0.1, 1.0, NAN, None],
        "t_min": [0.0, 1.0, NAN, "0"],
        "times": ["normal", None],
        "weights": ["snr", None],
    },
}
CASES = [(kind, name, value) for kind, fields in WRONG.items() for name, values in fields.items() for value in values]


@pytest.mark.parametrize(("kind", "name", "value"), CASES, ids=lambda part: str(getattr(part, "__name__", part))[:20])
def test_what_a_field_cannot_hold_is_refused_by_its_name(kind: type, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        kind(**{name: value})


def test_the_message_says_what_was_expected_what_came_and_what_to_do() -> None:
    with pytest.raises(InputError) as raised:
        SamplerConfig(steps="8")  # type: ignore[arg-type]
    assert str(raised.value).startswith(
        "SamplerConfig.steps: expected a whole number from 1 to 10000, got '8' in SamplerConfig(steps='8', "
    )
    assert str(raised.value).endswith("correct it")


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [("schedule", "Cosine", "cosine"), ("schedule", "strait", "straight"), ("prediction", "epsilon", "eps")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, value: str, nearest: str) -> None:
    with pytest.raises(InputError, match=rf"PolicyConfig\.{name}: .*did you mean '{nearest}'\?"):
        PolicyConfig(**{name: value})  # type: ignore[arg-type]


def test_counts_that_contradict_each_other_are_refused() -> None:
    for counts in ((8, 1, 9), (8, 2, 8), (1, 2, 1)):
        with pytest.raises(InputError, match="lengthen the horizon"):
            PolicyConfig(*counts)
    assert PolicyConfig(8, 2, 7).horizon == 8


def test_a_network_that_no_machine_holds_is_refused_though_each_size_may_be() -> None:
    with pytest.raises(InputError, match="fewer blocks, or narrower"):
        MLPConfig(width=2**14, blocks=256)
    with pytest.raises(InputError, match="fewer levels, or narrower"):
        UNetConfig(width=2**12, levels=8)
    with pytest.raises(InputError, match="fewer blocks, or narrower"):
        TransformerConfig(width=2**13, blocks=32)
    assert MLPConfig(width=4096, blocks=12).blocks == 12


def test_numbers_of_other_kinds_become_plain_ones_that_json_can_hold() -> None:
    config = PolicyConfig(
        horizon=np.int64(8),  # type: ignore[arg-type]
        n_action_steps=np.int32(4),  # type: ignore[arg-type]
        sampler=SamplerConfig(eta=np.float32(0.5), t_min=0, clip=None),  # type: ignore[arg-type]
    )
    assert PolicyConfig.from_json(json.loads(json.dumps(asdict(config)))) == config
    betas = RegressionConfig(betas=[0.9, 0.99]).betas  # type: ignore[arg-type]
    assert betas == (0.9, 0.99)
    assert hash(config)


def test_the_gradient_need_not_be_clipped() -> None:
    assert RegressionConfig(clip=INF).clip == INF


def test_a_range_of_churn_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(InputError, match="first number not above its second"):
        SamplerConfig(churn_range=(2.0, 1.0))


def test_a_command_line_still_builds_them() -> None:
    words = ["--horizon", "8", "--n-action-steps", "4", "--schedule", "cosine", "--sampler.clip", "None"]
    cascade = (tyro.conf.CascadeSubcommandArgs,)
    config = tyro.cli(PolicyConfig, args=[*words, "--network.width", "8"], config=cascade)
    assert config == PolicyConfig(8, 1, 4, "cosine", network=MLPConfig(width=8), sampler=SamplerConfig(clip=None))
    assert tyro.cli(RegressionConfig, args=["--betas", "0.9", "0.99"]).betas == (0.9, 0.99)
    words = ["--solver", "dpm++", "--grid", "log-snr", "--schedule", "edm", "--churn-range", "0.1", "2"]
    found = tyro.cli(SamplerConfig, args=[*words, "--steps", "2", "--times", "1", "0.5", "0"])
    assert found == SamplerConfig(
        2, solver="dpm++", grid="log-snr", schedule="edm", times=(1.0, 0.5, 0.0), churn_range=(0.1, 2.0)
    )
    with pytest.raises(SystemExit):
        tyro.cli(SamplerConfig, args=["--steps", "0"])


@pytest.mark.parametrize(
    "network", [MLPConfig(width=8), UNetConfig(32, 3, 3, 16), TransformerConfig(64, 2, 2, 8, True)]
)
def test_a_network_comes_back_from_json_by_its_kind(network: Any) -> None:
    config = PolicyConfig(network=network, condition_dropout=0.1, sampler=SamplerConfig(guidance=0.5))
    data = json.loads(json.dumps(asdict(config)))
    assert PolicyConfig.from_json(data) == config
    assert data["network"]["kind"] == network.kind


def test_a_network_without_a_kind_is_an_mlp_and_an_unknown_kind_is_answered_with_the_nearest() -> None:
    old: Any = {"network": {"width": 8, "blocks": 1, "time_dim": 4}, "sampler": {"steps": 3}, "horizon": 8}
    assert PolicyConfig.from_json(old).network == MLPConfig(8, 1, 4)
    for kind, said in (("unett", "did you mean 'unet'"), (None, "mlp, unet, transformer"), ([], "kind")):
        with pytest.raises(InputError, match=said):
            PolicyConfig.from_json({**old, "network": {"kind": kind}})
    with pytest.raises(InputError, match="levels"):
        PolicyConfig.from_json({**old, "network": {"kind": "mlp", "levels": 2}})


def test_guidance_needs_a_policy_that_was_trained_without_its_observation_as_well() -> None:
    with pytest.raises(InputError, match="condition_dropout > 0"):
        PolicyConfig(sampler=SamplerConfig(guidance=1.0))
    assert PolicyConfig(sampler=SamplerConfig(guidance=1.0), condition_dropout=0.1).sampler.guidance == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_edit_of_a_config_file_raises_anything_but_input_error(data: st.DataObject) -> None:
    network: Any = data.draw(st.sampled_from([MLPConfig(), UNetConfig(), TransformerConfig()]))
    config: Any = asdict(PolicyConfig(network=network))
    part = data.draw(st.sampled_from([config, config["network"], config["sampler"]]))
    name = data.draw(st.sampled_from(sorted(part)) | st.text(max_size=5))
    part[name] = data.draw(JSON)
    try:
        built = PolicyConfig.from_json(config)
    except InputError:
        return
    assert PolicyConfig.from_json(json.loads(json.dumps(asdict(built), allow_nan=False))) == built
    assert replace(built) == built
    assert built.n_obs_steps - 1 + built.n_action_steps <= built.horizon <= 10_000


@pytest.mark.parametrize("data", [None, [], 3, "config", {}, {"network": None, "sampler": None}])
def test_what_is_no_config_is_refused(data: Any) -> None:
    with pytest.raises(InputError, match="fields of PolicyConfig"):
        PolicyConfig.from_json(data)


@settings(max_examples=100, deadline=None)
@given(value=st.integers() | st.floats() | st.booleans() | st.none(), above=st.booleans(), below=st.booleans())
def test_a_range_admits_just_what_lies_within(value: Any, above: bool, below: bool) -> None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    inside = plain and 0 <= value <= 7 and not (above and value == 0) and not (below and value == 7)
    for rule, good in (
        (Number(0, 7, above=above, below=below), inside),
        (Whole(0, 7), plain and isinstance(value, int) and 0 <= value <= 7),
    ):
        if good:
            assert rule.admit(value) == value
        else:
            with pytest.raises(ValueError, match=r"^$"):
                rule.admit(value)
