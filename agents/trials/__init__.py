"""The parts that agents share which learn from whole trials by PPO: networks, actor, batches, updates."""
