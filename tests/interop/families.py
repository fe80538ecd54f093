"""Small random models of each family that Limbeck writes, and what the peers make of them.

The GGUF of write_gguf is made by the gguf package and by llama.cpp's rules for what stands in such a file, without a
line of Limbeck: names from gguf's own map, rows of q and k reordered for the families that llama.cpp rotates in pairs.
Needs gguf, llama_cpp, numpy, torch and transformers (requirements.txt).
"""
import json

import gguf
import llama_cpp
import numpy
import torch
import transformers

FULL, SLIDING = 'full_attention', 'sliding_attention'
WINDOW = 6
SMALL = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, rope_theta=500.0, rms_norm_eps=1e-5, initializer_range=0.25, bos_token_id=None,
             eos_token_id=0, pad_token_id=None)
SIZES = {k: SMALL[k] for k in ('hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads',
                               'max_position_embeddings', 'initializer_range', 'bos_token_id', 'eos_token_id', 'pad_token_id')}
GEMMA = dict(head_dim=16, num_hidden_layers=7, sliding_window=WINDOW, rope_theta=None)


def scaled(**rope):
    return dict(rope_theta=None, head_dim=16, rope_parameters=dict(rope_theta=500.0, **rope))


def factors(n):
    return dict(rope_type='longrope', short_factor=[1 + 0.1 * i for i in range(n)], long_factor=[1.5 + 0.5 * i for i in range(n)])


# name: (transformers' config class, what it is about, the GGUF's architecture)
FAMILIES = {
    'llama': (transformers.LlamaConfig, dict(head_dim=8, tie_word_embeddings=True), 'llama'),
    'llama_bias': (transformers.LlamaConfig, dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=False), 'llama'),
    'llama_linear': (transformers.LlamaConfig, scaled(rope_type='linear', factor=3.0), 'llama'),
    'llama_yarn': (transformers.LlamaConfig, scaled(rope_type='yarn', factor=4.0, original_max_position_embeddings=16), 'llama'),
    'llama3': (transformers.LlamaConfig, scaled(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                original_max_position_embeddings=40), 'llama'),
    'mistral': (transformers.MistralConfig, dict(head_dim=8, sliding_window=None, tie_word_embeddings=False), 'llama'),
    'qwen2': (transformers.Qwen2Config, dict(tie_word_embeddings=True), 'qwen2'),
    'qwen2_untied': (transformers.Qwen2Config, dict(tie_word_embeddings=False), 'qwen2'),
    'qwen3': (transformers.Qwen3Config, dict(head_dim=16, tie_word_embeddings=True), 'qwen3'),
    'gemma2': (transformers.Gemma2Config, dict(GEMMA, num_hidden_layers=3, query_pre_attn_scalar=16, attn_logit_softcapping=2.0,
                                               final_logit_softcapping=3.0), 'gemma2'),
    'gemma3': (transformers.Gemma3TextConfig, dict(GEMMA, query_pre_attn_scalar=16, rope_parameters={
        FULL: dict(rope_type='linear', factor=2.0, rope_theta=900.0), SLIDING: dict(rope_type='default', rope_theta=10000.0)}),
               'gemma3'),
    'gemma3_sees': (transformers.Gemma3Config, dict(GEMMA, query_pre_attn_scalar=16, sees_with=dict(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=4, patch_size=2)), 'gemma3'),
    'smollm3': (transformers.SmolLM3Config, dict(num_hidden_layers=5), 'smollm3'),
    'qwen3_moe': (transformers.Qwen3MoeConfig, dict(head_dim=16, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=12,
                                                    norm_topk_prob=True, tie_word_embeddings=True), 'qwen3moe'),
    'olmoe': (transformers.OlmoeConfig, dict(num_key_value_heads=4, num_experts=5, num_experts_per_tok=2, tie_word_embeddings=False), 'olmoe'),
    'mixtral': (transformers.MixtralConfig, dict(num_local_experts=4, num_experts_per_tok=2), 'llama'),
    'olmo2': (transformers.Olmo2Config, dict(tie_word_embeddings=False), 'olmo2'),
    'granite': (transformers.GraniteConfig, dict(embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2,
                                                 logits_scaling=2.5, tie_word_embeddings=True), 'granite'),
    # llama.cpp chooses the factors by its context, 256 at least: here all tokens are within 512, or beyond 16
    'phi3_short': (transformers.Phi3Config, dict(hidden_size=32, original_max_position_embeddings=512, max_position_embeddings=512,
                                                 rope_theta=None, rope_parameters=dict(factors(4), rope_theta=500.0)), 'phi3'),
    'phi3_long': (transformers.Phi3Config, dict(hidden_size=32, original_max_position_embeddings=16, rope_theta=None,
                                                rope_parameters=dict(factors(4), rope_theta=500.0)), 'phi3'),
    'gpt2': (transformers.GPT2Config, dict(n_embd=24, n_layer=2, n_head=2, n_inner=40, n_positions=64), 'gpt2'),
    'gpt_neox': (transformers.GPTNeoXConfig, dict(rope_parameters=dict(rope_theta=500.0, partial_rotary_factor=0.67,
                                                                      rope_type='default')), 'gptneox'),
    'gpt_neox_serial': (transformers.GPTNeoXConfig, dict(use_parallel_residual=False, rope_parameters=dict(
        rope_theta=10000.0, partial_rotary_factor=1.0, rope_type='default')), 'gptneox'),
}
# what llama.cpp's files of these architectures cannot say, in Hugging Face's folders only
FOLDER_ONLY = {
    'mistral_window': (transformers.MistralConfig, dict(head_dim=8, sliding_window=WINDOW), None),
    'ministral': (transformers.MinistralConfig, dict(head_dim=8, num_hidden_layers=3, sliding_window=WINDOW,
                                                     layer_types=[SLIDING, FULL, SLIDING]), None),
    'qwen2_window': (transformers.Qwen2Config, dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1), None),
}
ALL = {**FAMILIES, **FOLDER_ONLY}
BASES = {'gpt2': {}, 'gpt_neox': SIZES, 'gpt_neox_serial': SIZES}  # others: SMALL
BY_TABLE = ('gemma2', 'gemma3', 'gpt2', 'gptneox')  # llama.cpp looks gelu up in a table of FP16
PAIRED = ('llama', 'granite', 'smollm3')  # llama.cpp rotates (2j, 2j + 1) there


