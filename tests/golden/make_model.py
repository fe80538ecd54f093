#!/usr/bin/env python3
"""Makes tests/golden/model/: small models of each family by transformers, and what PyTorch computes with them.

usage: make_model.py [CASE...]     (needs torch, transformers, safetensors; run once, the results are committed)
Each folder holds config.json and model.safetensors as transformers writes them, and expected.safetensors with
  ids [N], offsets [S + 1]              ragged sequences, and labels [N]
  logits [N, V], hidden_states.L [N, C], attentions.L.S [H, T, T]
  loss                                  mean cross entropy over all N rows
  grad.<parameter>                      its gradient
  target [N, V], kd_loss, kd_grad.<p>   0.5 CE + 0.5 T^2 KL(target || student) at T = 2, target a softmax at T
"""
import pathlib
import sys
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent / 'model'
CASES = {
    'tied': dict(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=6, tie_word_embeddings=True, rope_theta=10000.0, rms_norm_eps=1e-5),
    'untied': dict(vocab_size=53, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
                   num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
                   rope_theta=500.0, rms_norm_eps=1e-6),
    # heads wider than hidden_size / heads; a window that 40 positions do not leave
    'mistral': dict(model_type='mistral', vocab_size=37, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                    num_attention_heads=2, num_key_value_heads=1, head_dim=12, tie_word_embeddings=False,
                    rope_theta=3000.0, rms_norm_eps=1e-5, sliding_window=48),
    # biases of q, k and v, none of o
    'qwen2': dict(model_type='qwen2', vocab_size=41, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                  num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, rope_theta=1000.0,
                  rms_norm_eps=1e-6, use_sliding_window=False),
}
LENGTHS = [1, 7, 19, 40]


def make(name, config):
    torch.manual_seed(7)
    config = dict(dict(model_type='llama'), **config)
    settings = AutoConfig.for_model(max_position_embeddings=64, initializer_range=0.2, eos_token_id=0,
                                    bos_token_id=None, attn_implementation='eager', **config)
    model = AutoModelForCausalLM.from_config(settings, attn_implementation='eager').float()
    for p in model.parameters():  # biases and norms that do something
        if p.dim() == 1:
            p.data += 0.3 * torch.randn_like(p)
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / 'generation_config.json').unlink(missing_ok=True)
    v, out = config['vocab_size'], {}
    ids = [torch.randint(0, v, (n,)) for n in LENGTHS]
    labels = [torch.randint(0, v, (n,)) for n in LENGTHS]
    out['ids'] = torch.cat(ids).to(torch.int32)
    out['labels'] = torch.cat(labels).to(torch.int32)
    out['offsets'] = torch.tensor([0] + LENGTHS).cumsum(0).to(torch.int32)
    runs = [model(input_ids=x[None], output_hidden_states=True, output_attentions=True) for x in ids]
    logits = torch.cat([r.logits[0] for r in runs])
    out['logits'] = logits.detach()
    for layer in range(config['num_hidden_layers'] + 1):
        out[f'hidden_states.{layer}'] = torch.cat([r.hidden_states[layer][0] for r in runs]).detach()
    for layer in range(config['num_hidden_layers']):
        for s, r in enumerate(runs):
            out[f'attentions.{layer}.{s}'] = r.attentions[layer][0].detach()
    loss = F.cross_entropy(logits, torch.cat(labels))
    loss.backward(retain_graph=True)
    out['loss'] = loss.detach().reshape(1)
    for n, p in model.named_parameters():
        out['grad.' + n] = p.grad.clone()
        p.grad = None
    t = 2.0
    target = (3 * torch.randn_like(logits)).softmax(-1)
    kl = (target * (target.log() - (logits / t).log_softmax(-1))).sum(-1).mean() * t * t
    kd = 0.5 * loss + 0.5 * kl
    kd.backward()
    out['target'] = target.detach()
    out['kd_loss'] = kd.detach().reshape(1)
    for n, p in model.named_parameters():
        out['kd_grad.' + n] = p.grad.clone()
    save_file({k: x.contiguous() for k, x in out.items()}, folder / 'expected.safetensors')


for case, settings in CASES.items():
    if len(sys.argv) < 2 or case in sys.argv[1:]:
        make(case, settings)
