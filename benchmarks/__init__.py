"""Benchmarks: one script a question, run from the root of the repository as python -m benchmarks.NAME.

Records of full runs are in benchmarks/results. The scripts share laws/, samplers/, oracles/ and harness/.
"""
