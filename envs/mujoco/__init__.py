"""MuJoCo task families on a batched engine."""
