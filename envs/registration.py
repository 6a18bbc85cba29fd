"""The benchmarks under Gymnasium's names: `gymnasium.make("metarl/HalfCheetahVel-v0", velocity=2.0)`.

Gymnasium calls `register_envs` when it is imported, by the entry point "gymnasium.envs" of the distribution. The
names stand here as text, so that nothing else of the toolkit is imported then.
"""

from gymnasium.envs.registration import register, registry

BENCHMARKS = (
    "ant-dir",
    "ant-dir-2d",
    "ant-goal",
    "ant-goal-square",
    "ant-mass-friction",
    "ant-mass-friction-wide",
    "bernoulli-bandit-k10",
    "bernoulli-bandit-k2",
    "bernoulli-bandit-k5",
    "bernoulli-bandit-k50",
    "gaussian-bandit-k10",
    "gaussian-bandit-k2",
    "gaussian-bandit-k5",
    "gaussian-bandit-k50",
    "gridnavi",
    "half-cheetah-dir",
    "half-cheetah-dynamics",
    "half-cheetah-failing-motor",
    "half-cheetah-mass-friction",
    "half-cheetah-mass-friction-wide",
    "half-cheetah-vel",
    "half-cheetah-vel-2",
    "hopper-dynamics",
    "hopper-rand-params",
    "humanoid-dir",
    "humanoid-dir-2",
    "point",
    "point-uniform-start",
    "sparse-point",
    "sparse-point-100",
    "tabular-mdp",
    "tmaze-100",
    "walker-rand-params",
)


def env_id(benchmark: str) -> str:
    """Gymnasium's name of a benchmark: "metarl/HalfCheetahVel-v0" of "half-cheetah-vel"."""
    return f"metarl/{''.join(part.capitalize() for part in benchmark.split('-'))}-v0"


def register_envs() -> None:
    """Register every built-in benchmark, and "metarl/Task-v0" for any other by its name or file."""
    entry = "metarl.envs.single:single_env"
    for benchmark in BENCHMARKS:
        if env_id(benchmark) not in registry:
            register(env_id(benchmark), entry_point=entry, kwargs={"benchmark": benchmark})
    if "metarl/Task-v0" not in registry:
        register("metarl/Task-v0", entry_point=entry)
