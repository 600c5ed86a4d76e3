"""Every geom that a body shows is drawn by the software renderer, whether or not it can collide."""

from __future__ import annotations

import mujoco
import numpy as np

from diffpolicy_envs import TASKS, model_path
from diffpolicy_envs.rendering import make_renderer
from diffpolicy_envs.rendering.bounds import whole_boxes

SCENE = """<mujoco><worldbody><camera name='above' pos='0 0 3' fovy='45'/>
<body euler='10 20 30'><freejoint/>
  <geom type='box' size='.1 .1 .1' pos='-.8 0 0' rgba='0 0 1 1' mass='1'/>
  <geom type='box' size='.2 .2 .2' pos='.6 0 0' rgba='1 0 0 1' contype='0' conaffinity='0' mass='0'/>
</body></worldbody></mujoco>"""


def test_a_visual_geom_beside_a_colliding_one_is_drawn() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    kept = model.bvh_aabb.copy()
    picture = make_renderer(model, width=64, height=64, camera="above", backend="software").render(data).astype(int)
    red = picture[..., 0] - picture[..., 1:].max(-1)
    assert (red > 80).sum() > 20
    assert np.array_equal(model.bvh_aabb, kept)


def test_a_ray_at_any_geom_of_a_task_finds_what_a_single_ray_finds() -> None:
    for task in TASKS.values():
        model = mujoco.MjModel.from_xml_path(str(model_path(task.model)))
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, 0)
        mujoco.mj_forward(model, data)
        eye = np.array([1.2, -0.7, 0.8])
        for geom in range(model.ngeom):
            ray = data.geom_xpos[geom] - eye
            one, many = np.zeros(1, np.int32), np.zeros(1, np.int32)
            mujoco.mj_ray(model, data, eye, ray, None, 1, -1, one)
            with whole_boxes(model):
                mujoco.mj_multiRay(model, data, eye, ray.copy(), None, 1, -1, many, np.zeros(1), None, 1, 1e10)
            assert one[0] == many[0], model.geom(geom).name
