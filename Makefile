# Two commands do everything:
#   make demo   installs and runs the main job on real photos
#   make test   installs and runs all tests
# Both make .venv and leave the rest of the machine alone.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Some dependencies come as sources that old-style builds choke on.
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --use-pep517 -c constraints.txt
SOURCES := setup.py pyproject.toml constraints.txt $(wildcard protos/*.proto)

.PHONY: demo test check bench lint types format docs clean default-model default-codebook default-background \
  default-detector

demo: $(VENV)/installed
	$(BIN)/d2r demo --output=demo_output

# On all cores, a file of tests on one of them; at most four, since each may hold networks of its own.
test: $(VENV)/installed-for-tests
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile

# The reference of the library, from its docstrings, and the picture of its layers, from its imports.
docs: $(VENV)/installed-for-tests
	$(BIN)/python tests/support/reference_pages.py docs_output
	$(BIN)/python tests/support/layers_picture.py

# This package against its peers on this machine: some eight minutes of one core.
bench: $(VENV)/installed-for-tests
	$(BIN)/python tests/benchmarks/benchmark_peers.py

# What to run before a commit: style, types and the tests that take no more than a few seconds, up to the
# first failure.
check: lint types
	$(BIN)/python -m pytest -m 'not slow' -n auto --maxprocesses=4 --dist=loadfile -x

lint: $(VENV)/installed-for-tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# How strict it is where: pyproject.toml.
types: $(VENV)/installed-for-tests
	$(BIN)/mypy

format: $(VENV)/installed-for-tests
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Editable: the checkout is what runs. The protocol buffers are generated on the way.
$(VENV)/installed: $(SOURCES) | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/installed-for-tests: $(SOURCES) | $(VENV)/bin/python
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/installed

# Makes the model that comes with the package again, in $(WORK): PHOTOS=DIR to train on, VALIDATION=DIR to choose the
# checkpoint by, both with a subfolder for each landmark. RECIPE is its config. About an hour on 2 cores; called again,
# it goes on where it was. Compare the model, then put it in the place of delf_d2r/models/default.
WORK ?= default_model
RECIPE ?= configs/training/delf_default.pbtxt
# Photos whose local descriptors are whitened; tests/benchmarks/default_photos.py makes the folder of those that ship.
WHITENING_PHOTOS ?= $(PHOTOS)
EXPORT = $(BIN)/d2r export_delf --trained=$(WORK)/trained
default-model: $(VENV)/installed-for-tests
	test -d "$(PHOTOS)" && test -d "$(VALIDATION)"
	$(BIN)/d2r train_delf --config_path=$(RECIPE) --photos="$(PHOTOS)" --validation_photos="$(VALIDATION)" \
	  --output=$(WORK)/trained
	test -d $(WORK)/raw || $(EXPORT) --output=$(WORK)/raw
	$(BIN)/d2r extract_features --config_path=configs/extractors/delf_default_raw.pbtxt --images="$(WHITENING_PHOTOS)" \
	  --override='extraction.delf.model_path: "$(WORK)/raw"' --output=$(WORK)/features
	$(BIN)/d2r train_pca --features=$(WORK)/features --output=$(WORK)/pca
	$(EXPORT) --pca=$(WORK)/pca --pca_dimensions=128 --whitening --half_weights --name='Default DELF' \
	  --notes="$$(cat configs/training/delf_default.notes)" --output=$(WORK)/model

# Makes the codebook that comes with the package again, in $(WORK)/packaged_codebook, from any folder of photos:
# PHOTOS=DIR. CODEBOOK changes its config: CODEBOOK='codebook.num_words: 16384'. What it is called and what is said
# of its data: CODEBOOK_NAME and CODEBOOK_NOTES, a file. Then put it in the place of delf_d2r/models/default_codebook,
# after the model: it belongs to that very one.
CODEBOOK ?= codebook { }
CODEBOOK_CONFIG ?= configs/training/default_codebook.pbtxt
CODEBOOK_NAME ?= Default codebook
CODEBOOK_NOTES ?= configs/training/default_codebook.notes
default-codebook: $(VENV)/installed-for-tests
	test -d "$(PHOTOS)"
	$(BIN)/d2r extract_features --config_path=$(CODEBOOK_CONFIG) --images="$(PHOTOS)" --output=$(WORK)/codebook_features
	$(BIN)/d2r train_codebook --config_path=$(CODEBOOK_CONFIG) --override='$(CODEBOOK)' \
	  --features=$(WORK)/codebook_features --output=$(WORK)/codebook
	$(BIN)/d2r export_codebook --codebook=$(WORK)/codebook --output=$(WORK)/packaged_codebook \
	  --name='$(CODEBOOK_NAME)' --notes="$$(cat $(CODEBOOK_NOTES))"

# Makes the background model that comes with the package again, in $(WORK)/packaged_background, from a folder of
# photos of many different things: PHOTOS=DIR; those of the codebook will do. It is of whole photos, without boxes. Then
# put it in the place of delf_d2r/models/default_background, after the model and the codebook: it belongs to those very
# ones.
BACKGROUND_LOCAL = --config_path=configs/experiments/default.pbtxt
BACKGROUND_GLOBAL = --config_path=configs/training/default_background_global.pbtxt
BACKGROUND_WORK = $(WORK)/background_run
default-background: $(VENV)/installed-for-tests
	test -d "$(PHOTOS)"
	$(BIN)/d2r extract_features $(BACKGROUND_LOCAL) --images="$(PHOTOS)" --output=$(BACKGROUND_WORK)/features
	$(BIN)/d2r extract_features $(BACKGROUND_GLOBAL) --images="$(PHOTOS)" --output=$(BACKGROUND_WORK)/other/features
	$(BIN)/d2r train_codebook $(BACKGROUND_LOCAL) --features=$(BACKGROUND_WORK)/features \
	  --output=$(BACKGROUND_WORK)/codebook
	$(BIN)/d2r train_codebook $(BACKGROUND_GLOBAL) --features=$(BACKGROUND_WORK)/other/features \
	  --output=$(BACKGROUND_WORK)/other/codebook
	$(BIN)/d2r aggregate_features $(BACKGROUND_LOCAL) --features=$(BACKGROUND_WORK)/features \
	  --codebook=$(BACKGROUND_WORK)/codebook --output=$(BACKGROUND_WORK)/descriptors
	$(BIN)/d2r aggregate_features $(BACKGROUND_GLOBAL) --features=$(BACKGROUND_WORK)/other/features \
	  --codebook=$(BACKGROUND_WORK)/other/codebook --output=$(BACKGROUND_WORK)/other/descriptors
	$(BIN)/d2r train_background --descriptors=$(BACKGROUND_WORK)/descriptors \
	  --other_descriptors=$(BACKGROUND_WORK)/other/descriptors --output=$(WORK)/background
	mkdir -p $(WORK)/packaged_background
	cp $(WORK)/background/background.* $(WORK)/background/*.npy $(WORK)/packaged_background/

# Makes the detector that comes with the package again, in $(WORK): BOXES, a CSV file of boxes on photos below OBJECTS
# (tests/benchmarks/development_boxes.py writes that of the development photos), BACKGROUNDS, folders of photos
# without objects. Half an hour to an hour on 2 cores. Then put it in the place of delf_d2r/models/default_detector.
default-detector: $(VENV)/installed-for-tests
	test -f "$(BOXES)" && test -d "$(OBJECTS)" && test -n "$(BACKGROUNDS)"
	$(BIN)/d2r make_detection_scenes --config_path=configs/detectors/default_scenes.pbtxt --objects="$(OBJECTS)" \
	  --boxes="$(BOXES)" $(BACKGROUNDS:%=--backgrounds=%) --output=$(WORK)/scenes
	$(BIN)/d2r train_detector --config_path=configs/detectors/retinanet_efficientnet_lite0.pbtxt \
	  --records='$(WORK)/scenes/train/detection-*' --validation_records='$(WORK)/scenes/validation/detection-*' \
	  --output=$(WORK)/detector
	$(BIN)/d2r export_detector --trained=$(WORK)/detector --half_weights --name='Default landmark detector' \
	  --notes="$$(cat configs/detectors/default_detector.notes)" --output=$(WORK)/detector_model

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output docs_output .mypy_cache
	rm -f delf_d2r/protos/*_pb2.py delf_d2r/protos/*_pb2.pyi
