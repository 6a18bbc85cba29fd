"""What algorithms learn with: the bi-level core, losses, advantages, schedules, replay."""
