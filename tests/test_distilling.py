"""Laws of distillation without reinforcement learning, each on a density of two numbers whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffpolicy.data.batch import Demo
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.diffusion.denoiser import Denoiser
from diffpolicy.diffusion.sampler import Sampler
from diffpolicy.diffusion.schedule import SCHEDULES
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec
from diffpolicy.training.ema import Ema
from diffpolicy.updates import Regression, RegressionConfig
from diffpolicy.updates.distilling import aligned, consistency, paired, student_of
from diffpolicy.updates.intervals import mean_flow
from diffpolicy.updates.score import ScoreDifference
from diffpolicy.updates.targets import Draw, Target

SPACES = SpaceSpec({"a": Bounds((-1.0,), (1.0,))}, Bounds((-1.0, -1.0), (1.0, 1.0)), False)
CENTRES = torch.tensor([[0.6, 0.0], [-0.3, 0.5], [-0.3, -0.5]])
SPREAD = 0.06
SIZE = 192


def policy(steps: int = 1, **settings: Any) -> Policy:
    torch.manual_seed(0)
    network = settings.pop("network", MLPConfig(64, 2, 16))
    config = PolicyConfig(1, 1, 1, network=network, sampler=SamplerConfig(steps=steps, clip=None), **settings)
    made = Policy(config, SPACES)
    made.normaliser.fit({"a": torch.randn(9, 1)}, torch.randn(9, 2).clamp(-1, 1))
    made.normaliser.freeze()
    return made


def data(size: int, seed: int) -> Tensor:
    """Three spots, (size, 1, 2)."""
    random = torch.Generator().manual_seed(seed)
    which = torch.randint(3, (size,), generator=random)
    return (CENTRES[which] + SPREAD * torch.randn(size, 2, generator=random))[:, None]


def trained(
    student: Policy, target: Target | None, teacher: Policy | None, steps: int = 1500, lr: float = 2e-3
) -> Policy:
    update = Regression(student, steps, RegressionConfig(lr=lr), target=target, teacher=teacher)
    for step in range(steps):
        chunk = student.normaliser.unnormalise_action(data(SIZE, step))
        update(Demo({"a": torch.zeros(SIZE, 1, 1)}, chunk, torch.ones(SIZE, 1), held=True))
    return update.averaged()


@pytest.fixture(scope="module")
def teacher() -> Policy:
    return trained(policy(50), None, None, 1800)


def drawn(of: Policy, seed: int = 0) -> Tensor:
    noise = torch.randn(2000, 1, 2, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return of.sampler.draw(torch.zeros(2000, of.encoder.features), noise)[:, 0]


def away(samples: Tensor) -> float:
    """Mean distance to the nearest spot's centre; that of the data is 0.075."""
    return float(torch.cdist(samples, CENTRES).min(1).values.mean())


def shares(samples: Tensor) -> Tensor:
    return torch.bincount(torch.cdist(samples, CENTRES).argmin(1), minlength=3) / len(samples)


def draw(of: Policy, size: int = 8) -> Draw:
    torch.manual_seed(1)
    return Draw(torch.zeros(size, of.encoder.features), data(size, 0), torch.rand(size), torch.randn(size, 1, 2))


