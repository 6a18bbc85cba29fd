"""Networks whose parameters may carry a task axis, policies, and memories."""
