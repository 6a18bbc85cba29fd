"""Parts that algorithms learn with: the bi-level core, losses, advantages, schedules and replay."""
