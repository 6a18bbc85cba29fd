"""Single-line faults of environments, each with the tests that should notice."""

from tests.faults.fault import Fault, faults

_VECTOR = ("tests/envs/test_vector_env.py", "tests/envs/test_toy_families.py")
_TOY = ("tests/envs/test_toy_families.py", "tests/envs/test_families.py")
_ENGINE = ("tests/envs/test_mujoco_parity.py", "tests/envs/test_dynamics_env.py", "tests/envs/test_vector_env.py")
_LOCOMOTION = (
    "tests/envs/test_reward_terms.py",
    "tests/envs/test_families.py",
    "tests/envs/test_mujoco_parity.py",
    "tests/envs/test_vector_env.py",
)
_DYNAMICS = ("tests/envs/test_dynamics_env.py", "tests/envs/test_dynamics_tasks.py")
_MODELS = ("tests/envs/test_dynamics_models.py", "tests/envs/test_dynamics_env.py")
_EFFECTS = ("tests/envs/test_dynamics_effects.py",)
_RECOVERY = ("tests/envs/test_dynamics_recovery.py",)
_RANGES = ("tests/envs/test_dynamics_tasks.py",)
_TERMS = ("tests/envs/test_reward_terms.py",)
_HOSTS = ("tests/envs/test_processes.py", "tests/envs/test_custom_family.py")
_GLOBAL = ("tests/envs/test_global_random.py", "tests/envs/test_custom_family.py")

