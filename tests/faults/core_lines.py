"""Single-line faults of the learning core, agents, environments and few-shot parts, each with its tests."""

from tests.faults.fault import Fault, faults

_AGENTS = ("tests/agents/test_agents.py",)
_BILEVEL = ("tests/learning/test_bilevel.py",)
_ADVANTAGES = ("tests/learning/test_advantages.py",)
_LOSSES = ("tests/nets/test_policies.py", "tests/agents/test_pearl.py")
_TRUST = ("tests/learning/test_trust_region.py", "tests/agents/test_agents.py")
_REPLAY = ("tests/learning/test_replay.py",)
_TRIALS = ("tests/learning/test_trials.py",)
_PEARL = ("tests/agents/test_pearl.py",)
_TOY = ("tests/envs/test_toy_families.py", "tests/envs/test_families.py")
_FAMILIES = ("tests/envs/test_families.py",)
_VECTOR = ("tests/envs/test_vector_env.py",)
_DYNAMICS = ("tests/envs/test_dynamics_env.py", "tests/envs/test_dynamics_tasks.py")
_EVALUATION = ("tests/test_evaluation.py",)
_FEWSHOT = ("tests/fewshot",)


FAULTS: list[Fault] = [
    *faults(
        "metarl/learning/bilevel.py",
        _BILEVEL,
        (
            "return torch.sub(param, grad, alpha=self.lr)",
            "return torch.add(param, grad, alpha=self.lr)",
        ),
        (
            "return param - rate[min(step, len(rate) - 1)] * grad",
            "return param - rate[0] * grad",
        ),
        ('create_graph=tracked and order == "second"', "create_graph=tracked"),
        ("for step, batch in enumerate(batches):", "for step, batch in enumerate(batches, 1):"),
        ("current = dict(trace[-1]) if tracked", "current = dict(trace[0]) if tracked"),
    ),
    *faults(
        "metarl/learning/advantages.py",
        _ADVANTAGES,
        ("going = (~terminated).to(rewards.dtype)", "going = torch.ones_like(rewards)"),
        ("torch.full_like(rewards, gamma)", "torch.ones_like(rewards)"),
        ("sums = sums + products * later", "sums = sums + later"),
        ("reach *= 2", "reach += 1"),
        ("gamma * gae_lambda * going)", "gamma * gae_lambda * torch.ones_like(going))"),
        (
            "deltas = rewards + gamma * values[..., 1:] * going - values[..., :-1]",
            "deltas = rewards + values[..., 1:] * going - values[..., :-1]",
        ),
        ("clipped = observations.double().clamp(-10, 10)", "clipped = observations.double()"),
        ("centred = (advantages - mean) * mask", "centred = advantages - mean"),
        (
            "powers = torch.stack((time, time**2, time**3, torch.ones_like(time)), dim=-1)",
            "powers = torch.stack((time, time**2, time**2, torch.ones_like(time)), dim=-1)",
        ),
    ),
    *faults(
        "metarl/learning/losses.py",
        _LOSSES,
        (
            "return (values * weights).sum(1) / weights.sum(1).clamp(min=1)",
            "return (values * weights).sum(1) / weights.shape[1]",
        ),
        ("clipped = ratio.clamp(1 - clip_ratio, 1 + clip_ratio)", "clipped = ratio.clamp(max=1 + clip_ratio)"),
        ("return (ratio * advantages).minimum(clipped * advantages)", "return clipped * advantages"),
        (
            "return where(terminated > 0, rewards, rewards + gamma * next_values)",
            "return rewards + gamma * next_values",
        ),
        (
            "return (values - targets).square().flatten(1).mean(1).sum()",
            "return (values - targets).square().flatten(1).mean(1).mean()",
        ),
        ("return values.amin(0) - temperature * log_probs", "return values.mean(0) - temperature * log_probs"),
        (
            "return -(log_temperature * (log_probs.detach() + target_entropy)).mean()",
            "return (log_temperature * (log_probs.detach() + target_entropy)).mean()",
        ),
    ),
    *faults(
        "metarl/learning/trust_region.py",
        _TRUST,
        (
            "direction = residual + torch.where(active, following / squared, 0.0).unsqueeze(-1) * direction",
            "direction = residual + torch.where(active, squared / following, 0.0).unsqueeze(-1) * direction",
        ),
        ("if loss < loss_before and kl <= max_kl:", "if loss < loss_before:"),
        ("if loss < loss_before and kl", "if kl"),
        (
            "return start, LineSearch(False, 0.0, loss_before, 0.0)",
            "return candidate, LineSearch(False, 0.0, loss_before, 0.0)",
        ),
        ("fraction = backtrack_ratio**power", "fraction = backtrack_ratio ** (power + 1)"),
    ),
    *faults(
        "metarl/learning/replay.py",
        _REPLAY,
        (
            "self._context[task] = (start % self.capacity, num_context)",
            "self._context[task] = (start % self.capacity, num_rows)",
        ),
        ("filled = [min(added, self.capacity) for added in self._added]", "filled = list(self._added)"),
        ("latest = (length - num_rows).clamp(min=0) + 1", "latest = (length - num_rows).clamp(min=1)"),
        ("[max(saved, added - self.capacity) for saved", "[saved for saved"),
    ),
    *faults(
        "metarl/learning/schedules.py",
        _TRIALS,
        ("return min(1.0, updates / max(1, iterations - 1))", "return min(1.0, updates / max(1, iterations))"),
    ),
    *faults(
        "metarl/learning/trials.py",
        _TRIALS,
        (
            "order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)",
            "order = mask.to(torch.uint8).argsort(dim=1, stable=True)",
        ),
    ),
    *faults(
        "envs/toy/bandits.py",
        _TOY,
        ('{"regret": self._best[index] - expected}', '{"regret": expected - self._best[index]}'),
        (
            "paid: np.ndarray = np.where(noise < arms, 1.0, 0.0)",
            "paid: np.ndarray = np.where(noise > arms, 1.0, 0.0)",
        ),
        ("self._noise.discard(rows)", "pass"),
    ),
    *faults(
        "envs/toy/gridnavi.py",
        _TOY,
        (
            "cells = np.clip(self._cells[index] + MOVES[actions], 0, SIZE - 1)",
            "cells = np.clip(self._cells[index] + MOVES[actions], 0, SIZE)",
        ),
        ("goals).all(1), 1.0, -0.1)", "goals).all(1), 1.0, 0.0)"),
        ("self._cells[rows] = 0", "self._cells[rows] = 1"),
    ),
    *faults(
        "envs/toy/point.py",
        _TOY,
        (
            "self._positions[index] += np.clip(actions.astype(np.float64), -self.STEP, self.STEP)",
            "self._positions[index] += actions.astype(np.float64)",
        ),
        (
            "arrived = np.logical_and.reduce(np.abs(offsets) < 0.01, axis=1)",
            "arrived = np.logical_or.reduce(np.abs(offsets) < 0.01, axis=1)",
        ),
        ("near = distance <= self.GOAL_RADIUS", "near = distance <= 0.3"),
    ),
    *faults(
        "envs/toy/tabular.py",
        _TOY,
        (
            "regrets = self._regrets[self._elapsed[index], index, states, actions]",
            "regrets = self._regrets[0, index, states, actions]",
        ),
        ("self._cumulative = transitions.cumsum(-1)", "self._cumulative = transitions.cumsum(-1)[:, ::-1]"),
        (
            "means = rng.normal(1.0, 1.0, (num_tasks, NUM_STATES * NUM_ACTIONS))",
            "means = rng.normal(0.0, 1.0, (num_tasks, NUM_STATES * NUM_ACTIONS))",
        ),
    ),
    *faults(
        "envs/mujoco/families.py",
        _FAMILIES,
        (
            "along: np.ndarray = numbers * velocities",
            "along: np.ndarray = velocities",
        ),
        (
            "np.abs(velocities - numbers)",
            "np.square(velocities - numbers)",
        ),
        (
            "along: np.ndarray = velocity[:, 0] * np.cos(heading) + velocity[:, 1] * np.sin(heading)",
            "along: np.ndarray = velocity[:, 0] * np.cos(heading) - velocity[:, 1] * np.sin(heading)",
        ),
        ('"reward_ctrl": -0.5 * _squares(actions),', '"reward_ctrl": -0.05 * _squares(actions),'),
        ('"reward_survive": np.full(len(actions), 5.0),', '"reward_survive": np.full(len(actions), 1.0),'),
    ),
    *faults(
        "envs/mujoco/locomotion.py",
        ("tests/envs/test_families.py", "tests/envs/test_mujoco_parity.py"),
        (
            "velocity = (self._tracked(index) - before) / self._duration(index)",
            "velocity = (before - self._tracked(index)) / self._duration(index)",
        ),
        (
            "terminated = ~healthy if self.family.terminate_when_unhealthy",
            "terminated = healthy if self.family.terminate_when_unhealthy",
        ),
    ),
    *faults(
        "envs/dynamics/control.py",
        _DYNAMICS,
        ("self._history[rows, steps % self._depth] = commands", "self._history[rows, 0] = commands"),
        ("self._phase[rows] = 1", "self._phase[rows] = 0"),
        (
            "longest = max(int((loop.delay + loop.jitter).max()) for loop in loops)",
            "longest = max(int(loop.delay.max()) for loop in loops)",
        ),
    ),
    *faults(
        "envs/vector.py",
        _VECTOR,
        (
            "truncated = self._elapsed[index] >= self.max_episode_steps",
            "truncated = self._elapsed[index] > self.max_episode_steps",
        ),
        ("self._ended[index] = terminated | truncated", "self._ended[index] = terminated"),
        ("self._elapsed[rows] = 0", "self._elapsed[:] = 0"),
    ),
    *faults(
        "agents/promp.py",
        _AGENTS,
        ("loss = losses.mean() + penalty / len(inner_kls)", "loss = losses.mean() - penalty / len(inner_kls)"),
        ("if kl < self.config.target_inner_kl / 1.5:", "if kl > self.config.target_inner_kl / 1.5:"),
        ("clip_ratio=self.config.clip_ratio,", "clip_ratio=1e9,"),
    ),
    *faults(
        "agents/maml_trpo.py",
        _TRUST,
        ("full_step = -scale * direction", "full_step = scale * direction"),
        (
            "scale = torch.sqrt(2 * self.config.max_kl / curvature.clamp(min=1e-12))",
            "scale = torch.sqrt(self.config.max_kl / curvature.clamp(min=1e-12))",
        ),
        ("total = self.config.cg_damping * vector", "total = torch.zeros_like(vector)"),
        (
            "through = {name: p + (adapted[name] - p).detach() for name, p in through.items()}",
            "through = dict(through)",
        ),
    ),
    *faults(
        "agents/pearl/context.py",
        _PEARL,
        (
            "return carry[0] + precision.sum(1), carry[1] + (mean * precision).sum(1)",
            "return carry[0] + precision.sum(1), carry[1] + mean.sum(1)",
        ),
        (
            "return 0.5 * (self.mean.square() + self.variance - 1 - self.variance.log()).sum(-1)",
            "return 0.5 * (self.mean.square() + self.variance - self.variance.log()).sum(-1)",
        ),
        ("return *after, count + context.shape[1]", "return *after, count"),
    ),
    *faults(
        "agents/pearl/soft_actor_critic.py",
        _PEARL,
        ("actor=regularisation * size - values.mean(),", "actor=-regularisation * size - values.mean(),"),
        ("latents = latents.detach()", "pass"),
        ("self.target_value.load_state_dict(self.value.state_dict())", "pass"),
    ),
    *faults(
        "metarl/fewshot/rules.py",
        _FEWSHOT,
        (
            "turned = torch.tensordot(turned, matrix, dims=([1], [1]))",
            "turned = torch.tensordot(turned, matrix, dims=([1], [0]))",
        ),
    ),
    *faults(
        "metarl/fewshot/normalisation.py",
        _FEWSHOT,
        (
            "running.lerp_(batch.reshape(-1, batch.shape[-1]).mean(0), share)",
            "running.lerp_(batch.reshape(-1, batch.shape[-1]).mean(0), 1 - share)",
        ),
        ("step = min(context.step, len(weight) - 1)", "step = 0"),
    ),
    *faults(
        "metarl/fewshot/objectives.py",
        _FEWSHOT,
        ("right.masked_fill(outputs.isnan().any(-1), torch.nan), classes)", "right, classes)"),
    ),
]
