"""Laws of mistakes in the MJCF file of a task of one's own: each is refused in words before the first step."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_task import carted

from diffpolicy_envs import TASKS, Simulations, Task, assets_folder, model_path
from diffpolicy_envs.tasks.pick_place import PickPlace


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ('qpos="0" qvel="0" ctrl="0 0"', "MuJoCo cannot read"),
        ('qpos="nan"', r"first keyframe in .*cart\.xml has nan at place 0 of qpos; write finite numbers"),
        ('qpos="0" ctrl="inf"', "has inf at place 0 of ctrl"),
    ],
)
def test_home_that_is_not_finite_is_told_from_physics_that_diverges(tmp_path: Path, key: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"task Cart: .*{message}"):
        Simulations(carted(tmp_path, keyframe=f"<keyframe><key {key}/></keyframe>"), 1)


def pick_place(folder: Path, **replaced: str) -> type[Task]:
    """PickPlace from a file of one's own, in which the first of each is replaced."""
    text = (assets_folder() / "models" / "pick_place.xml").read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "mine.xml").write_text(text, encoding="utf-8")
    return type("PickPlace", (PickPlace,), {"model": folder / "mine.xml"})


def test_home_that_lacks_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task PickPlace: .*mine\.xml gives 15 of the 16 numbers of qpos; write all"):
        Simulations(pick_place(tmp_path, **{"0.025 1 0 0 0": "0.025 1 0 0"}), 1)


def test_sensor_of_another_type_is_named(tmp_path: Path) -> None:
    task = pick_place(tmp_path, framepos="framequat")
    with pytest.raises(ValueError, match=r"the sensor 'object_position' in .* gives 4 numbers, expected 3"):
        Simulations(task, 1)


def test_file_without_actuators_is_refused(tmp_path: Path) -> None:
    task = carted(tmp_path)
    path = Path(task.model)
    path.write_text(re.sub("<actuator>.*</actuator>", "", path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=r"task Cart needs an actuator in its MJCF file .*cart\.xml"):
        Simulations(task, 1)


@pytest.mark.parametrize("name", TASKS)
def test_joints_and_bodies_that_a_task_looks_up_are_among_its_needs(tmp_path: Path, name: str) -> None:
    """Without any one named thing a task is made all the same, or says in words what it misses."""
    task, path = TASKS[name], model_path(TASKS[name].model)
    tree, said = ElementTree.parse(path), []
    for each in tree.getroot().find("worldbody").iter():  # type: ignore[union-attr]
        if (old := each.get("name")) is not None:
            each.set("name", f"{old}_")
            tree.write(tmp_path / "mine.xml")
            each.set("name", old)
            try:
                Simulations(type(task.__name__, (task,), {"model": tmp_path / "mine.xml"}), 1)
            except ValueError as error:
                said.append(str(error))
    assert said
    assert all(message.startswith(f"task {task.__name__}") for message in said)
