#!/usr/bin/env python3
"""Do the reference readers read what our writers write?

    check_formats_peers.py BUILD/tests/golden/test_golden_formats

Runs the program so that it writes files into a temporary folder, and compares them with tests/golden/formats/ through
safetensors and gguf, and the configs through transformers. Needs numpy, torch, safetensors, gguf and transformers 5.
"""
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
import transformers

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "formats")


def check_safetensors(folder):
    path = os.path.join(folder, "types.safetensors")
    want = safetensors.numpy.load_file(os.path.join(GOLDEN, "types.safetensors"))
    got = safetensors.numpy.load_file(path)
    assert sorted(got) == sorted(want), (sorted(got), sorted(want))
    for name, array in want.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
        assert got[name].tobytes() == array.tobytes(), name
    with safetensors.safe_open(path, "np") as f:
        assert f.metadata() == {"format": "pt", "who": "ünder"}, f.metadata()


def check_gguf(folder):
    want = {t.name: t for t in gguf.GGUFReader(os.path.join(GOLDEN, "types.gguf")).tensors}
    reader = gguf.GGUFReader(os.path.join(folder, "types.gguf"))
    got = {t.name: t for t in reader.tensors}
    assert list(got) == list(want), (list(got), list(want))
    for name, tensor in want.items():
        assert got[name].tensor_type == tensor.tensor_type and list(got[name].shape) == list(tensor.shape), name
        assert got[name].data.tobytes() == tensor.data.tobytes(), name
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["GGUF.version"] == 3
    assert fields["general.architecture"] == "llama"
    assert fields["general.quantization_version"] == gguf.GGML_QUANT_VERSION
    assert fields["llama.block_count"] == 1
    assert fields["llama.rope.freq_base"] == 1e5
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.tokens"] == ["<s>", "</s>", "a", "ß", "日本"]
    assert fields["tokenizer.ggml.token_type"] == [3, 3, 1, 1, 1]
    assert fields["tokenizer.ggml.scores"] == np.array([0, -1, -2.5, 0.125, 1e10], dtype=np.float32).tolist()


def check_config(folder, name, parameters):
    config = transformers.AutoConfig.from_pretrained(os.path.join(folder, name))
    model = transformers.AutoModelForCausalLM.from_config(config)
    family = name.split("_")[0]
    assert type(model).__name__ == {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "mistral": "MistralForCausalLM"}[family]
    assert config.architectures == [type(model).__name__], config.architectures
    assert sum(p.numel() for p in model.parameters()) == parameters, name
    expected = dict(vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=3,
                    pad_token_id=None, initializer_range=0.02, tie_word_embeddings=name == "llama", dtype=torch.float32)
    for key, value in expected.items():
        assert getattr(config, key) == value, (name, key, getattr(config, key))
    assert config.rope_parameters == {"rope_theta": 123456.5, "rope_type": "default"}, config.rope_parameters
    assert getattr(config, "sliding_window", None) is None, name


def check_pretrained(folder):
    """The whole way that a user goes: a folder with our config.json loads as a model."""
    path = os.path.join(folder, "llama")
    model = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(path))
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    safetensors.torch.save_file(state, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    loaded, info = transformers.LlamaForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    ids = torch.arange(8)[None]
    assert torch.equal(model.eval()(ids).logits, loaded.eval()(ids).logits)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        lines = subprocess.run([sys.argv[1], "write", folder], check=True, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "LB_SOURCE_ROOT": root}).stdout.splitlines()
        check_safetensors(folder)
        check_gguf(folder)
        for line in lines:
            name, parameters = line.split()
            check_config(folder, name, int(parameters))
        check_pretrained(folder)
    print(f"safetensors {safetensors.__version__}, gguf and transformers {transformers.__version__} read our files: "
          f"{len(lines)} configs, all fine")


if __name__ == "__main__":
    main()
