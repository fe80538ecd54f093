"""Sound files of each format that Limbeck reads, for mutants.py: made here or taken from tests/golden, each with what has to
lie beside it.

    all_of(source, limbeck) -> {format: [Specimen]}
"""
import collections
import json
import pathlib
import random
import struct
import subprocess

# name of the changed file; what opens it (open_each's way); path below the folder that is opened; files {name: bytes}
Specimen = collections.namedtuple('Specimen', 'kind name way opened files')

# ---- GGUF ----

# ggml's numbers of types: weights of a block, its bytes
TYPES = {'f32': (0, 1, 4), 'f16': (1, 1, 2), 'bf16': (30, 1, 2), 'q4_0': (2, 32, 18), 'q4_1': (3, 32, 20), 'q5_0': (6, 32, 22), 'q5_1': (7, 32, 24),
         'q8_0': (8, 32, 34), 'q2_k': (10, 256, 84), 'q3_k': (11, 256, 110), 'q4_k': (12, 256, 144), 'q5_k': (13, 256, 176), 'q6_k': (14, 256, 210),
         'iq4_nl': (20, 32, 18), 'iq4_xs': (23, 256, 136), 'mxfp4': (39, 32, 17)}
WIDTH, VOCABULARY = 256, 262


def text(of):
    raw = of.encode() if isinstance(of, str) else of
    return struct.pack('<Q', len(raw)) + raw


def value(v):
    if isinstance(v, bool):
        return struct.pack('<IB', 7, v)
    if isinstance(v, int):
        return struct.pack('<II', 4, v)
    if isinstance(v, float):
        return struct.pack('<If', 6, v)
    if isinstance(v, str):
        return struct.pack('<I', 8) + text(v)
    kind = 8 if isinstance(v[0], str) else 6 if isinstance(v[0], float) else 5
    return struct.pack('<IIQ', 9, kind, len(v)) + b''.join(text(x) if kind == 8 else struct.pack('<f' if kind == 6 else '<i', x) for x in v)


def gguf(pairs, tensors):
    """tensors: (name, dims with the fastest first, ggml type, bytes)."""
    head = b'GGUF' + struct.pack('<IQQ', 3, len(tensors), len(pairs))
    head += b''.join(text(k) + value(v) for k, v in pairs.items())
    at, data = 0, b''
    for name, dims, kind, raw in tensors:
        head += text(name) + struct.pack('<I', len(dims)) + struct.pack(f'<{len(dims)}Q', *dims) + struct.pack('<IQ', kind, at)
        data += raw + b'\0' * (-len(raw) % 32)
        at = len(data)
    return head + b'\0' * (-len(head) % 32) + data


