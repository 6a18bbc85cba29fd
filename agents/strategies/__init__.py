"""Strategies that are not learned, as references for those that are meta-learned."""
