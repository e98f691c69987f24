# make demo: the main job on real data.   make test: the tests.   Both create .venv and install what they need.
PYTHON ?= python3
BIN := .venv/bin
RUN := runs/digits
# Two test processes on two cores: threads of a BLAS would only wait for one another. Tests start many interpreters,
# which keep their bytecode.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
# Tests spend more time on compiling than on running. With fewer optimisations XLA compiles in half the time. Tests that
# compare bits, the slow tests and the demo are compiled as users' programs are.
QUICKLY := XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
  --xla_cpu_use_fusion_emitters=false"

.PHONY: demo test test-slow lint notebooks clean

demo: .venv/demo
	$(BIN)/jaxdiff train digits --out $(RUN)
	$(BIN)/jaxdiff plan $(RUN)
	$(BIN)/jaxdiff sample $(RUN)
	$(BIN)/jaxdiff certify $(RUN)

test: .venv/test
	$(ONE_THREAD) $(QUICKLY) $(BIN)/python -m pytest -n 2 -m "not slow and not bits"
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "bits and not slow" tests/sampling tests/kernels

test-slow: .venv/test
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m slow

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# Renders notebooks/*.py with outputs.
notebooks: .venv/notebooks
	$(BIN)/jupytext --quiet --to ipynb --set-kernel python3 --update-metadata '{"jupytext": null}' notebooks/*.py
	$(BIN)/jupyter nbconvert --log-level ERROR --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

clean:
	rm -rf .venv runs

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --editable ".[all]"
	touch $@

.venv/notebooks: pyproject.toml | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --editable ".[all,notebooks]"
	touch $@

.venv/test: pyproject.toml | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --editable ".[all,test,dev]"
	touch $@
