"""Strategies that are not learned: what meta-learned ones are compared with."""
