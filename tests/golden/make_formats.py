#!/usr/bin/env python3
"""Writes tests/golden/formats/: small model files as the reference writers make them.

Needs numpy, torch, safetensors and gguf (made with safetensors 0.8.0, gguf 0.19.0). The values are those that
test_golden_formats.c expects: element i of a tensor whose seed is s is ((i * 7 + s * 13) % 64 - 31.5) / 8, which every type
but Q8_0 holds exactly.
"""
import json
import os
import sys

import gguf
import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "formats")


def values(seed, *shape):
    n = int(np.prod(shape, dtype=np.int64))
    return (((np.arange(n) * 7 + seed * 13) % 64 - 31.5) / 8).astype(np.float32).reshape(shape)


def bf16_bits(x):
    """The values are exact in BF16: the upper half of the bits is all there is."""
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def make_safetensors():
    tensors = {
        "w.f32": values(1, 3, 5),
        "w.f16": values(2, 2, 2, 3).astype(np.float16),
        "w.f64": values(3, 4).astype(np.float64),
        "ids.i64": np.arange(-3, 3, dtype=np.int64).reshape(2, 3),
        "ids.i32": np.array([2**31 - 1, -(2**31)], dtype=np.int32),
        "bytes.u8": np.array([0, 255, 7], dtype=np.uint8),
        "flags.bool": np.array([True, False, True]),
        "scalar": values(4).reshape(()),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }
    safetensors.numpy.save_file(tensors, os.path.join(HERE, "types.safetensors"), metadata={"format": "np", "who": "ünder"})

    # Two shards and their index; the BF16 one by torch, since numpy has no such type.
    safetensors.torch.save_file({"model.embed_tokens.weight": torch.from_numpy(values(5, 8, 4)).to(torch.bfloat16)},
                                os.path.join(HERE, "model-00001-of-00002.safetensors"), metadata={"format": "pt"})
    safetensors.numpy.save_file({"model.norm.weight": values(6, 4)},
                                os.path.join(HERE, "model-00002-of-00002.safetensors"), metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": 8 * 4 * 2 + 4 * 4},
        "weight_map": {
            "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
            "model.norm.weight": "model-00002-of-00002.safetensors",
        },
    }
    with open(os.path.join(HERE, "model.safetensors.index.json"), "w") as f:
        json.dump(index, f, indent=2)


def make_gguf():
    w = gguf.GGUFWriter(os.path.join(HERE, "types.gguf"), "llama")
    w.add_name("golden")
    w.add_context_length(64)
    w.add_embedding_length(32)
    w.add_block_count(1)
    w.add_feed_forward_length(48)
    w.add_head_count(4)
    w.add_head_count_kv(2)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(100000.0)
    w.add_rope_dimension_count(8)
    w.add_tokenizer_model("gpt2")
    w.add_token_list(["<s>", "</s>", "a", "ß", "日本"])
    w.add_token_types([3, 3, 1, 1, 1])
    w.add_token_scores([0.0, -1.0, -2.5, 0.125, 1e10])
    w.add_bos_token_id(0)
    w.add_eos_token_id(1)
    w.add_add_bos_token(True)
    w.add_uint8("golden.u8", 200)
    w.add_int8("golden.i8", -100)
    w.add_uint16("golden.u16", 60000)
    w.add_int16("golden.i16", -30000)
    w.add_int32("golden.i32", -2000000000)
    w.add_uint64("golden.u64", 2**40)
    w.add_int64("golden.i64", -(2**40))
    w.add_float64("golden.f64", 0.1)
    w.add_array("golden.bools", [True, False])
    w.add_array("golden.floats", [0.5, -0.25])
    w.add_tensor("token_embd.weight", values(1, 5, 32))
    w.add_tensor("w.f16", values(2, 3, 5).astype(np.float16))
    w.add_tensor("w.bf16", bf16_bits(values(3, 2, 8)).view(np.uint8).reshape(2, 16), raw_dtype=gguf.GGMLQuantizationType.BF16)
    w.add_tensor("w.q8_0", gguf.quants.quantize(values(4, 3, 64), gguf.GGMLQuantizationType.Q8_0),
                 raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    w.add_tensor("output_norm.weight", values(5, 32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()

    # A type that is not read: the error must name it.
    w = gguf.GGUFWriter(os.path.join(HERE, "iq2_s.gguf"), "llama")
    w.add_tensor("blk.0.ffn_up.weight", np.zeros((1, 82), dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ2_S)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    make_safetensors()
    make_gguf()
    for name in os.listdir(HERE):
        os.chmod(os.path.join(HERE, name), 0o644)  # safetensors writes for the owner alone
    sys.stdout.write("".join(f"{os.path.getsize(os.path.join(HERE, f)):7} {f}\n" for f in sorted(os.listdir(HERE))))
