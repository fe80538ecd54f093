#!/usr/bin/env python3
"""Makes tests/golden/model/: small models of each family by transformers, and what PyTorch computes with them.

usage: make_model.py [CASE...]     (needs torch, transformers, safetensors; run once, the results are committed)
Each folder holds config.json and model.safetensors as transformers writes them, and expected.safetensors with
  ids [N], offsets [S + 1]              ragged sequences, and labels [N]
  logits [N, V], hidden_states.L [N, C], attentions.L.S [H, T, T]
  loss                                  mean cross entropy over all N rows
  grad.<parameter>                      its gradient
  target [N, V], kd_loss, kd_grad.<p>   0.5 CE + 0.5 T^2 KL(target || student) at T = 2, target a softmax at T
Of encoders, instead of labels and logits:
  sentence_mean, sentence_first [S, C]  rows of a sequence pooled, divided by their length
  states_target [N, C], sentence_target the loss is the sum of final states and of sentence_mean, each times these
  pad_ids, pad_states                   a sequence that has the pad token within, and its final states
Of classifiers of texts logits and labels are one row a sequence, [S, V] and [S].
"""
import json
import pathlib
import sys
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

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

# One family or one kind of rotary positions each; sequences are longer than every window and than every length
# before stretching. 'wild' is what AutoConfig doesn't take as it stands: config.json is changed afterwards.
WINDOW = 6
ROPE = dict(vocab_size=19, hidden_size=12, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
            num_key_value_heads=1, head_dim=16, tie_word_embeddings=True, rms_norm_eps=1e-5)
FAMILY = dict(vocab_size=29, hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2,
              num_key_value_heads=1, head_dim=10, rms_norm_eps=1e-5, rope_theta=700.0, pad_token_id=None)
FULL, SLIDING = 'full_attention', 'sliding_attention'


def rope(**of):
    return dict(ROPE, model_type='llama', rope_parameters=dict(rope_theta=300.0, **of))


def longrope(n):
    return dict(rope_type='longrope', short_factor=[1 + 0.1 * i for i in range(n)], long_factor=[1.5 + 0.5 * i for i in range(n)],
                original_max_position_embeddings=10)


FAMILIES = {
    'rope_linear': rope(rope_type='linear', factor=3.0),
    'rope_dynamic': dict(rope(rope_type='dynamic', factor=4.0), max_position_embeddings=8),
    'rope_yarn': rope(rope_type='yarn', factor=4.0, original_max_position_embeddings=16),
    'rope_yarn_more': rope(rope_type='yarn', factor=8.0, original_max_position_embeddings=9, beta_fast=4.0, beta_slow=0.5,
                           mscale=0.9, mscale_all_dim=0.4, truncate=False),
    'rope_llama3': rope(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                        original_max_position_embeddings=40),
    'rope_longrope': rope(**longrope(8)),
    'mistral_window': dict(FAMILY, model_type='mistral', sliding_window=WINDOW),
    'ministral': dict(FAMILY, model_type='ministral', sliding_window=WINDOW, layer_types=[SLIDING, FULL, SLIDING]),
    'qwen2_window': dict(FAMILY, model_type='qwen2', hidden_size=16, head_dim=None, use_sliding_window=True,
                         sliding_window=WINDOW, max_window_layers=1),
    'qwen3': dict(FAMILY, model_type='qwen3', tie_word_embeddings=True, attention_bias=True),
    'gemma2': dict(FAMILY, model_type='gemma2', sliding_window=WINDOW, query_pre_attn_scalar=7, attn_logit_softcapping=2.0,
                   final_logit_softcapping=3.0),
    'gemma3': dict(FAMILY, model_type='gemma3_text', rope_theta=None, sliding_window=WINDOW, query_pre_attn_scalar=10,
                   layer_types=[SLIDING, SLIDING, FULL], rope_parameters={
                       FULL: dict(rope_type='linear', factor=2.0, rope_theta=900.0), SLIDING: dict(rope_type='default', rope_theta=50.0)}),
    # the text model within one that also sees
    'gemma3_sees': dict(model_type='gemma3', pad_token_id=None, max_position_embeddings=None, image_token_index=28, text_config=dict(
        {k: v for k, v in FAMILY.items() if k != 'rope_theta'}, hidden_size=16, head_dim=10, num_hidden_layers=2, sliding_window=WINDOW, query_pre_attn_scalar=10,
        max_position_embeddings=64, initializer_range=0.2, layer_types=[SLIDING, FULL], eos_token_id=7),
        vision_config=dict(hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, image_size=4, patch_size=2),
        mm_tokens_per_image=1, eos_token_id=[3, 5]),
    # no row's K-th and next expert are so near that rounding could choose
    'qwen3_moe': dict(FAMILY, model_type='qwen3_moe', num_hidden_layers=2, num_experts=6, num_experts_per_tok=3,
                      moe_intermediate_size=8, norm_topk_prob=True, tie_word_embeddings=True),
    'olmoe': dict(FAMILY, model_type='olmoe', hidden_size=12, head_dim=None, intermediate_size=8, num_hidden_layers=1, num_experts=5,
                  num_experts_per_tok=2, attention_bias=True),
    'mixtral': dict(FAMILY, model_type='mixtral', intermediate_size=8, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2,
                    sliding_window=WINDOW),
    'smollm3': dict(FAMILY, model_type='smollm3', hidden_size=20, head_dim=None, no_rope_layers=[1, 0, 1]),
    'olmo2': dict(FAMILY, model_type='olmo2', hidden_size=20, head_dim=None, tie_word_embeddings=False),
    'granite': dict(FAMILY, model_type='granite', hidden_size=20, head_dim=None, embedding_multiplier=3.0,
                    residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=2.5, attention_bias=True),
    'phi3': dict(FAMILY, model_type='phi3', hidden_size=32, head_dim=None, num_hidden_layers=2, sliding_window=WINDOW + 5,
                 original_max_position_embeddings=10, rope_theta=None,
                 rope_parameters=dict(longrope(6), rope_theta=500.0, partial_rotary_factor=0.75)),
    'gpt2': dict(model_type='gpt2', vocab_size=29, n_embd=18, n_inner=20, n_layer=2, n_head=2, n_positions=64),
    'gpt_neox': dict(model_type='gpt_neox', vocab_size=29, hidden_size=24, intermediate_size=20, num_hidden_layers=2,
                     num_attention_heads=2, rope_parameters=dict(rope_theta=400.0, partial_rotary_factor=0.34, rope_type='default')),
    'gpt_neox_serial': dict(model_type='gpt_neox', vocab_size=29, hidden_size=16, intermediate_size=20, num_hidden_layers=2,
                            num_attention_heads=2, tie_word_embeddings=True, use_parallel_residual=False, attention_bias=False,
                            rope_parameters=dict(rope_theta=400.0, partial_rotary_factor=0.5, rope_type='default')),
}
FAMILY_LENGTHS = [1, 5, 23]
SMALL_BERT = dict(vocab_size=29, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3,
                  max_position_embeddings=32, initializer_range=0.3)
