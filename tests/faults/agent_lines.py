"""Single-line faults of agents and of what collects and evaluates for them, each with its tests."""

from tests.faults.fault import Fault, faults

_RL2 = ("tests/agents/test_rl2_by_hand.py", "tests/learning/test_trials.py", "tests/agents/test_rl2.py")
_TRIALS = ("tests/learning/test_trials.py", "tests/agents/test_rl2.py")
_VARIBAD = ("tests/agents/test_varibad.py",)
_MEMORY_SAC = ("tests/agents/test_memory_sac.py",)
_PEARL = ("tests/agents/test_pearl.py",)
_ADAPTIVE = ("tests/agents/test_agents.py",)
# Without the tests that start worker processes.
_WORKERS = (
    "tests/test_workers.py::test_known_walk_gives_known_trajectories",
    "tests/test_workers.py::test_the_episodes_of_a_trial_go_on_with_one_random_stream",
    "tests/test_workers.py::test_a_truncated_episode_is_over_while_others_go_on",
    "tests/test_workers.py::test_finished_episodes_are_not_simulated_but_padded",
    "tests/test_observations.py",
    "tests/test_workers.py::test_a_trial_depends_on_no_other_task_where_episodes_end_early[rl2]",
)
_EXECUTORS = (
    "tests/executors/test_shares.py",
    "tests/executors/test_local_processes.py",
)
_NOISE = (
    "tests/runs/test_seeding.py",
    "tests/test_workers.py::test_noise_of_a_task_does_not_depend_on_the_others",
    "tests/test_workers.py::test_a_stream_of_noise_waits_while_its_task_does",
    "tests/test_workers.py::test_other_seed_gives_other_episodes",
)
_EVALUATION = ("tests/test_evaluation.py", "tests/agents/test_deterministic.py")
_INTERVALS = ("tests/test_intervals.py", "tests/test_evaluation.py")
_DEPLOYED = (
    "tests/deploy/test_single_env.py",
    *(
        f"tests/deploy/test_adapting.py::{name}"
        for name in (
            "test_episodes_can_be_cut",
            "test_success_and_times_are_reported",
            "test_a_policy_that_reads_rewards_says_so",
            "test_after_an_episodes_end_the_next_one_must_begin",
            "test_wrong_numbers_are_one_line",
            "test_what_is_not_finite_is_said",
            "test_spaces_that_do_not_fit_are_one_line",
            "test_discrete_actions_are_choices",
            "test_two_gradient_steps_each_use_their_part_of_the_episodes",
            "test_a_recording_without_distributions_gives_the_policy_gradient",
            "test_a_plain_environment_gives_what_the_engine_gives[hopper-gru]",
            "test_a_plain_environment_gives_what_the_engine_gives[hopper-promp]",
            "test_a_policy_is_told_what_it_can_use",
        )
    ),
)
_RECORDINGS = ("tests/deploy/test_recordings.py", *_DEPLOYED)
_CODEC = ("tests/experiments/test_codec.py",)