FAULTS: list[Fault] = [
    *faults(
        "envs/vector.py",
        _VECTOR,
        ("self._elapsed[index] += 1", "self._elapsed[index] += 2"),
        ("self._ended[rows] = False", "self._ended[:] = False"),
        ("self._observations[rows] = observations", "self._observations[:] = observations[0]"),
        ("[seed + i for i in range(self.num_envs)]", "[seed for i in range(self.num_envs)]"),
        ("flags[0, going], flags[1, going], step_infos", "flags[1, going], flags[0, going], step_infos"),
        ("merged[name] = first[name] | value", "merged[name] = value"),
        ('np.where(_expand(second[f"_{name}"], value.ndim), value, first[name])', "value"),
        ("self._seeded(np.fromiter(chosen, dtype=np.int64))", "pass"),
        (
            "return Transition(after, rewards, terminated, truncated, infos)",
            "return Transition(after, rewards, terminated, truncated & ~terminated, infos)",
        ),
        ("self._ended[:] = True", "pass"),
    ),
    *faults(
        "envs/toy/noise.py",
        _TOY,
        ("self._taken[index] = taken + 1", "self._taken[:] += 1"),
        ("self._taken[empty] = 0", "self._taken[empty] = 1"),
        ("self._draw(rngs[row],", "self._draw(rngs[0],"),
    ),
    *faults(
        "envs/toy/tabular.py",
        _TOY,
        ("if len(wrong):", "if False:"),
        ("self._states[index] = below.sum(1)", "self._states[index] = below.sum(1) - 1"),
        ("best = returns.max(2)", "best = returns.mean(2)"),
        ("self._normals.discard(rows)", "pass"),
    ),
    *faults(
        "envs/toy/gridnavi.py",
        _TOY,
        ("(cells == goals).all(1)", "(cells == goals).any(1)"),
        (
            "(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])  # no-op",
            "(0, 0), (0, 1), (1, 0), (-1, 0), (0, -1)])  # no-op",
        ),
    ),
    *faults(
        "envs/mujoco/engine.py",
        _ENGINE,
        ("model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART.value", "pass"),
        ("self.states[rows] = 0.0", "pass"),
        (
            "self._advance(controls[skips == skip], indices[skips == skip], skip)",
            "self._advance(controls[skips == skip], indices[skips == skip], first)",
        ),
        ("if (size := _sizes(model)) != own:", "if False:"),
        ("mujoco.mj_comPos(model, data)", "pass"),
    ),
    *faults(
        "envs/mujoco/backends.py",
        _ENGINE,
        ("held[:] = controls[:, None]", "held[:, 0] = controls"),
        ("trace[:, -1]", "trace[:, 0]"),
        ("[self._models[row] for row in rows]", "self._models[: len(rows)]"),
    ),
    *faults(
        "envs/mujoco/locomotion.py",
        _LOCOMOTION,
        ("terminated = terminated | ~within", "terminated = terminated & ~within"),
        ("columns = 2 if self.robot.hidden_qpos == 2 else 1", "columns = 1"),
        ("before, measured = self._tracked(index).copy()", "before, measured = self._tracked(index)"),
        ('"y_velocity": motion.velocity[:, 1]', '"y_velocity": motion.velocity[:, 0]'),
        ("(positions[name] - measured[name]) / self._duration(index)", "(positions[name] - measured[name])"),
        (
            "self.physics.set_models([models[task] for task in tasks])",
            "self.physics.set_models(list(models.values()) * (len(tasks) // len(models)))",
        ),
        ("0 if family.position_observed else self.robot.hidden_qpos", "self.robot.hidden_qpos"),
    ),
    *faults(
        "envs/dynamics/control.py",
        _DYNAMICS,
        ("self._depth = longest + 1", "self._depth = max(1, longest)"),
        ("arrived[newest < 0] = 0.0", "pass"),
        ("np.floor(uniform * (jitter + 1))", "np.floor(uniform * jitter)"),
        ("np.maximum.at(newest", "np.minimum.at(newest"),
        ("after = steps >= self._change_steps[rows, None]", "after = steps > self._change_steps[rows, None]"),
        ("np.where(after, after_loop.bias[rows], before_loop.bias[rows])", "before_loop.bias[rows]"),
        ("np.where(after, after_loop.noise[rows], before_loop.noise[rows])", "before_loop.noise[rows]"),
        ("components[matched] = place if r.each else 0", "components[matched] = place"),
        ("self._phase[rows] = 0", "pass"),
    ),
    *faults(
        "envs/dynamics/recovery.py",
        _RECOVERY,
        (
            "enough &= (starts >= change[:, None])[:, None] & (starts + window <= lengths[..., None])",
            "enough &= (starts >= change[:, None])[:, None]",
        ),
        ("before - tolerance * np.abs(before)", "before - tolerance * before"),
        ("usable = (before_at >= 0)", "usable = (before_at >= -1)"),
        ("enough.argmax(-1) - change[:, None]", "enough.argmax(-1)"),
    ),
    *faults(
        "envs/dynamics/ranges.py",
        _RANGES,
        ("np.nextafter(self.low, -np.inf)", "self.low"),
        ("rng.integers(int(low), int(high) + 1, shape)", "rng.integers(int(low), int(high), shape)"),
        ("np.exp(rng.uniform(math.log(low), math.log(high), shape))", "rng.uniform(low, high, shape)"),
        ("width = self.ring * (self.high - self.low)", "width = self.ring"),
        ("return math.log(high / low) if self.scale", "return high - low if self.scale"),
        ("low, high, at = math.log(low), math.log(high), np.log(values)", "pass"),
    ),
    *faults(
        "envs/dynamics/effects.py",
        _EFFECTS,
        ("if touched is None:", "if touched is False:"),
        (
            "(nothing if touched or not _could_touch(nominal, own) else untried)",
            "(untried if touched or not _could_touch(nominal, own) else nothing)",
        ),
        ("model.geom_contype & model.geom_conaffinity[i])", "model.geom_conaffinity[i])"),
        ("model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT.value", "False"),
    ),
    *faults(
        "envs/dynamics/physics.py",
        _MODELS,
        (
            "gravity[2] = math.cos(angle) * z - math.sin(angle) * x",
            "gravity[2] = math.cos(angle) * z + math.sin(angle) * x",
        ),
        (
            "gravity[0] = math.cos(angle) * x + math.sin(angle) * z",
            "gravity[0] = math.cos(angle) * x - math.sin(angle) * z",
        ),
        ("mujoco.mj_setConst(model, scratch)", "pass"),
        ("value = np.minimum(np.take_along_axis(model.body_inertia, largest, 1), others)", "value = others"),
        ("1.0 if self.timestep is None else timestep / self.timestep", "1.0"),
        ("model = copy.copy(nominal)", "model = nominal"),
        (
            "model.geom_priority[i] = model.geom_priority[static].max() + 1",
            "model.geom_priority[i] = model.geom_priority[static].max()",
        ),
        ("frames[owners == i] = 0", "pass"),
    ),
    *faults(
        "envs/dynamics/terms.py",
        _TERMS,
        ("term.weight * term.values(motion, actions)", "term.values(motion, actions)"),
        ("(values >= self.low) & (values <= self.high)", "(values >= self.low)"),
        ("np.sqrt(np.square(offset).sum(1))", "np.square(offset).sum(1)"),
        ('motion.velocities if self.term == "velocity"', 'motion.positions if self.term == "velocity"'),
        ("return motion.positions[self.measured][:, 2]", "return motion.positions[self.measured][:, 0]"),
        ("return source[to][:, columns]", "return source[to]"),
    ),
    *faults(
        "envs/gymnasium/vector_env.py",
        _HOSTS,
        ("self._ended[index] |= cut", "pass"),
        ("truncated=transition.truncated | cut", "truncated=transition.truncated"),
        ("None if whole else rows[places] // count", "None"),
        ("self._cut[stepped] = shared.truncated[stepped]", "self._cut[stepped] |= shared.truncated[stepped]"),
        ("seeds[places].tolist()", "seeds[: len(places)].tolist()"),
        ("self._failed = True  # until all is well", "pass"),
    ),
    *faults(
        "envs/gymnasium/host_rows.py",
        _HOSTS,
        ("used[kind] += 1", "pass"),
        ("arrays.infos[row, column] = 0.0", "pass"),
        ("self._reported[row].clear()", "pass"),
        ("self._arrays.actions[row] = action\n", "self._arrays.actions[row] = 0 * action\n"),
        ("arrays.truncated[row] = step.truncated", "arrays.truncated[row] = False"),
    ),
    *faults(
        "envs/gymnasium/global_random.py",
        _GLOBAL,
        ("self._streams[row] = _state()", "pass"),
        ("            _set_state(outside)\n", "            pass\n"),
        ("self._streams.pop(row, None)", "pass"),
        ("random.seed(self._seeds[row])\n        before", "pass\n        before"),
    ),
]