NEUTRAL = dict(initializer_range=0.25, bos_token_id=None, eos_token_id=0, pad_token_id=None)


def make(name, vocab_size):
    """A model of the family with weights that all matter: norms and biases are noise too."""
    config_class, special, _ = ALL[name]
    torch.manual_seed(sum(name.encode()))
    chosen = {**BASES.get(name, SMALL), **special}
    vision = chosen.pop('sees_with', None)
    settings = dict(vocab_size=vocab_size, **{k: v for k, v in chosen.items() if v is not None or k != 'rope_theta'},
                    **{k: v for k, v in NEUTRAL.items() if k not in chosen})
    if vision:  # the text model is a part
        settings = dict(text_config=settings, vision_config=vision, mm_tokens_per_image=1, image_token_index=1, eos_token_id=0)
    config = config_class(attn_implementation='eager', **settings)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p += 0.3 * torch.randn_like(p)
    return model


def reorder(rows, heads):
    """transformers rotates (j, j + D/2), llama.cpp's llama (2j, 2j + 1): row j of a head's half h becomes 2j + h."""
    d = rows.shape[0] // heads
    out = numpy.empty_like(rows)
    for head in range(heads):
        for half in range(2):
            for j in range(d // 2):
                out[head * d + 2 * j + half] = rows[head * d + half * (d // 2) + j]
    return out


def write_positions(out, c, head_dim):
    """What llama.cpp is told about rotary positions; llama3's become factors of wavelengths."""
    rope = c.rope_parameters.get(FULL, c.rope_parameters)
    kind, turned = rope['rope_type'], int(head_dim * rope.get('partial_rotary_factor', 1.0))
    out.add_rope_freq_base(rope['rope_theta'])
    if turned != head_dim:
        out.add_rope_dimension_count(turned)
    if kind in ('linear', 'yarn'):
        out.add_rope_scaling_type(gguf.RopeScalingType(kind))
        out.add_rope_scaling_factor(rope['factor'])
    if kind in ('yarn', 'longrope'):
        out.add_rope_scaling_orig_ctx_len(rope['original_max_position_embeddings'])
    if kind == 'llama3':
        plain = rope['rope_theta'] ** (-numpy.arange(0, head_dim, 2) / head_dim)
        wave, n = 2 * numpy.pi / plain, rope['original_max_position_embeddings']
        low, high = rope['low_freq_factor'], rope['high_freq_factor']
        smooth = numpy.clip((n / wave - low) / (high - low), 0, 1)
        out.add_tensor('rope_freqs.weight', (1 / ((1 - smooth) / rope['factor'] + smooth)).astype(numpy.float32))
    if kind == 'longrope':
        for which in ('long', 'short'):
            out.add_tensor(f'rope_factors_{which}.weight', numpy.array(rope[f'{which}_factor'], dtype=numpy.float32))
        stretch = c.max_position_embeddings / rope['original_max_position_embeddings']
        if stretch > 1:
            out.add_rope_scaling_attn_factors((1 + numpy.log(stretch) / numpy.log(rope['original_max_position_embeddings'])) ** 0.5)


def as_stored(arch, key, data, c):
    """A tensor as llama.cpp's converter leaves it."""
    heads = c.num_attention_heads
    if arch in PAIRED and '.q_proj.' in key:
        return reorder(data, heads)
    if arch in PAIRED and '.k_proj.' in key:
        return reorder(data, c.num_key_value_heads)
    if arch in ('gemma2', 'gemma3') and key.endswith('norm.weight'):
        return data + 1
    if arch == 'gpt2' and data.ndim == 2 and '.c_' in key:
        return numpy.ascontiguousarray(data.T)
    if arch == 'gptneox' and 'query_key_value' in key:
        parts = data.reshape(heads, 3, -1, *data.shape[1:])
        return numpy.ascontiguousarray(parts.swapaxes(0, 1)).reshape(data.shape)
    return data


def write_gguf(name, model, path):
    arch, c = FAMILIES[name][2], model.config.get_text_config()
    out = gguf.GGUFWriter(path, arch)
    head_dim = getattr(c, 'head_dim', None) or c.hidden_size // c.num_attention_heads
    out.add_context_length(c.max_position_embeddings)
    out.add_embedding_length(c.hidden_size)
    out.add_block_count(c.num_hidden_layers)
    out.add_feed_forward_length(c.n_inner if arch == 'gpt2' else c.intermediate_size)
    out.add_head_count(c.num_attention_heads)
    if arch == 'gpt2':
        out.add_layer_norm_eps(c.layer_norm_epsilon)
    elif arch == 'gptneox':
        out.add_layer_norm_eps(c.layer_norm_eps)
        out.add_parallel_residual(c.use_parallel_residual)
    else:
        out.add_head_count_kv(c.num_key_value_heads)
        out.add_layer_norm_rms_eps(c.rms_norm_eps)
        out.add_key_length(head_dim)
        out.add_value_length(head_dim)
    if arch != 'gpt2':
        write_positions(out, c, head_dim)
    if getattr(c, 'num_experts_per_tok', 0):
        out.add_expert_count(c.num_local_experts)
        out.add_expert_used_count(c.num_experts_per_tok)
    if arch == 'qwen3moe':
        out.add_expert_feed_forward_length(c.moe_intermediate_size)
    if arch == 'llama':
        out.add_vocab_size(c.vocab_size)
        out.add_rope_dimension_count(head_dim)
    if arch in ('gemma2', 'gemma3'):
        out.add_sliding_window(c.sliding_window)
    if arch == 'gemma2':
        out.add_attn_logit_softcapping(c.attn_logit_softcapping)
        out.add_final_logit_softcapping(c.final_logit_softcapping)
    if arch == 'granite':
        out.add_embedding_scale(c.embedding_multiplier)
        out.add_residual_scale(c.residual_multiplier)
        out.add_attention_scale(c.attention_multiplier)
        out.add_logit_scale(c.logits_scaling)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_tokenizer_model('gpt2')
    out.add_tokenizer_pre('default')
    out.add_token_list([f't{i}' for i in range(c.vocab_size)])
    out.add_token_types([gguf.TokenType.NORMAL] * c.vocab_size)
    out.add_token_merges(['t 1'])
    out.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), c.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        key = key.replace('.language_model.', '.')
        if key == 'lm_head.weight' and c.tie_word_embeddings or key.startswith(('model.vision_tower.', 'model.multi_modal_projector.')):
            continue
        if '.experts.' in key:  # transformers keeps them stacked too, gates above ups
            parts = {'ffn_gate_exps': 0, 'ffn_up_exps': 1} if key.endswith('gate_up_proj') else {'ffn_down_exps': 0}
            for target, part in parts.items():
                rows = tensor.shape[1] // len(parts)
                out.add_tensor(f'blk.{key.split(".")[2]}.{target}.weight', tensor[:, part * rows:(part + 1) * rows].contiguous().numpy())
            continue
        if key.endswith('.mlp.gate.weight'):
            target = f'blk.{key.split(".")[2]}.ffn_gate_inp.weight'
        elif key.endswith('.gate_up_proj.weight'):
            target = key.split('.')[2]
            target = f'blk.{target}.ffn_up.weight'
        else:
            target = names.get_name(key, try_suffixes=('.weight', '.bias'))
        if target is None:
            raise SystemExit(f'gguf has no name for {key}')
        out.add_tensor(target, as_stored(arch, key, tensor.numpy(), c))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def token_ids(vocab_size, n=24):
    return numpy.random.default_rng(5).integers(0, vocab_size, n).astype(numpy.int32)


def by_transformers(model, ids):
    with torch.no_grad():
        return model(torch.from_numpy(ids.astype(numpy.int64))[None]).logits[0].numpy()


QUIET = llama_cpp.llama_log_callback(lambda level, text, user: None)  # a short context is what is meant here


def by_llama_cpp(path, ids):
    # Keys and values as FP32: by default they are kept as FP16.
    llama_cpp.llama_log_set(QUIET, None)
    llama = llama_cpp.Llama(str(path), n_ctx=64, n_batch=64, n_ubatch=64, n_threads=1, n_threads_batch=1,
                            logits_all=True, type_k=gguf.GGMLQuantizationType.F32.value,
                            type_v=gguf.GGMLQuantizationType.F32.value, verbose=False)
    llama.eval(ids.tolist())
    return numpy.array(llama.scores[:len(ids)], dtype=numpy.float32)


def byte_tokenizer(vocab_size):
    """tokenizer.json of the 256 bytes, and whatever else fills the vocabulary."""
    shown = [b for r in ((33, 127), (161, 173), (174, 256)) for b in range(*r)]
    hidden = [b for b in range(256) if b not in shown]
    tokens = ['<|end|>'] + sorted(chr(b) for b in shown) + [chr(256 + i) for i in range(len(hidden))]
    pairs = [(a, b) for a in 'etaoin' for b in 'etaoin'][:vocab_size - len(tokens)]
    tokens += [a + b for a, b in pairs]
    return json.dumps({
        'version': '1.0',
        'added_tokens': [{'id': 0, 'content': '<|end|>', 'single_word': False, 'lstrip': False, 'rstrip': False,
                          'normalized': False, 'special': True}],
        'normalizer': None,
        'pre_tokenizer': {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': True},
        'post_processor': None,
        'decoder': {'type': 'ByteLevel', 'add_prefix_space': True, 'trim_offsets': True, 'use_regex': True},
        'model': {'type': 'BPE', 'dropout': None, 'unk_token': None, 'continuing_subword_prefix': None,
                  'end_of_word_suffix': None, 'fuse_unk': False, 'byte_fallback': False,
                  'vocab': {t: i for i, t in enumerate(tokens)}, 'merges': [list(p) for p in pairs]}})


def difference(have, want):
    """Largest difference, relative to the largest number."""
    return float(numpy.abs(have - want).max() / numpy.abs(want).max())
