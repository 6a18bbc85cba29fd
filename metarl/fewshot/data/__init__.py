"""Readers of few-shot data, and curves to regress."""
