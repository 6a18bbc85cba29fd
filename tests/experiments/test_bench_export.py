"""metarl bench export times every contender on the same steps."""

import json

import pytest

from metarl.experiments.bench import export

TINY = export.ExportSizes(obs_size=3, act_size=2, memory_size=4, hidden_sizes=(4,), num_steps=3, rounds=2)


def test_the_policies_have_the_sizes_that_are_measured() -> None:
    policies = export.make_policies(export.ExportSizes())
    assert list(policies) == ["GRU 128", "64-64"]
    for policy in policies.values():
        assert policy.act([0.0] * 20).shape == (6,)


@pytest.mark.slow
def test_the_bench_measures_every_contender() -> None:
    result = json.loads(json.dumps(export.bench(2, TINY)))
    assert result["steps"] == 2 * 2 * 3
    assert len(result["policies"]) == 6
    for times in result["policies"].values():
        assert 0 < times["median_ms"] <= times["p99_ms"]