ENCODERS = {
    'bert': dict(SMALL_BERT, model_type='bert', layer_norm_eps=1e-5),
    'roberta': dict(SMALL_BERT, model_type='roberta', type_vocab_size=1, pad_token_id=3),
    'distilbert': dict(model_type='distilbert', vocab_size=29, dim=16, hidden_dim=20, n_layers=2, n_heads=2,
                       max_position_embeddings=32, initializer_range=0.3),
}
TINY_BERT = dict(SMALL_BERT, num_hidden_layers=1)
NAMES = ('cold', 'warm', 'hot')
CLASSES = dict(id2label=dict(enumerate(NAMES)), label2id={name: i for i, name in enumerate(NAMES)})
CLASSIFIERS = {
    'bert_classes': dict(TINY_BERT, **CLASSES, model_type='bert', problem_type='single_label_classification'),
    'roberta_classes': dict(TINY_BERT, model_type='roberta', type_vocab_size=1, pad_token_id=3, num_labels=4),
    'distilbert_classes': dict(ENCODERS['distilbert'], n_layers=1),  # two, as nothing says otherwise
    # the row of the last token that is no pad
    'qwen3_classes': dict(FAMILY, **CLASSES, model_type='qwen3', num_hidden_layers=1, max_position_embeddings=64,
                          initializer_range=0.2, bos_token_id=None, eos_token_id=6) | dict(pad_token_id=6),
}


def by_layer_kind(config):
    """transformers 4's spelling of Gemma 3."""
    rope = config.pop('rope_parameters')
    config['rope_theta'] = rope[FULL].pop('rope_theta')
    config['rope_scaling'] = rope[FULL]
    config['rope_local_base_freq'] = rope[SLIDING]['rope_theta']
    config['sliding_window_pattern'] = 3
    del config['layer_types'], config['_sliding_window_pattern']


def as_scaling(config):
    """transformers 4's spelling of scaled positions."""
    rope = config.pop('rope_parameters')
    config['rope_theta'] = rope.pop('rope_theta')
    config['rope_scaling'] = dict(rope, type=rope.pop('rope_type'))


def without_prefix(tensors):
    """As a file of the base model has them."""
    return {k.removeprefix('transformer.'): v for k, v in tensors.items()}


OLD = {'gemma3': by_layer_kind, 'rope_linear': as_scaling, 'rope_dynamic': as_scaling, 'rope_llama3': as_scaling}


