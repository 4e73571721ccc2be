"""DeepInfra's two endpoints on this machine, by a small model: to try and to test everything without a key.

It is all-MiniLM-L6-v2 (int8, 384 dimensions), a stand-in and not Qwen3: English only, the instruction has no
effect, and a rerank score is made of the same model's vectors. What it shows is the way, not how far it leads.
"""

INSTALL = "pip install '.[local]' in this project's folder"
"""The package is on no index, so it is installed from a checkout."""