def test_the_teacher_knows_the_density(teacher: Policy) -> None:
    assert away(drawn(teacher)) < 0.12
    assert away(drawn(teacher.resampled(steps=1))) > 0.25  # and not in one step


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_grid_that_is_aligned_holds_the_students(teacher: Policy, steps: int) -> None:
    student = teacher.resampled(steps=steps)
    fine = aligned(teacher, student, 50).sampler
    assert len(fine) >= 50
    torch.testing.assert_close(fine.grid()[:: len(fine) // steps], student.sampler.grid())


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(("schedule", "prediction"), [("straight", "flow"), ("cosine", "v"), ("cosine", "eps")])
def test_a_student_that_answers_paired_targets_walks_the_teachers_chain(
    steps: int, schedule: str, prediction: str
) -> None:
    whole = policy(20, schedule=schedule, prediction=prediction)
    torch.nn.init.normal_(whole.denoiser.network.leave[1].weight, std=0.3)  # type: ignore[union-attr, index, arg-type]
    student = whole.resampled(steps=steps)
    fine = aligned(whole, student, 20)
    given = draw(whole)
    asked = paired(given, student, Ema(student), fine)
    x = asked.x[:8]
    for k in range(steps):
        x_weight, clean_weight = student.sampler.coefficients(k)  # type: ignore[union-attr]
        torch.testing.assert_close(x, asked.x[8 * k : 8 * k + 8])
        x = x_weight * x + clean_weight * asked.y[8 * k : 8 * k + 8]
    torch.testing.assert_close(x, fine.sampler.draw(given.obs, given.noise), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2])
def test_paired_regression_gives_the_teachers_samples_one_by_one(teacher: Policy, steps: int) -> None:
    student = student_of(teacher, steps)
    student = trained(student, paired, aligned(teacher, student, 10), 800)
    ours, theirs = drawn(student), drawn(teacher)
    assert float((ours - theirs).norm(dim=1).median()) < 0.08
    assert away(ours) < 0.18
    torch.testing.assert_close(shares(ours), shares(theirs), atol=0.05, rtol=0)


@pytest.mark.parametrize(("prediction", "steps"), [("eps", 1), ("eps", 2), ("v", 1), ("x0", 1)])  # flow: above
def test_a_teacher_may_predict_anything(prediction: str, steps: int) -> None:
    whole = trained(policy(20, schedule="squaredcos", prediction=prediction), None, None, 1200).resampled(
        clip=1.0
    )  # what keeps eps near at first
    student = student_of(whole, steps, clean=True)
    assert student.config.prediction == ("x0" if prediction == "eps" else prediction)
    student = trained(student, paired, aligned(whole, student, 20), 800)
    ours, theirs = drawn(student), drawn(whole)
    assert float((ours - theirs).norm(dim=1).median()) < 0.1
    torch.testing.assert_close(shares(ours), shares(theirs), atol=0.06, rtol=0)


class Exact(nn.Module):
    """The flow of normal data on straight lines, which takes noise z to MEAN + STD z, instead of a network."""

    def embed(self, t: Tensor) -> Tensor:
        return t.reshape(-1, 1, 1)

    def forward(self, x: Tensor, t: Tensor, obs: Tensor, s: Tensor | None = None) -> Tensor:
        del obs, s
        alpha = 1 - t
        clean = MEAN + alpha * STD**2 / ((alpha * STD).square() + t.square()) * (x - alpha * MEAN)
        velocity: Tensor = (x - clean) / t
        return velocity


MEAN, STD = torch.tensor([0.3, -0.2]), 0.25


@pytest.mark.parametrize("steps", [1, 2])
def test_a_teacher_may_be_an_exact_score(steps: int) -> None:
    whole = policy(40)
    student = student_of(whole, steps)
    exact = aligned(whole, student, 40)
    exact.sampler = Sampler(Denoiser(SCHEDULES["straight"], "flow", Exact()), exact.config.sampler)
    noise = torch.randn(2000, 1, 2, generator=torch.Generator().manual_seed(0))[:, 0]
    theirs = drawn(exact)
    torch.testing.assert_close(theirs, MEAN + STD * noise, atol=0.06, rtol=0)  # of Euler's forty steps
    ours = drawn(trained(student, paired, exact, 800))
    assert float((ours - theirs).norm(dim=1).mean()) < 0.02
    assert float((ours - MEAN - STD * noise).norm(dim=1).mean()) < 0.05


def test_students_halved_again_and_again_keep_the_density(teacher: Policy) -> None:
    student = trained(student_of(teacher, 4), paired, aligned(teacher, student_of(teacher, 4), 8), 400)
    for steps in (2, 1):
        next_one = student_of(student, steps)
        student = trained(next_one, paired, aligned(student, next_one, 2 * steps), 600)
    assert away(drawn(student)) < 0.2
    assert float(shares(drawn(student)).min()) > 0.2


def test_consistency_gives_samples_of_the_density_in_one_step(teacher: Policy) -> None:
    student = student_of(teacher, 1)
    student = trained(student, consistency, aligned(teacher, student, 10), 2200)
    assert away(drawn(student)) < 0.22
    assert float(shares(drawn(student)).min()) > 0.2


@pytest.mark.parametrize("steps", [1, 2])
def test_the_difference_of_scores_leads_to_the_density(teacher: Policy, steps: int) -> None:
    student = trained(student_of(teacher, steps), ScoreDifference(teacher, steps), teacher, 700, 1e-3)
    assert away(drawn(student)) < 0.22
    assert float(shares(drawn(student)).min()) > 0.2


@pytest.mark.parametrize("model", ["shortcut", "mean_flow"])
def test_models_of_two_times_learn_one_step_from_data_alone(model: str) -> None:
    student = trained(policy(1, model=model), None, None, 1800)
    assert away(drawn(student)) < 0.25
    assert float(shares(drawn(student)).min()) > 0.2
    assert away(drawn(student.resampled(steps=8))) < 0.15


def test_a_mean_flow_of_no_length_is_flow_matching() -> None:
    student = policy(1, model="mean_flow", network=MLPConfig(16, 1, 6))
    given = draw(student)
    asked = mean_flow(given, student, Ema(student), None)
    rest = slice(2, None)
    assert asked.s is not None
    assert torch.equal(asked.t[rest], asked.s[rest])
    torch.testing.assert_close(asked.y[rest], given.chunk[rest], atol=1e-5, rtol=1e-5)


def test_a_mean_flow_differentiates_along_the_flow() -> None:
    student = policy(1, model="mean_flow", network=MLPConfig(16, 1, 6)).double()
    torch.nn.init.normal_(student.network.leave[1].weight, std=0.3)  # type: ignore[union-attr, index, arg-type]
    given = Draw(*(part.double() for part in draw(student)[:4]))
    asked = mean_flow(given, student, Ema(student), None)
    assert asked.s is not None
    for row in (0, 1):
        x, t, s, obs = asked.x[row], float(asked.t[row]), asked.s[row], given.obs[row]
        v, step = given.noise[row] - given.chunk[row], 1e-5

        def mean(by: float, x: Tensor = x, t: float = t, s: Tensor = s, obs: Tensor = obs, v: Tensor = v) -> Tensor:
            now = torch.tensor([t + by], dtype=torch.float64)
            clean = student.denoiser((x + by * v)[None], now, obs[None], s[None])
            return ((x + by * v)[None] - clean)[0] / now

        slope = (mean(step) - mean(-step)) / (2 * step)
        velocity = (x - asked.y[row]) / t
        torch.testing.assert_close(velocity, (v - (t - s) * slope).detach(), atol=1e-6, rtol=1e-5)


def test_a_target_that_needs_a_teacher_says_so(teacher: Policy) -> None:
    given = draw(teacher)
    for target in (paired, consistency, ScoreDifference(teacher, 1)):
        with pytest.raises(InputError, match="name its checkpoint"):
            target(given, teacher, Ema(teacher), None)
    with pytest.raises(InputError, match="at least the student's 4 steps"):
        aligned(teacher, teacher.resampled(steps=4), 3)
