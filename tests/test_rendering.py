"""Laws of off-screen rendering: what is seen, and that no driver can end the run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from diffpolicy_envs import rendering
from diffpolicy_envs.rendering import backend as choice
from diffpolicy_envs.rendering import make_renderer, resolve_backend

RED = "rgba='1 0 0 1'"
BLUE = "rgba='0 0 1 1'"
ABOVE = "<camera name='above' pos='0 0 3' fovy='45'/>"
FLOOR = "<geom type='plane' size='5 5 .1' rgba='.8 .8 .8 1'/>"


def compiled(body: str, asset: str = "") -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(f"<mujoco><asset>{asset}</asset><worldbody>{body}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def drawn(body: str, asset: str = "", samples: int = 1, size: int = 64) -> np.ndarray:
    model, data = compiled(body, asset)
    renderer = make_renderer(model, width=size, height=size, backend="software", samples=samples)
    return renderer.render(data).astype(int)


def redness(picture: np.ndarray) -> np.ndarray:
    return np.asarray(picture[..., 0] - picture[..., 1:].max(-1))


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process that has not chosen its renderer yet, with no wishes in the environment."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DIFFPOLICY_RENDERER", raising=False)
    monkeypatch.setattr(choice, "_resolved", None)
    choice.probe.cache_clear()
    yield monkeypatch
    choice.probe.cache_clear()


def test_a_red_box_is_red_in_the_middle_and_nowhere_else() -> None:
    model, data = compiled(ABOVE + f"<geom type='box' size='.4 .4 .4' {RED}/>")
    picture = make_renderer(model, width=80, height=48, camera="above", backend="software").render(data)
    assert picture.shape == (48, 80, 3)
    assert picture.dtype == np.uint8
    red = redness(picture.astype(int))
    assert red[24, 40] > 100
    assert max(red[i, j] for i in (0, -1) for j in (0, -1)) < 10


@pytest.mark.parametrize(("height", "shown"), [(0.5, 2), (-0.5, 0)])
def test_the_nearer_geom_hides_the_farther(height: float, shown: int) -> None:
    near = f"<geom type='box' size='.3 .3 .1' pos='0 0 {height}' {BLUE}/>"
    assert drawn(ABOVE + near + f"<geom type='box' size='.3 .3 .1' {RED}/>")[32, 32].argmax() == shown


def test_a_box_in_the_light_darkens_the_floor_beside_it() -> None:
    lamp = "<light pos='-2 0 2' dir='1 0 -1' cutoff='80' exponent='0'/>"
    box = "<geom type='box' size='.2 .2 .2' pos='0 0 .2'/>"
    bare, shaded = drawn(ABOVE + FLOOR + lamp), drawn(ABOVE + FLOOR + lamp + box)
    darker = (bare - shaded).mean(-1)
    assert darker[32, 42] > 40  # behind the box
    assert abs(darker[32, 15]) < 1  # between lamp and box


def test_a_distant_light_casts_shadows_along_its_direction() -> None:
    lamp = "<light type='directional' dir='1 0 -1'/>"
    darker = drawn(ABOVE + FLOOR + lamp) - drawn(
        ABOVE + FLOOR + lamp + "<geom size='.2' pos='0 0 .5' rgba='.8 .8 .8 1'/>"
    )
    assert darker[32, 45].mean() > 40
    assert abs(darker[32, 10].mean()) < 1


def test_moving_the_camera_moves_the_picture() -> None:
    model, data = compiled(ABOVE + f"<geom size='.1' {RED}/>")
    renderer = make_renderer(model, width=64, height=64, backend="software")
    before = redness(renderer.render(data).astype(int))
    data.cam_xpos[0] += [0.5, 0.0, 0.0]
    after = redness(renderer.render(data).astype(int))
    columns = [np.argwhere(red > 50)[:, 1].mean() for red in (before, after)]
    assert columns[0] - columns[1] == pytest.approx(0.5 / 3 * 32 / np.tan(np.radians(22.5)), abs=1)


def test_camera_rays_agree_with_projection() -> None:
    model, data = compiled(
        f"<camera pos='1 -2 1.5' xyaxes='.9 .4 0 -.2 .4 .8' fovy='50'/><geom size='.03' pos='.3 .2 .1' {RED}/>"
    )
    red = redness(make_renderer(model, width=200, height=150, backend="software").render(data).astype(int))
    local = data.cam_xmat[0].reshape(3, 3).T @ (np.array([0.3, 0.2, 0.1]) - data.cam_xpos[0])
    focal = 75 / np.tan(np.radians(25))
    expected = [75 - focal * local[1] / -local[2] - 0.5, 100 + focal * local[0] / -local[2] - 0.5]
    np.testing.assert_allclose(np.argwhere(red > 40).mean(0), expected, atol=0.7)


def test_an_invisible_or_hidden_geom_is_not_drawn_and_a_translucent_one_is_mixed_in() -> None:
    below = ABOVE + f"<geom type='box' size='.5 .5 .1' pos='0 0 -1' {RED}/>"
    pane = "<geom type='box' size='.5 .5 .1' rgba='0 0 1 {}'/>"
    clear, mixed, solid = (drawn(below + pane.format(alpha))[32, 32] for alpha in (0, 0.4, 1))
    np.testing.assert_array_equal(clear, drawn(below)[32, 32])
    np.testing.assert_array_equal(clear, drawn(below + f"<geom size='.2' group='3' {BLUE}/>")[32, 32])
    assert clear[0] > mixed[0] > solid[0]
    assert clear[2] < mixed[2] < solid[2]


@pytest.mark.parametrize("kind", ["sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh", "plane"])
def test_every_kind_of_geom_is_drawn(kind: str) -> None:
    mesh = "<mesh name='tetra' vertex='-1 -1 0  1 -1 0  0 1 0  0 0 1' scale='.4 .4 .4'/>"
    shape = "mesh='tetra'" if kind == "mesh" else "size='.3 .3 .3'"
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        picture = drawn(ABOVE + f"<geom type='{kind}' {shape} {RED}/>", mesh, samples=4)
    assert redness(picture)[32, 32] > 60
    assert redness(picture)[1, 1] < 10


@pytest.mark.parametrize("kind", ["sphere", "capsule", "ellipsoid", "cylinder", "box"])
def test_a_site_is_drawn_where_a_geom_of_its_shape_would_be(kind: str) -> None:
    place = f"type='{kind}' size='.3 .2 .25' euler='30 40 0' {RED}"
    site, geom = (redness(drawn(ABOVE + f"<{name} {place}/>")) > 30 for name in ("site", "geom"))
    assert geom.sum() > 50
    assert (site != geom).mean() < 0.005


def test_a_checker_floor_has_two_tones_of_equal_size() -> None:
    checker = (
        "<texture name='c' type='2d' builtin='checker' rgb1='0 0 0' rgb2='1 1 1' width='64' height='64'/>"
        "<material name='c' texture='c' texrepeat='2 2' specular='0'/>"
    )
    picture = drawn(
        ABOVE + "<light type='directional' dir='0 0 -1'/><geom type='plane' size='2 2 .1' material='c'/>", checker
    )
    light = picture.mean(-1) > 100
    assert light.mean() == pytest.approx(0.5, abs=0.06)
    assert light[16, 16] == light[48, 48] != light[16, 48]


def test_the_sky_takes_the_colours_of_the_skybox() -> None:
    sky = "<texture type='skybox' builtin='gradient' rgb1='0 1 0' rgb2='0 1 0' width='16' height='96'/>"
    assert (drawn("<camera/>", sky) == [0, 255, 0]).all()


def test_more_samples_soften_edges() -> None:
    body = ABOVE + f"<geom type='box' size='.4 .4 .01' euler='0 0 20' {RED}/>"
    rough, smooth = (len(np.unique(redness(drawn(body, samples=n)) // 8)) for n in (1, 4))
    assert smooth > rough


def test_another_model_of_the_same_structure_can_be_drawn_and_none_is_changed() -> None:
    model, data = compiled(ABOVE + f"<geom size='.2' {RED}/><geom size='.1' pos='.5 0 0' rgba='0 1 0 .5'/>")
    renderer = make_renderer(model, width=64, height=64, backend="software")
    other, _ = compiled(ABOVE + f"<geom size='.2' {BLUE}/><geom size='.1' pos='.5 0 0'/>")
    groups = model.geom_group.copy()
    assert renderer.render(data)[32, 32].argmax() == 0
    assert renderer.render(data, other)[32, 32].argmax() == 2
    np.testing.assert_array_equal(model.geom_group, groups)


def test_the_free_camera_sees_the_model() -> None:
    model, data = compiled(f"<geom size='.3' pos='4 5 6' {RED}/>")
    picture = make_renderer(model, width=32, height=32, camera=-1, backend="software").render(data)
    assert redness(picture.astype(int))[16, 16] > 60


@pytest.mark.parametrize(
    "arguments", [{"camera": "nowhere"}, {"camera": 3}, {"backend": "vulkan"}, {"width": 0}, {"samples": 3}]
)
def test_unusable_arguments_are_named(arguments: dict[str, object]) -> None:
    model, _ = compiled(ABOVE)
    with pytest.raises(ValueError, match="expected"):
        make_renderer(model, **arguments)  # type: ignore[arg-type]


def test_an_orthographic_camera_is_refused_by_the_ray_caster() -> None:
    model, _ = compiled("<camera projection='orthographic'/>")
    with pytest.raises(ValueError, match="perspective"):
        make_renderer(model, backend="software")


@pytest.mark.parametrize("variable", ["MUJOCO_GL", "DIFFPOLICY_RENDERER"])
def test_asking_for_no_opengl_gives_software(undecided: pytest.MonkeyPatch, variable: str) -> None:
    undecided.setenv(variable, "off" if variable == "MUJOCO_GL" else "software")
    undecided.setattr(choice, "_command", lambda name: pytest.fail(f"{name} was tried"))
    found = resolve_backend()
    assert found.name == "software"
    assert variable in found.reason
    assert resolve_backend() is found


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("import os; os.abort()", "exit status"),
        ("import time; time.sleep(60)", "did not answer"),
        ("raise RuntimeError('no screens')", "no screens"),
    ],
)
def test_a_driver_that_breaks_leaves_software(undecided: pytest.MonkeyPatch, child: str, said: str) -> None:
    undecided.setattr(choice, "_missing", lambda name: None)
    undecided.setattr(choice, "_command", lambda name: [sys.executable, "-I", "-c", child])
    undecided.setattr(choice, "PROBE_SECONDS", 0.3 if "sleep" in child else 20.0)
    found = resolve_backend()
    assert found.name == "software"
    assert said in found.reason
    assert "\n" not in found.reason
    with pytest.raises(RuntimeError, match="does not work here"):
        make_renderer(compiled(ABOVE)[0], backend="egl")


def test_without_libraries_no_child_is_started(undecided: pytest.MonkeyPatch) -> None:
    undecided.setattr(sys, "platform", "linux")
    undecided.setattr(choice, "_loads", lambda library: False)
    undecided.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a child was started"))
    found = resolve_backend()
    assert found.name == "software"
    assert "libEGL.so.1" in found.reason


def test_opengl_that_fails_in_this_process_is_not_tried_again(undecided: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("lost the device")

    undecided.setattr(choice, "_resolved", choice.Backend("egl", "it worked a moment ago"))
    undecided.setattr(rendering, "OpenGLRenderer", broken)
    assert make_renderer(compiled(ABOVE)[0]).backend == "software"
    assert "lost the device" in resolve_backend().reason


@pytest.mark.usefixtures("undecided")
def test_opengl_and_software_draw_the_same_scene() -> None:
    name = resolve_backend().name
    if name == "software":
        pytest.skip(resolve_backend().reason)
    model, data = compiled(ABOVE + FLOOR + f"<light pos='0 0 3'/><geom type='box' size='.3 .2 .1' {RED}/>")
    before = model.vis.quality.shadowsize, model.vis.global_.offwidth
    renderers = [make_renderer(model, width=64, height=64, backend=each) for each in (name, "software")]
    opengl, software = (redness(each.render(data).astype(int)) > 40 for each in renderers)
    assert (opengl != software).mean() < 0.02
    assert (model.vis.quality.shadowsize, model.vis.global_.offwidth) == before
    for each in renderers * 2:
        each.close()
