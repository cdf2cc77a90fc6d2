"""Benchmarks: figures, printed and kept; nothing here passes or fails."""
