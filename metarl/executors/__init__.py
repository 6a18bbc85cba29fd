"""Executors: where the episodes of a batch are collected; in this process, in local ones, or on Ray."""