def llama(kind):
    """Keys and tensors of a llama whose matrices are of that type, with a vocabulary."""
    r = random.Random(kind)
    number, block, size = TYPES[kind]

    def matrix(name, rows, cols):
        raw = r.randbytes(rows * cols // block * size)
        return name, (cols, rows), number, bytes(b & 0x3f for b in raw)  # no exponent of ones: scales stay finite

    def vector(name):
        return name, (WIDTH,), 0, struct.pack(f'<{WIDTH}f', *(r.uniform(0.5, 1.5) for _ in range(WIDTH)))

    plain = [b for span in ((33, 127), (161, 173), (174, 256)) for b in range(*span)]
    letters = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]  # all bytes, as GPT-2 writes them
    pairs = {'general.architecture': 'llama', 'general.name': kind, 'llama.context_length': 64, 'llama.embedding_length': WIDTH, 'llama.block_count': 1,
             'llama.feed_forward_length': WIDTH, 'llama.attention.head_count': 4, 'llama.attention.head_count_kv': 2,
             'llama.attention.layer_norm_rms_epsilon': 1e-5, 'llama.rope.freq_base': 10000.0, 'llama.rope.dimension_count': 64, 'llama.vocab_size': VOCABULARY,
             'general.file_type': 0, 'general.quantization_version': 2, 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'default',
             'tokenizer.ggml.tokens': letters + ['ab', 'bc', 'abc', 'de', '<s>', '</s>'], 'tokenizer.ggml.token_type': [1] * (VOCABULARY - 2) + [3, 3],
             'tokenizer.ggml.merges': ['a b', 'b c', 'ab c', 'd e'], 'tokenizer.ggml.bos_token_id': VOCABULARY - 2, 'tokenizer.ggml.eos_token_id': VOCABULARY - 1,
             'tokenizer.ggml.add_bos_token': True, 'tokenizer.chat_template': "{% for m in messages %}<s>{{ m.role + ': ' + m.content }}</s>\n{% endfor %}"}
    tensors = [matrix('token_embd.weight', VOCABULARY, WIDTH), vector('output_norm.weight'), vector('blk.0.attn_norm.weight'), matrix('blk.0.attn_q.weight', WIDTH, WIDTH),
               matrix('blk.0.attn_k.weight', WIDTH // 2, WIDTH), matrix('blk.0.attn_v.weight', WIDTH // 2, WIDTH), matrix('blk.0.attn_output.weight', WIDTH, WIDTH),
               vector('blk.0.ffn_norm.weight'), matrix('blk.0.ffn_gate.weight', WIDTH, WIDTH), matrix('blk.0.ffn_up.weight', WIDTH, WIDTH),
               matrix('blk.0.ffn_down.weight', WIDTH, WIDTH)]
    return pairs, tensors


def split(kind, n):
    pairs, tensors = llama(kind)
    files = {}
    for i in range(n):
        mine = tensors[i * len(tensors) // n:(i + 1) * len(tensors) // n]
        counts = {'split.no': i, 'split.count': n, 'split.tensors.count': len(tensors)}
        files[f'm-{i + 1:05}-of-{n:05}.gguf'] = gguf({**pairs, **counts} if i == 0 else counts, mine)
    return files


# ---- safetensors ----


def safetensors(tensors):
    """tensors: {name: (dtype, shape, bytes)}."""
    header, data = {'__metadata__': {'format': 'pt'}}, b''
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [len(data), len(data) + len(raw)]}
        data += raw
    told = json.dumps(header).encode()
    told += b' ' * (-len(told) % 8)
    return struct.pack('<Q', len(told)) + told + data


def read_safetensors(raw):
    n = int.from_bytes(raw[:8], 'little')
    header = json.loads(raw[8:8 + n])
    header.pop('__metadata__', None)
    return {k: (v['dtype'], v['shape'], raw[8 + n + v['data_offsets'][0]:8 + n + v['data_offsets'][1]]) for k, v in header.items()}


def sharded(folder):
    tensors = list(read_safetensors(folder['model.safetensors']).items())
    half = len(tensors) // 2
    files = {k: v for k, v in folder.items() if k != 'model.safetensors'}
    names = ('model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors')
    parts = (dict(tensors[:half]), dict(tensors[half:]))
    files |= {name: safetensors(part) for name, part in zip(names, parts)}
    files['model.safetensors.index.json'] = json.dumps({'metadata': {'total_size': sum(len(t[2]) for _, t in tensors)}, 'weight_map': {
        t: name for name, part in zip(names, parts) for t in part}}, indent=1).encode()
    return files


def tiny(vocabulary):
    """A llama with so many tokens, to be saved with a tokenizer."""
    config = {'model_type': 'llama', 'architectures': ['LlamaForCausalLM'], 'vocab_size': vocabulary, 'hidden_size': 8, 'intermediate_size': 8, 'num_hidden_layers': 1,
              'num_attention_heads': 2, 'num_key_value_heads': 1, 'max_position_embeddings': 64, 'tie_word_embeddings': True, 'bos_token_id': 1, 'eos_token_id': 2}
    shapes = {'embed_tokens': [vocabulary, 8], 'norm': [8], 'layers.0.input_layernorm': [8], 'layers.0.post_attention_layernorm': [8], 'layers.0.self_attn.q_proj': [8, 8],
              'layers.0.self_attn.k_proj': [4, 8], 'layers.0.self_attn.v_proj': [4, 8], 'layers.0.self_attn.o_proj': [8, 8], 'layers.0.mlp.gate_proj': [8, 8],
              'layers.0.mlp.up_proj': [8, 8], 'layers.0.mlp.down_proj': [8, 8]}
    tensors = {f'model.{k}.weight': ('F32', v, struct.pack('<f', 0.25) * (v[0] * (v[1] if len(v) > 1 else 1))) for k, v in shapes.items()}
    return {'config.json': json.dumps(config).encode(), 'model.safetensors': safetensors(tensors)}


# ---- templates ----

CHATML = b"""{%- if messages[0]['role'] == 'system' -%}
  {%- set system = messages[0]['content'] -%}{%- set rest = messages[1:] -%}
{%- else -%}{%- set system = 'You help.' -%}{%- set rest = messages -%}{%- endif -%}
{{- '<s>system\\n' + system | trim + '</s>\\n' -}}
{%- if tools is defined and tools -%}{%- for tool in tools -%}{{- tool | tojson(indent=2) -}}{%- endfor -%}{%- endif -%}
{%- macro part(m) -%}{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for c in m.content -%}{{ c['text'] }}{%- endfor -%}{%- endif -%}{%- endmacro -%}
{%- set ns = namespace(last=-1) -%}
{%- for m in rest -%}
  {%- if m.role not in ['user', 'assistant', 'tool'] -%}{{ raise_exception('role ' ~ m.role) }}{%- endif -%}
  {%- if m.role == 'assistant' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
  {{- '<s>' ~ m['role'] ~ '\\n' ~ part(m) ~ '</s>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<s>assistant\\n' }}{%- endif -%}
"""


def all_of(source, limbeck):
    golden = pathlib.Path(source) / 'tests' / 'golden'
    formats = collections.defaultdict(list)

    def read(folder, *but):
        return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file() and p.name not in ('expected.safetensors', *but)}

    for kind in TYPES:
        formats['gguf'].append(Specimen('gguf', 'm.gguf', 'all', 'm.gguf', {'m.gguf': gguf(*llama(kind))}))
    formats['gguf'] += [Specimen('gguf', p.name, 'model', p.name, {p.name: p.read_bytes()}) for p in sorted((golden / 'gguf').glob('*.gguf'))]
    formats['gguf vocabulary'] = [Specimen('gguf', p.name, 'texts', p.name, {p.name: p.read_bytes()}) for p in sorted((golden / 'gguf_vocab').glob('*.gguf'))]
    for kind, n in (('q8_0', 2), ('q4_0', 3)):
        files = split(kind, n)
        formats['split gguf'] += [Specimen('gguf', name, 'all', min(files), files) for name in files]

    folders = {p.name: read(p) for p in sorted((golden / 'model').iterdir())}
    for name in folders:
        formats['config.json'].append(Specimen('json', 'config.json', 'model', '', folders[name]))
    for name in ('tied', 'gpt2', 'phi3', 'bert'):
        formats['safetensors'].append(Specimen('safetensors', 'model.safetensors', 'model', '', folders[name]))
    parts = sharded(folders['untied'])
    formats['sharded safetensors'] += [Specimen('json' if name.endswith('json') else 'safetensors', name, 'model', '', parts) for name in parts if name != 'config.json']
    ends = json.dumps({'_from_model_config': True, 'bos_token_id': 1, 'eos_token_id': [2, 0], 'pad_token_id': 0, 'temperature': 0.6, 'top_k': 20, 'do_sample': True,
                       'transformers_version': '5.0.0'}, indent=2).encode()

    for p in sorted((golden / 'text').glob('*.json')) + sorted((golden / 'gguf_vocab').glob('*.json')):
        if not p.name.endswith('.cases.json'):
            formats['tokenizer.json'].append(Specimen('json', 'tokenizer.json', 'texts', '', {'tokenizer.json': p.read_bytes()}))

    wordnet = (pathlib.Path(source) / 'examples' / 'wordnet' / 'tokenizer.json').read_bytes()
    llama_json = (golden / 'gguf_vocab' / 'llama.json').read_bytes()
    special = {k: {'content': v, 'lstrip': False, 'normalized': False, 'rstrip': False, 'single_word': False} for k, v in
               (('bos_token', '<s>'), ('eos_token', '</s>'), ('unk_token', '<unk>'))}
    config = {**special, 'add_bos_token': True, 'add_eos_token': False, 'pad_token': '</s>', 'model_max_length': 1000000000000000019884624838656, 'chat_template': CHATML.decode(),
              'added_tokens_decoder': {'0': {**special['unk_token'], 'special': True}}, 'tokenizer_class': 'LlamaTokenizer', 'legacy': False,
              'clean_up_tokenization_spaces': False}
    beside = {'tokenizer.json': llama_json, 'tokenizer_config.json': json.dumps(config, indent=1).encode(), 'special_tokens_map.json': json.dumps(special, indent=1).encode()}
    saved = {**tiny(512), **beside, 'generation_config.json': ends}
    formats['generation_config.json'].append(Specimen('json', 'generation_config.json', 'save', '', saved))
    many = {**config, 'chat_template': [{'name': 'default', 'template': CHATML.decode()}, {'name': 'tool_use', 'template': 'x'}]}
    formats['tokenizer_config.json'] += [Specimen('json', 'tokenizer_config.json', 'texts', '', {**beside, 'tokenizer_config.json': json.dumps(c, indent=1).encode()})
                                         for c in (config, many)]
    for name in ('tokenizer_config.json', 'special_tokens_map.json'):
        formats[name].append(Specimen('json', name, 'save', '', saved))
    cases = json.loads((golden / 'chat' / 'cases.json').read_text())['cases']
    templates = [CHATML] + [''.join(c['template'] for c in cases[i:i + 6] if 'text' in c).encode() for i in range(0, len(cases), 6)]
    formats['chat template'] += [Specimen('jinja', 'chat_template.jinja', 'texts', '', {**beside, 'chat_template.jinja': t}) for t in templates if t]

    formats['vocab_map.json'].append(trimmed(limbeck, wordnet))
    for name in ('bert', 'distilbert', 'roberta'):
        modules = [dict(idx=i, name=str(i), path=path, type=f'sentence_transformers.models.{kind}') for i, (path, kind) in
                   enumerate((('', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Normalize', 'Normalize')))]
        pooling = {'word_embedding_dimension': 12, 'pooling_mode_cls_token': False, 'pooling_mode_mean_tokens': True, 'pooling_mode_max_tokens': False,
                   'pooling_mode_mean_sqrt_len_tokens': False, 'pooling_mode_weightedmean_tokens': False, 'pooling_mode_lasttoken': False, 'include_prompt': True}
        files = {**folders[name], 'modules.json': json.dumps(modules, indent=1).encode(), '1_Pooling/config.json': json.dumps(pooling, indent=1).encode()}
        formats['modules.json'].append(Specimen('json', 'modules.json', 'model', '', files))
        formats['1_Pooling/config.json'].append(Specimen('json', '1_Pooling/config.json', 'model', '', files))
    for p in sorted((pathlib.Path(source) / 'examples').glob('*/*.yaml')) + sorted((pathlib.Path(source) / 'examples').glob('*/*/*.yaml')):
        formats['recipe'].append(Specimen('yaml', 'r.yaml', 'recipe', 'r.yaml', {'r.yaml': p.read_bytes()}))
    return dict(formats)


def trimmed(limbeck, tokenizer):
    """A trimmed tokenizer with its map, as limbeck writes them."""
    import tempfile
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / 'tokenizer.json').write_bytes(tokenizer)
        (folder / 'text.txt').write_text('the bird that sings by a river and house of wood in small rain\n' * 20)
        run = subprocess.run([limbeck, 'tokenizer', 'trim', str(folder / 'tokenizer.json'), f'--corpus={folder / "text.txt"}', '--size=400', f'--out={folder / "out"}'],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if run.returncode:
            raise SystemExit(run.stdout)
        return Specimen('json', 'vocab_map.json', 'texts', '', {p.name: p.read_bytes() for p in (folder / 'out').iterdir()})