FAULTS: list[Fault] = [
    *faults(
        "agents/trials/ppo.py",
        _RL2,
        ("- entropy_coef * entropy", "+ entropy_coef * entropy"),
        ("values = (known + float(self.value_scale) *", "values = (known +"),
        (
            "gamma = self._now(self.config.gamma, self.config.final_gamma)",
            "gamma = self.config.gamma",
        ),
        (
            "gae_lambda = self._now(self.config.gae_lambda, self.config.final_gae_lambda)",
            "gae_lambda = self.config.gae_lambda",
        ),
        (
            "norm = torch.nn.utils.clip_grad_norm_(self._reinforced, config.max_grad_norm)",
            "norm = loss.detach()",
        ),
        ("config.value_coef * value_loss", "value_loss"),
        ("returns = advantages + values\n", "returns = advantages\n"),
        ("self._now(config.outer_lr, config.final_outer_lr)", "config.outer_lr"),
        ("targets=(residuals / scale)", "targets=residuals"),
        ("advantages = centre_over_others(advantages, mask)\n", "pass\n"),
        ("self.policy.see(batch.trials)\n", "pass\n"),
        ("self.updates += 1\n", "pass\n"),
        ("self.policy.bound_std()\n", "pass\n"),
        ("for _ in range(config.epochs):", "for _ in range(1):"),
        ("return -experience.infos", "return experience.infos"),
        ("tuple(part.detach() for part in carry)", "carry"),
        ("for start in range(0, time, length):", "for start in range(0, time - 1, length):"),
        ("before=slice(1), after", "before=slice(-1, None), after"),
    ),
    *faults(
        "agents/trials/batch.py",
        _RL2,
        ("others = mask.sum(1, keepdim=True) - 1", "others = mask.sum(1, keepdim=True)"),
        ("(count == 1) & (known != 0)", "(count == 1)"),
        ("known.lerp(mean, _ALONE_RATE)", "mean.lerp(known, _ALONE_RATE)"),
        ("values.square().sum() / mask.sum()", "values.square().mean()"),
        ("values[real].unsqueeze(0)", "values.flatten(0, 1).unsqueeze(0)"),
    ),
    *faults(
        "agents/rl2/trial_policy.py",
        _TRIALS,
        (
            "last_step = torch.cat((torch.zeros_like(last_step[:1]), last_step[:-1]))",
            "last_step = torch.cat((last_step[:1], last_step[:-1]))",
        ),
        ("torch.where(alive.unsqueeze(1), last_step, carry[-1])", "last_step"),
        (
            "inputs if self.embedding is None else self.embedding(inputs).relu()",
            "inputs if self.embedding is None else self.embedding(inputs)",
        ),
    ),
    *faults(
        "agents/trials/network.py",
        _TRIALS,
        (".clamp(-self.reward_limit, self.reward_limit)", ""),
        ("(rewards - self.reward_mean) * self.observed_scale", "rewards * self.observed_scale"),
        ("- len(rewards) * mean) / steps", ") / steps"),
        ("((fixed - mean) * scale)", "fixed"),
        ("self.log_std.clamp_(*self._log_std_range)", "pass"),
    ),
    *faults(
        "agents/trials/actor.py",
        _TRIALS,
        ("self._alive = alive & ~(terminated | truncated)", "self._alive = alive & ~terminated"),
        ("self._noise.next(self._alive)", "self._noise.next()"),
    ),
    *faults(
        "agents/varibad/elbo.py",
        _VARIBAD,
        ("& mask[axes.steps]", "& mask.new_ones(len(axes.steps), 1)"),
        ("reached.unsqueeze(1) & mask", "mask"),
        ("scale = (time + 1) * time /", "scale = time * time /"),
        ("after.kl(before)", "before.kl(after)"),
    ),
    *faults(
        "agents/varibad/varibad.py",
        ("tests/agents/test_hyperx.py",),
        ("self._now(coef, 0.0)", "coef"),
        ("/ (usual.mean or 1.0)", "* (usual.mean or 1.0)"),
        ("part[1:] for part in self.policy.posteriors", "part[:-1] for part in self.policy.posteriors"),
        ("total.T[mask.T] / (scale or 1.0)", "total.T[mask.T] * (scale or 1.0)"),
        ("steps.next_observations), belief", "steps.observations), belief"),
        ("self._beliefs_after(steps))[mask])", "self._beliefs_after(steps))[mask] * 0)"),
    ),
    *faults(
        "metarl/learning/adaptation_metrics.py",
        ("tests/test_adaptation_metrics.py",),
        ("returns = last.returns()[:, after]", "returns = last.returns()"),
        ("first.returns()[:, before]", "first.returns()"),
        ("successes[:, after]", "successes"),
        ("if len(set(families)) == 1", "if len(set(families)) == 2"),
    ),
    *faults(
        "agents/memory_sac/learner.py",
        _MEMORY_SAC,
        ("own.detach(), compared, alpha)", "own.detach(), compared, 0.0)"),
        ("act.soft_values(self.target_critics, own", "act.soft_values(self.critics, own"),
        ("judged = features.detach()", "judged = features"),
        ("[..., 0] / self.critics.scale[0]", "[..., 0]"),
        ("taken / self.critics.scale, targets / self.critics.scale", "taken, targets"),
        ("[compared].amin(0)\n            return choice_values", ".amin(0)\n            return choice_values"),
        ("torch._foreach_lerp_(list(target", "torch._foreach_lerp_(list(network"),
    ),
    *faults(
        "agents/memory_sac/losses.py",
        _MEMORY_SAC,
        ("torch.where(follows.unsqueeze(-1), following, torch.zeros_like(following))", "following"),
        ("follows if endless else follows | (ends & mask)", "follows | (ends & mask)"),
        ("torch.cat((values[1:], torch.zeros_like(values[:1])))", "values"),
        ("log_probs * (advantages > 0)", "log_probs"),
    ),
    *faults(
        "agents/memory_sac/critics.py",
        _MEMORY_SAC,
        ('self._last("bias").mul_(factor).add_(shift)', 'self._last("bias").mul_(factor)'),
        ("for critics in (self, others):", "for critics in (self,):"),
        ("(mask.to(targets.dtype) / mask.sum())", "mask.new_ones(mask.shape).to(targets.dtype) / mask.numel()"),
    ),
    *faults(
        "agents/memory_sac/memory_sac.py",
        _MEMORY_SAC,
        ("return numbers * linear(", "return linear("),
        ("rounds = 1 if self.replay.num_added else self.config.num_initial_trials", "rounds = 1"),
        ("linear(config.outer_lr, config.final_outer_lr, self.updates, self.iterations)", "config.outer_lr"),
    ),
    *faults(
        "metarl/learning/trial_replay.py",
        ("tests/learning/test_trial_replay.py",),
        ("mask = left >= 0", "mask = left > 0"),
        ("left == 0)", "left <= 0)"),
        ("self.num_added % self.capacity", "self.num_added % (self.capacity - 1)"),
        ("(uniform * self.num_trials)", "(uniform * (self.num_trials - 1))"),
    ),
    *faults(
        "metarl/learning/reward_scale.py",
        ("tests/agents/test_rl2_by_hand.py", "tests/agents/test_rl2.py"),
        ("widened(rewards[rewards != 0])", "widened(rewards)"),
        ("/ total) ** -0.5, total", "/ total) ** 0.5, total"),
        ("share * (float(numbers.mean())", "(float(numbers.mean())"),
        ("self.mean_square - self.mean**2", "self.mean_square"),
        ("1e-4 * self.mean_square", "0.0"),
        ("max(everywhere, of_others, 1e-4 * square)", "max(everywhere, 1e-4 * square)"),
        ("max(everywhere, of_others, 1e-4 * square)", "max(everywhere, of_others)"),
        ("square * count / total - mean**2", "square * count / total"),
    ),
    *faults(
        "agents/trials/ppo.py",
        ("tests/agents/test_rl2.py",),
        ("gains[:, rows][mask[:, rows] > 0]", "gains[:, rows]"),
        ("return gains / torch.tensor([self._gain_units", "return gains * torch.tensor([self._gain_units"),
    ),
    *faults(
        "metarl/nets/memories.py",
        ("tests/learning/test_trials.py",),
        ("bias[:size] = -keep", "bias[:size] = keep"),
        (
            "visible = (key[None] <= query[:, None])[None, None]",
            "visible = (key[None] < query[:, None] + 2)[None, None]",
        ),
        (
            "after = tuple(torch.where(alive.unsqueeze(1), new, old)",
            "after = tuple(torch.where(alive.unsqueeze(1), new, new)",
        ),
        ("(past, count + alive)", "(past, count + 1)"),
    ),
    *faults(
        "agents/pearl/actor.py",
        _PEARL,
        ("self._episode > self.num_context", "self._episode > self.num_context + 1"),
        ("if self._episode < self._num_prior:", "if self._episode <= self._num_prior:"),
        ("zip(carry, self._carry, strict=True))", "zip(carry, carry, strict=True))"),
        ("task_seeds ^ np.uint64(LATENT_STREAM)", "task_seeds"),
    ),
    *faults(
        "agents/pearl/collection.py",
        _PEARL,
        ("missing[rows] -= rounds[-1].mask.sum((1, 2)).numpy()", "missing[rows] = 0"),
        ("rewards=rewards,", "rewards=trajectories.rewards,"),
        ("(extras, slice(split, None))", "(extras, slice(split + 1, None))"),
        ("before=slice(num_prior)", "before=slice(num_prior, None)"),
        (
            "terminated=trajectories.terminated.float()",
            "terminated=(trajectories.terminated | trajectories.truncated).float()",
        ),
    ),
    *faults(
        "agents/pearl/pearl.py",
        _PEARL,
        ("(critic_loss + config.kl_coef * kl)", "(critic_loss - config.kl_coef * kl)"),
        ("posterior.kl().mean()", "posterior.kl().sum()"),
        ("shortest=self.horizon if config.vary_context else None", "shortest=None"),
        ("learner.follow(config.target_rate)", "learner.follow(1 - config.target_rate)"),
        ("latents.repeat_interleave(batch.rewards.shape[1], 0)", "latents.repeat(batch.rewards.shape[1], 1)"),
    ),
    *faults(
        "agents/pearl/soft_actor_critic.py",
        _PEARL,
        ("mean.square().mean() + distribution.log_std.square().mean()", "mean.square().mean()"),
        (
            "list(self.target_value.parameters()), list(self.value.parameters())",
            "list(self.value.parameters()), list(self.target_value.parameters())",
        ),
        ("reward_scale * batch.rewards", "batch.rewards"),
        ("-1), frozen=True).squeeze(-1)", "-1)).squeeze(-1)"),
    ),
    *faults(
        "metarl/executors/simulator.py",
        _WORKERS,
        (
            "alive[index] = ~(transition.terminated | transition.truncated)",
            "alive[index] = ~transition.terminated",
        ),
        (
            "env_actions if rows is None else env_actions[rows]",
            "env_actions if rows is None else env_actions[: len(rows)]",
        ),
        ("                seeds = None\n", "                pass\n"),
        ("for task in tasks for _ in range(num_parallel)]", "for _ in range(num_parallel) for task in tasks]"),
        ("visible = observations if rows is None else", "visible = observations if True else"),
        ("recorder.end_episode(observations)", "recorder.end_episode(visible)"),
    ),
    *faults(
        "metarl/executors/recorder.py",
        _WORKERS,
        ("self._mask[at] = outcome.alive", "self._mask[at] = True"),
        ("full[rows] = values", "full[: len(rows)] = values"),
        ("self._infos[name][at] = value", "self._infos[name][at] = 1.0"),
    ),
    *faults(
        "metarl/workers.py",
        _WORKERS,
        ("task_seeds(seed, int(chosen.max()) + 1)[chosen]", "task_seeds(seed, len(chosen))"),
        ("self.steps_collected += trajectories.num_steps", "self.steps_collected += trajectories.mask.numel()"),
    ),
    *faults(
        "metarl/executors/shares.py",
        _EXECUTORS,
        ("env_seeds[part], noise_seeds[part]", "env_seeds[part], noise_seeds[: len(env_seeds[part])]"),
        ("actor.select(part)", "actor"),
    ),
    *faults(
        "metarl/executors/local_processes.py",
        _EXECUTORS,
        ("        self._process.restart()\n", "        pass\n"),
    ),
    *faults(
        "metarl/runs/seeding.py",
        _NOISE,
        ("[seed, zlib.crc32(name.encode())]", "[seed, len(name)]"),
        ("SeedSequence([seed, 1])", "SeedSequence([seed, 0])"),
        ("self._cursors[going] += 1", "self._cursors += 1"),
        ("self._cursors[task] = 0", "self._cursors[task] = 1"),
        ("generator.random if self._uniform", "generator.random if not self._uniform"),
        ("bits.state = state", "pass"),
        (
            "num_tasks * num_episodes, np.uint64)",
            "num_tasks * num_episodes, np.uint64).repeat(num_episodes)[: num_tasks * num_episodes]",
        ),
    ),
    *faults(
        "metarl/trajectories.py",
        (*_PEARL, *_WORKERS),
        ("((success > 0) & self.mask).any(-1)", "(success > 0).all(-1)"),
        (
            "last_step = (self.mask.sum(-1) - 1).clamp(min=0)",
            "last_step = self.mask.sum(-1) * 0 + self.mask.shape[-1] - 1",
        ),
    ),
    *faults(
        "metarl/evaluation.py",
        _EVALUATION,
        ("samples[..., : count // 2].mean(-1)", "samples[..., : count // 2].sum(-1)"),
        ("count = -(-len(measured) // 10)", "count = len(measured) // 10 + 1"),
        (
            "(mean_of_worst(chosen_by, measured) + mean_of_worst(measured, chosen_by)) / 2",
            "mean_of_worst(measured, measured)",
        ),
        ("self.returns[:, rows]", "self.returns"),
        ("for _ in range(values.shape[2]))", "for _ in range(1))"),
        ("sums = values.sum(1)", "sums = values.mean(1)"),
        ("if len(pairs) < len(samples):", "if not pairs:"),
        ("if step < num_steps:", "if step < num_steps - 1:"),
        ("actor = actor.adapt(trajectories)", "actor.adapt(trajectories)"),
        (
            "trajectories = collector.collect(actor, tasks, num_episodes, draw_seed(rng))\n                steps",
            "collector.collect(actor, tasks, num_episodes, draw_seed(rng))\n                steps",
        ),
        (
            "_finite_returns(trajectories).reshape(shape).transpose(2, 0, 1)",
            "_finite_returns(trajectories).reshape(shape[2], *shape[:2])",
        ),
        ("return replace(curve, exhaustive=exhaustive)", "return curve"),
    ),
    *faults(
        "metarl/intervals.py",
        _INTERVALS,
        ("weights = (counts / (counts - 1))[self.strata]", "weights = np.ones(len(self.strata))"),
        ("- int(self.strata.max()) - 1)", "- 1)"),
        (
            "return Sampling(np.arange(len(tasks)), _collapsed(tasks))",
            "return Sampling(_numbered(tasks), _collapsed(tasks))",
        ),
        (
            "0.5 * (max(rate, 1 - rate) / units) ** 2 if most > units",
            "0.5 * (min(rate, 1 - rate) / units) ** 2 if most > units",
        ),
        ("effective = units  # unless", "effective = most  # unless"),
        ("t**2 / (2 * effective)) / (1", "t**2 / effective) / (1"),
        (
            "deviations = _sums(self.units, values - means[of_measurements])",
            "deviations = _sums(self.units, values - values.mean(0))",
        ),
        ("(5 * z**5 + 16 * z**3 + 3 * z)", "(5 * z**5 - 16 * z**3 + 3 * z)"),
        ("np.bincount(numbers)[numbers] == 1", "np.bincount(numbers)[numbers] == 0"),
    ),
    *faults(
        "metarl/deploy/policies.py",
        _DEPLOYED,
        ("if self._waiting and self._needs_outcome:", "if False:"),
        ("bool(terminated or truncated)", "bool(terminated)"),
    ),
    *faults(
        "metarl/deploy/adapting.py",
        _DEPLOYED,
        ("episodes // num_steps, draw_seed(rng)", "episodes, draw_seed(rng)"),
        ("logs += runs", "logs = list(runs)"),
        ("if episodes % num_steps:", "if False:"),
        ("part.shape == other.shape and _whole(part) == _whole(other)", "part.shape == other.shape"),
        (
            "for _ in range(num_steps):\n        actor = actor.adapt(trajectories)",
            "for _ in range(1):\n        actor = actor.adapt(trajectories)",
        ),
        ("(actions < low) | (actions > high)", "(actions < low)"),
    ),
    *faults(
        "metarl/deploy/recordings.py",
        _RECORDINGS,
        ("ends[-1] = True", "pass"),
        ("truncated[-1] |= not self.terminated[-1]", "pass"),
        ("lambda part: part[ends - 1][None]", "lambda part: part[ends - 2][None]"),
        ("rolled[ends - 1] = last_of_episodes", "pass"),
        ("if not np.isfinite(values).all():", "if False:"),
        ("    if path.exists():\n", "    if False:\n"),
    ),
    *faults(
        "metarl/deploy/single_env.py",
        _DEPLOYED,
        ("truncated = bool(truncated) or step == max_episode_steps", "truncated = bool(truncated)"),
        ("env, None if k else first, max_episode_steps", "env, first, max_episode_steps"),
        ("self._flags[2, 0, row] = True", "self._flags[2, 0, :] = True"),
        ("rewards[0, row] = float(reward)", "rewards[0, 0] = float(reward)"),
        ("batch[0, self._row] = part", "batch[0, 0] = part"),
        ("any(self.successes)", "all(self.successes)"),
        ("if not np.isfinite(reward):", "if False:"),
        ("terminated=flags[:, 0]", "terminated=flags[:, 1]"),
    ),
    *faults(
        "metarl/runs/codec.py",
        _CODEC,
        ("renamed.get(name, name)", "name"),
        ("if isinstance(data, bool):\n        return kind is bool", "if False:\n        return kind is bool"),
        ("if unknown:", "if False:"),
        ("return data in typing.get_args(kind)", "return isinstance(data, str)"),
        ("isinstance(data, int | float) if kind is float", "isinstance(data, float) if kind is float"),
        (
            "return tuple(_decode_value(typing.get_args(option)[0], item, where) for item in data)",
            "return tuple(data)",
        ),
        ("if template is None or _object_name", "if False and _object_name"),
    ),
    *faults(
        "agents/promp.py",
        _ADAPTIVE,
        ("self.config.target_inner_kl * 1.5", "self.config.target_inner_kl / 1.5"),
    ),
]