def as_stored(model_type, name, grad):
    """The gradient under the names that files have: of each expert by itself."""
    place = 'block_sparse_moe' if model_type == 'mixtral' else 'mlp'
    gate, up, down = ('w1', 'w3', 'w2') if model_type == 'mixtral' else ('gate_proj', 'up_proj', 'down_proj')
    layer, _, what = name.partition('.mlp.')
    if what == 'gate.weight':
        yield f'{layer}.{place}.gate.weight', grad
    elif what == 'experts.gate_up_proj':
        for e, both in enumerate(grad):
            yield from zip((f'{layer}.{place}.experts.{e}.{k}.weight' for k in (gate, up)), both.chunk(2))
    elif what == 'experts.down_proj':
        yield from ((f'{layer}.{place}.experts.{e}.{down}.weight', g) for e, g in enumerate(grad))
    else:
        yield name, grad


def make(name, config, lengths, distilled):
    torch.manual_seed(7)
    config = {k: v for k, v in dict(dict(model_type='llama', max_position_embeddings=64, initializer_range=0.2, eos_token_id=0,
                                         bos_token_id=None), **config).items()
              if v is not None or k not in ('head_dim', 'rope_theta', 'max_position_embeddings')}
    settings = AutoConfig.for_model(attn_implementation='eager', **config)
    model = AutoModelForCausalLM.from_config(settings, attn_implementation='eager').float().eval()
    for p in model.parameters():  # biases and norms that do something
        if p.dim() == 1:
            p.data += 0.3 * torch.randn_like(p)
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / 'generation_config.json').unlink(missing_ok=True)
    if name in OLD:
        text = json.loads((folder / 'config.json').read_text())
        OLD[name](text)
        (folder / 'config.json').write_text(json.dumps(text, indent=2) + '\n')
        again = AutoModelForCausalLM.from_pretrained(folder, attn_implementation='eager').float().eval()
        some = torch.arange(40)[None] % config['vocab_size']
        assert torch.equal(again(some).logits, model(some).logits)
        model = again
    if name == 'gpt2':
        save_file(without_prefix(load_file(folder / 'model.safetensors')), folder / 'model.safetensors', {'format': 'pt'})
    layers, v, out = settings.get_text_config().num_hidden_layers, settings.get_text_config().vocab_size, {}
    ids = [torch.randint(0, v, (n,)) for n in lengths]
    labels = [torch.randint(0, v, (n,)) for n in lengths]
    out['ids'] = torch.cat(ids).to(torch.int32)
    out['labels'] = torch.cat(labels).to(torch.int32)
    out['offsets'] = torch.tensor([0] + lengths).cumsum(0).to(torch.int32)
    runs = [model(input_ids=x[None], output_hidden_states=True, output_attentions=True) for x in ids]
    logits = torch.cat([r.logits[0] for r in runs])
    out['logits'] = logits.detach()
    for layer in range(layers + 1):
        out[f'hidden_states.{layer}'] = torch.cat([r.hidden_states[layer][0] for r in runs]).detach()
    for layer in range(layers):
        for s, r in enumerate(runs):
            out[f'attentions.{layer}.{s}'] = r.attentions[layer][0].detach()
    loss = F.cross_entropy(logits, torch.cat(labels))
    loss.backward(retain_graph=distilled)
    out['loss'] = loss.detach().reshape(1)
    parameters = [(n, p) for n, p in model.named_parameters() if p.grad is not None]  # what sees is not asked
    names = {n: n.replace('lm_head', 'embed_out') if config['model_type'] == 'gpt_neox' else n.replace('.language_model.', '.')
             for n, _ in parameters}
    for n, p in parameters:
        out.update(('grad.' + k, g) for k, g in as_stored(config['model_type'], names[n], p.grad.clone()))
        p.grad = None
    if distilled:
        t = 2.0
        target = (3 * torch.randn_like(logits)).softmax(-1)
        kl = (target * (target.log() - (logits / t).log_softmax(-1))).sum(-1).mean() * t * t
        kd = 0.5 * loss + 0.5 * kl
        kd.backward()
        out['target'] = target.detach()
        out['kd_loss'] = kd.detach().reshape(1)
        for n, p in parameters:
            out['kd_grad.' + names[n]] = p.grad.clone()
    save_file({k: x.contiguous() for k, x in out.items()}, folder / 'expected.safetensors')


