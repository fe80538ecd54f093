#!/usr/bin/env python3
"""Token shards as their own tools write them, in the folder shards beside this script.

nanoGPT: numpy's uint16 array as it is (data/*/prepare.py there). llm.c: 256 int32 of header, then the ids (dev/data/
data_common.py there). Megatron: its own IndexedDatasetBuilder, of the package megatron-core, whose folder is the argument.
Needs numpy, and torch for Megatron's.
"""
import importlib
import pathlib
import sys
import types

import numpy as np

documents = [[1, 2, 3, 0], [4, 5, 0], [257, 6, 7, 8, 9, 0]]
ids = sum(documents, [])
folder = pathlib.Path(__file__).with_name("shards")
folder.mkdir(exist_ok=True)

np.array(ids, dtype=np.uint16).tofile(folder / "nanogpt.bin")

for name, magic, version, dtype in (("llmc_gpt2", 20240520, 1, np.uint16), ("llmc_llama3", 20240801, 7, np.uint32)):
    header = np.zeros(256, dtype=np.int32)
    header[:3] = magic, version, len(ids)
    with open(folder / (name + ".bin"), "wb") as f:
        f.write(header.tobytes())
        f.write(np.array(ids, dtype=dtype).tobytes())

# The module alone: the package wants a GPU's libraries.
for name in ("megatron", "megatron.core", "megatron.core.datasets"):
    module = types.ModuleType(name)
    module.__path__ = [str(pathlib.Path(sys.argv[1]) / name.replace(".", "/"))]
    sys.modules[name] = module
utils = types.ModuleType("megatron.core.utils")
utils.log_single_rank = lambda *a, **k: None
sys.modules["megatron.core.utils"] = utils
indexed = importlib.import_module("megatron.core.datasets.indexed_dataset")
import torch  # noqa: E402

for name, dtype in (("megatron16", np.uint16), ("megatron32", np.int32)):
    builder = indexed.IndexedDatasetBuilder(str(folder / (name + ".bin")), dtype=dtype)
    for d in documents:
        builder.add_document(torch.tensor(d), [len(d)])
    builder.finalize(str(folder / (name + ".idx")))
