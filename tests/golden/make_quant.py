#!/usr/bin/env python3
"""Writes tests/golden/quant/: every block format of GGUF that is read, widened and narrowed by the gguf package.

Needs numpy and gguf (made with gguf 0.19.0). blocks.gguf holds for each format T a tensor `T` of blocks and `T.wide`, what
gguf.quants.dequantize makes of it; `narrow.F32` and for each format that is written `T.narrow`, what gguf.quants.quantize makes
of it. large.gguf holds rows of several distributions, `narrow.F32`, and for the written formats with blocks of 256 `T.ggml`,
what ggml's own quantizer makes of them (llama-cpp-python 0.3.36; the gguf package has none). pair-00001-of-00002.gguf and its second part are one small file cut in two, as llama-gguf-split cuts.
"""
import ctypes
import glob
import os

import gguf
import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quant")

# Where the f16 numbers of a block stand.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2],
    T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [],
}
WRITTEN = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]


def blocks_of(kind, rng):
    size, nbytes = gguf.GGML_QUANT_SIZES[kind]
    n = 12 if size == 256 else 48
    b = rng.integers(0, 256, (n, nbytes), dtype=np.uint8)
    halves = (rng.standard_normal((n, 2)) * 0.05).astype(np.float16)
    halves[0] = 0  # nothing but zeros
    halves[1] = -0.0
    halves[2] = [-0.25, 0.125]
    halves[3] = np.array([1, 3], dtype=np.uint16).view(np.float16)  # subnormal
    halves[4] = np.array([0x83FF, 0x0200], dtype=np.uint16).view(np.float16)
    halves[5] = [65504, -65504]  # the largest
    halves[6] = [np.inf, 1]
    b[7], b[8], b[5] = 0xFF, 0x00, 0xFF  # the largest and the smallest codes
    b[6, ::3] = 0x80
    for i, at in enumerate(HALVES[kind]):
        b[:, at:at + 2] = halves[:, i].copy().view(np.uint8).reshape(n, 2)
    if kind == T.MXFP4:
        b[:10, 0] = [0, 1, 2, 3, 127, 128, 254, 255, 126, 120]
        b[10:, 0] = rng.integers(100, 130, n - 10)
    return b


def narrow_source(rng):
    x = rng.standard_normal((60, 32)).astype(np.float32)
    x *= np.float32(10.0) ** rng.integers(-5, 4, (60, 1)).astype(np.float32)
    x[0] = 0
    x[1] = 1.5  # all the same
    x[2] = -1.5
    x[3, :16] = np.abs(x[3, :16])
    x[4] = 3e-7 * np.sign(x[4])  # the scale is subnormal
    x[5] = np.abs(x[5])
    x[6] = -np.abs(x[6])
    x[7, 3], x[7, 20] = 2.5, -2.5  # the first of two that are as far from zero
    x[8, 3], x[8, 20] = -2.5, 2.5
    x[9] = np.arange(32) / 2 - 8  # halves between codes
    x[10] = np.arange(32) - 127
    x[11] = 6e4 * np.sign(x[11])
    return x


def large_source(rng):
    n = 1024
    rows = [rng.standard_normal(n), rng.laplace(size=n), rng.standard_t(3, n), rng.uniform(-1, 1, n), np.abs(rng.standard_normal(n)) + 1,
            -np.abs(rng.standard_normal(n)), rng.standard_normal(n) * 10.0 ** rng.integers(-3, 2, n // 32).repeat(32),
            rng.standard_normal(n) * 1e-4, np.zeros(n), np.full(n, 0.25)]
    return (np.array(rows) * 0.02).astype(np.float32)


def write(path, tensors, keys=()):
    w = gguf.GGUFWriter(path, "llama")
    for name, value in keys:
        w.add_uint32(name, value)
    for name, data, kind in tensors:
        w.add_tensor(name, data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    rng = np.random.default_rng(2026)
    tensors = []
    with np.errstate(all="ignore"):
        for kind in HALVES:
            b = blocks_of(kind, rng)
            rows = b.reshape(4, -1)
            tensors += [(kind.name, rows, kind), (kind.name + ".wide", quants.dequantize(rows, kind), None)]
    x = narrow_source(rng)
    tensors.append(("narrow.F32", x, None))
    tensors += [(kind.name + ".narrow", quants.quantize(x, kind), kind) for kind in WRITTEN]
    write(os.path.join(HERE, "blocks.gguf"), tensors)

    ggml = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))[0])
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    x = large_source(np.random.default_rng(7))
    tensors = [("narrow.F32", x, None)]
    for kind in (T.Q4_K, T.Q6_K):
        rows = np.zeros((len(x), x.shape[1] // 256 * gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
        n, cols = (ctypes.c_int64(k) for k in x.shape)
        ggml.ggml_quantize_chunk(int(kind), ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(rows.ctypes.data), ctypes.c_int64(0),
                                 n, cols, None)
        tensors.append((kind.name + ".ggml", rows, kind))
    write(os.path.join(HERE, "large.gguf"), tensors)

    # A pair: the keys are u16 and i32, as llama.cpp's own tool writes them.
    for i, names in enumerate([["a", "b"], ["c"]]):
        w = gguf.GGUFWriter(os.path.join(HERE, f"pair-0000{i + 1}-of-00002.gguf"), "llama")
        w.add_uint16("split.no", i)
        w.add_uint16("split.count", 2)
        w.add_int32("split.tensors.count", 3)
        for name in names:
            x = (rng.standard_normal((2, 32))).astype(np.float32)
            w.add_tensor(name, quants.quantize(x, T.Q4_0), raw_dtype=T.Q4_0)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    main()
    for name in sorted(os.listdir(HERE)):
        print(f"{os.path.getsize(os.path.join(HERE, name)):7} {name}")