def make_encoder(name, config):
    torch.manual_seed(11)
    settings = AutoConfig.for_model(attn_implementation='eager', **config)
    # RoBERTa's file has another task's head and its names a prefix; BERT's has a pooler and, as old ones, positions
    kind = AutoModelForMaskedLM if name == 'roberta' else AutoModel
    whole = kind.from_config(settings, attn_implementation='eager').float().eval()
    for p in whole.parameters():
        if p.dim() == 1:
            p.data += 0.3 * torch.randn_like(p)
    folder = HERE / name
    whole.save_pretrained(folder)
    if name == 'bert':
        tensors = load_file(folder / 'model.safetensors')
        save_file(dict(tensors, **{'embeddings.position_ids': torch.arange(32)[None]}), folder / 'model.safetensors', {'format': 'pt'})
    model = getattr(whole, name) if name == 'roberta' else whole
    layers, v, width, out = settings.num_hidden_layers, config['vocab_size'], settings.hidden_size, {}
    ids = [torch.randint(4, v, (n,)) for n in FAMILY_LENGTHS]  # no pad: PyTorch leaves its gradient out
    out['ids'] = torch.cat(ids).to(torch.int32)
    out['offsets'] = torch.tensor([0] + FAMILY_LENGTHS).cumsum(0).to(torch.int32)
    runs = [model(input_ids=x[None], output_hidden_states=True, output_attentions=True) for x in ids]
    for layer in range(layers + 1):
        out[f'hidden_states.{layer}'] = torch.cat([r.hidden_states[layer][0] for r in runs]).detach()
    for layer in range(layers):
        for s, r in enumerate(runs):
            out[f'attentions.{layer}.{s}'] = r.attentions[layer][0].detach()
    states = [r.last_hidden_state[0] for r in runs]
    mean = F.normalize(torch.stack([x.mean(0) for x in states]))
    out['sentence_mean'] = mean.detach()
    out['sentence_first'] = F.normalize(torch.stack([x[0] for x in states])).detach()
    out['states_target'] = torch.randn(sum(FAMILY_LENGTHS), width)
    out['sentence_target'] = torch.randn(len(ids), width)
    ((torch.cat(states) * out['states_target']).sum() + (mean * out['sentence_target']).sum()).backward()
    for n, p in model.named_parameters():
        if 'pooler' not in n:
            out[f'grad.{config["model_type"]}.{n}'] = p.grad.clone()
    pads = torch.tensor([5, settings.pad_token_id, 7, 8, settings.pad_token_id])
    out['pad_ids'] = pads.to(torch.int32)
    out['pad_states'] = model(input_ids=pads[None]).last_hidden_state[0].detach()
    save_file({k: x.contiguous() for k, x in out.items()}, folder / 'expected.safetensors')


def make_classifier(name, config):
    torch.manual_seed(13)
    settings = AutoConfig.for_model(attn_implementation='eager', **config)
    model = AutoModelForSequenceClassification.from_config(settings, attn_implementation='eager').float().eval()
    for p in model.parameters():
        if p.dim() == 1:
            p.data += 0.3 * torch.randn_like(p)
    folder = HERE / name
    model.save_pretrained(folder)
    out, v = {}, settings.num_labels
    ids = [torch.randint(7, config['vocab_size'], (n,)) for n in FAMILY_LENGTHS]
    if name == 'qwen3_classes':
        model.model.embed_tokens.padding_idx = None  # PyTorch would leave its gradient out
        ids[1][-2:] = settings.pad_token_id
        ids[0][0] = settings.pad_token_id
    out['ids'] = torch.cat(ids).to(torch.int32)
    out['offsets'] = torch.tensor([0] + FAMILY_LENGTHS).cumsum(0).to(torch.int32)
    labels = torch.randint(0, v, (len(ids),))
    out['labels'] = labels.to(torch.int32)
    runs = [model(input_ids=x[None], output_hidden_states=True, output_attentions=True) for x in ids]
    logits = torch.cat([r.logits for r in runs])
    out['logits'] = logits.detach()
    for layer in range(settings.num_hidden_layers + 1):
        out[f'hidden_states.{layer}'] = torch.cat([r.hidden_states[layer][0] for r in runs]).detach()
    for layer in range(settings.num_hidden_layers):
        for s, r in enumerate(runs):
            out[f'attentions.{layer}.{s}'] = r.attentions[layer][0].detach()
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    out['loss'] = loss.detach().reshape(1)
    for n, p in model.named_parameters():
        out['grad.' + n] = p.grad.clone()
    save_file({k: x.contiguous() for k, x in out.items()}, folder / 'expected.safetensors')


for case, settings in CLASSIFIERS.items():
    if len(sys.argv) < 2 or case in sys.argv[1:]:
        make_classifier(case, settings)
for case, settings in ENCODERS.items():
    if len(sys.argv) < 2 or case in sys.argv[1:]:
        make_encoder(case, settings)
for case, settings in CASES.items():
    if len(sys.argv) < 2 or case in sys.argv[1:]:
        make(case, settings, LENGTHS, True)
for case, settings in FAMILIES.items():
    if len(sys.argv) < 2 or case in sys.argv[1:]:
        make(case, settings, FAMILY_LENGTHS, False)
