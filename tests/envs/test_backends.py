"""MuJoCo's two modules that step many simulations, each beside a loop over `mj_step`."""

import copy

import mujoco
import numpy as np
import pytest

from metarl.envs.mujoco.backends import BatchBackend, RolloutBackend, has_batch, new_backend
from metarl.envs.mujoco.engine import BatchedPhysics
from metarl.envs.mujoco.robots import ANT, HALF_CHEETAH

BACKENDS = ["rollout", *(["batch"] if has_batch() else [])]
ARM = """
<mujoco>
  <worldbody><body><joint name="elbow" damping="1"/><geom size="0.1" mass="1" pos="0.2 0 0"/></body></worldbody>
  <actuator><general joint="elbow" dyntype="integrator" gainprm="10" ctrlrange="-1 1"/></actuator>
</mujoco>
"""

both_backends = pytest.mark.parametrize("name", BACKENDS)


def heavier(model: mujoco.MjModel, factor: float) -> mujoco.MjModel:
    """A copy of a model with all masses and inertias scaled."""
    other = copy.copy(model)
    other.body_mass[:] *= factor
    other.body_inertia[:] *= factor
    data = mujoco.MjData(other)
    mujoco.mj_setConst(other, data)
    return other


def loop(model: mujoco.MjModel, state: np.ndarray, controls: np.ndarray, skip: int) -> np.ndarray:
    """The state after steps of one simulation under controls [step, nu]."""
    data, spec = mujoco.MjData(model), mujoco.mjtState.mjSTATE_FULLPHYSICS
    mujoco.mj_setState(model, data, state, spec)
    for control in controls:
        data.ctrl[:] = control
        for _ in range(skip):
            mujoco.mj_step(model, data)
    after = np.zeros_like(state)
    mujoco.mj_getState(model, data, after, spec)
    return after


@both_backends
@pytest.mark.parametrize("robot", [HALF_CHEETAH, ANT], ids=lambda robot: robot.name)
def test_rows_of_different_models_equal_a_loop_over_mj_step(name, robot):
    nominal = robot.build_model()
    physics = BatchedPhysics(nominal, 4, 3, 2, backend=name)
    models = [nominal, heavier(nominal, 1.5), heavier(nominal, 0.7), nominal]
    physics.set_models(models)
    rng = np.random.default_rng(0)
    physics.set_states(np.arange(4), *robot.reset_states(nominal, [rng] * 4))
    states = physics.states.copy()
    controls = rng.uniform(-1, 1, (20, 4, nominal.nu))
    for control in controls:
        physics.step(control)
    expected = [loop(models[row], states[row], controls[:, row], 3) for row in range(4)]
    np.testing.assert_array_equal(physics.states, expected)
    assert not np.array_equal(physics.states[0], physics.states[1])
    physics.close()


@both_backends
def test_some_rows_step_alone_and_with_skips_of_their_own(name):
    nominal = HALF_CHEETAH.build_model()
    physics = BatchedPhysics(nominal, 3, 2, 1, backend=name)
    physics.set_frame_skips(np.array([2, 5, 2]))
    physics.set_states(np.arange(3), *HALF_CHEETAH.reset_states(nominal, [np.random.default_rng(1)] * 3))
    states, controls = physics.states.copy(), np.full((2, nominal.nu), 0.5)
    physics.step(controls, np.array([1, 2]))
    np.testing.assert_array_equal(physics.states[0], states[0])
    np.testing.assert_array_equal(physics.states[1], loop(nominal, states[1], controls[:1], 5))
    np.testing.assert_array_equal(physics.states[2], loop(nominal, states[2], controls[:1], 2))
    physics.close()


@both_backends
def test_an_actuators_activation_is_part_of_the_state(name):
    model = mujoco.MjModel.from_xml_string(ARM)
    assert model.na == 1
    physics = BatchedPhysics(model, 2, 4, 2, backend=name)
    state = physics.states.copy()
    for _ in range(5):
        physics.step(np.array([[1.0], [-0.5]]))
    expected = [loop(model, state[row], np.full((5, 1), control), 4) for row, control in enumerate((1.0, -0.5))]
    np.testing.assert_array_equal(physics.states, expected)
    assert physics.states[0, -1] == pytest.approx(5 * 4 * model.opt.timestep)  # the integral of the control
    physics.close()


@both_backends
def test_the_number_of_rows_changes(name):
    nominal = HALF_CHEETAH.build_model()
    physics = BatchedPhysics(nominal, 2, 1, 1, backend=name)
    physics.step(np.zeros((2, nominal.nu)))
    physics.resize(5)
    physics.set_states(np.arange(5), *HALF_CHEETAH.reset_states(nominal, [np.random.default_rng(2)] * 5))
    states = physics.states.copy()
    physics.step(np.zeros((5, nominal.nu)))
    np.testing.assert_array_equal(physics.states[4], loop(nominal, states[4], np.zeros((1, nominal.nu)), 1))
    physics.close()
    physics.close()


def test_the_installed_mujoco_chooses_the_backend():
    model = HALF_CHEETAH.build_model()
    backend = new_backend(model, 1)
    assert isinstance(backend, BatchBackend if has_batch() else RolloutBackend)
    assert isinstance(new_backend(model, 1, "rollout"), RolloutBackend)
    with pytest.raises(ValueError, match="expected a backend of batch or rollout, got 'warp'"):
        new_backend(model, 1, "warp")


@pytest.mark.skipif(has_batch(), reason="this MuJoCo has mujoco.batch")
def test_a_backend_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"mujoco\.batch is in MuJoCo 3\.17 and later; .* is installed"):
        new_backend(HALF_CHEETAH.build_model(), 1, "batch")
