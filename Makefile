# make demo, make test, make lint, make bench: each sets up what it needs first.
# PYTHON=python3.12 chooses the Python, ROS_DISTRO=kilted the ROS 2, ARGS what is handed on.

PYTHON ?= python3
ROS_DISTRO ?= jazzy
ENVIRONMENT := $(CURDIR)/.venv$(if $(filter-out jazzy,$(ROS_DISTRO)),-$(ROS_DISTRO))

# The wheels' own ROS 2 is used even where another is sourced: the two must not mix.
unexport CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONHOME PYTHONPATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
export AMENT_PREFIX_PATH := $(ENVIRONMENT)
export RMW_IMPLEMENTATION := rmw_fastrtps_cpp

.PHONY: help setup demo test lint bench

help:
	@echo 'make demo    segment a bag of photographs with the real node, results in demo_output/'
	@echo 'make test    every test, lint and type check'
	@echo 'make lint    lint and type check alone'
	@echo 'make bench   time and memory by stage'
	@echo 'make setup   only the environment the others need'

setup:
	@$(PYTHON) scripts/setup_env.py $(ROS_DISTRO)

demo: setup
	@"$(ENVIRONMENT)/bin/llmseg" demo $(ARGS)

# Much of a test's time is the start of a process or a model: two side by side, a thread each.
test: export OMP_NUM_THREADS = 1
test: setup
	@"$(ENVIRONMENT)/bin/pytest" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup
	@"$(ENVIRONMENT)/bin/pytest" test/test_lint.py $(ARGS)

bench: setup
	@"$(ENVIRONMENT)/bin/llmseg" bench $(ARGS)
