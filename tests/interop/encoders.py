#!/usr/bin/env python3
"""Limbeck, transformers, sentence-transformers and llama.cpp on the same encoders and classifiers of texts: the same numbers?

usage: encoders.py BUILD     (BUILD: the build folder with limbeckd and limbeck; needs requirements.txt beside this file)
For each encoder a small random one is made by transformers, with a modules.json; for each classifier one with names of classes.
Then
  hosted        the folder, by limbeckd: states, attention, sentence_embedding, class logits
  exported      `limbeck export --format hf`, by transformers, by sentence-transformers, and by limbeckd
  as GGUF       `limbeck export --format gguf` of BERT and one made without Limbeck, by llama.cpp (text in) and by limbeckd
are held against transformers' model. One line a comparison; exit status 0 only when all are close.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import gguf
import llama_cpp
import numpy
import sentence_transformers
import tokenizers
import torch
import transformers

import check
import families

SIZES = dict(vocab_size=check.VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3,
             max_position_embeddings=80)
DISTIL = dict(vocab_size=check.VOCABULARY, dim=24, hidden_dim=40, n_layers=3, n_heads=3, max_position_embeddings=80)
DECODER = dict(SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=8, pad_token_id=7, bos_token_id=None, eos_token_id=7)
ENCODERS = {
    'bert': transformers.BertConfig(**SIZES),
    'roberta': transformers.RobertaConfig(**SIZES),
    'distilbert': transformers.DistilBertConfig(**DISTIL),
}
NAMES = dict(id2label={i: f'kind {i}' for i in range(5)}, label2id={f'kind {i}': i for i in range(5)})
CLASSIFIERS = {
    'bert': transformers.BertConfig(**SIZES, **NAMES),
    'roberta': transformers.RobertaConfig(**SIZES, **NAMES, problem_type='multi_label_classification'),
    'distilbert': transformers.DistilBertConfig(**DISTIL),  # the two classes that transformers takes for granted
    'llama': transformers.LlamaConfig(**DECODER, **NAMES),
    'mistral': transformers.MistralConfig(**DECODER, num_labels=1, sliding_window=None),
    'qwen2': transformers.Qwen2Config(**DECODER, **NAMES, tie_word_embeddings=True),
    'qwen3': transformers.Qwen3Config(**DECODER, **NAMES, tie_word_embeddings=False),
}
CLOSE = 1e-5  # of the largest number
CLOSE_BY_TABLE = 5e-4  # llama.cpp looks gelu up in a table of FP16, in its tanh form
TEXT = 'Unaffable: one of three, or a longer text'
SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']


def words(vocab_size):
    """A WordPiece vocabulary: letters, as words and within them, and some pairs."""
    letters = 'abcdefghijklmnopqrstuvwxyz'
    out = SPECIAL + list(letters) + ['##' + c for c in letters] + list('.,:!?') + [a + b for a in letters for b in 'aeiou']
    return (out + ['##' + a + b for a in 'aeiou' for b in letters])[:vocab_size]


def word_tokenizer(vocab_size):
    """The tokenizer.json of these, as BERT's are."""
    vocabulary = words(vocab_size)
    ends = {w: {'id': w, 'ids': [vocabulary.index(w)], 'tokens': [w]} for w in ('[CLS]', '[SEP]')}
    cls, sep, text = ({'SpecialToken': {'id': '[CLS]', 'type_id': 0}}, {'SpecialToken': {'id': '[SEP]', 'type_id': 0}},
                      {'Sequence': {'id': 'A', 'type_id': 0}})
    return json.dumps({
        'version': '1.0',
        'added_tokens': [{'id': i, 'content': w, 'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False,
                          'special': True} for i, w in enumerate(SPECIAL)],
        'normalizer': {'type': 'BertNormalizer', 'clean_text': True, 'handle_chinese_chars': True, 'strip_accents': None,
                       'lowercase': True},
        'pre_tokenizer': {'type': 'BertPreTokenizer'},
        'post_processor': {'type': 'TemplateProcessing', 'single': [cls, text, sep],
                           'pair': [cls, text, sep, {'Sequence': {'id': 'B', 'type_id': 1}}], 'special_tokens': ends},
        'decoder': {'type': 'WordPiece', 'prefix': '##', 'cleanup': True},
        'model': {'type': 'WordPiece', 'unk_token': '[UNK]', 'continuing_subword_prefix': '##', 'max_input_chars_per_word': 100,
                  'vocab': {w: i for i, w in enumerate(vocabulary)}}})


def write_gguf(model, path):
    """BERT as llama.cpp's converter lays it out, by the gguf package."""
    c, vocabulary = model.config, words(model.config.vocab_size)
    out = gguf.GGUFWriter(path, 'bert')
    out.add_context_length(c.max_position_embeddings)
    out.add_embedding_length(c.hidden_size)
    out.add_block_count(c.num_hidden_layers)
    out.add_feed_forward_length(c.intermediate_size)
    out.add_head_count(c.num_attention_heads)
    out.add_layer_norm_eps(c.layer_norm_eps)
    out.add_causal_attention(False)
    out.add_pooling_type(gguf.PoolingType.MEAN)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_token_type_count(c.type_vocab_size)
    out.add_tokenizer_model('bert')
    out.add_tokenizer_pre('default')
    out.add_token_list([w if w in SPECIAL else w[2:] if w.startswith('##') else '\u2581' + w for w in vocabulary])
    out.add_token_types([gguf.TokenType.CONTROL if w in SPECIAL else gguf.TokenType.NORMAL for w in vocabulary])
    out.add_pad_token_id(0)
    out.add_unk_token_id(1)
    out.add_bos_token_id(2)
    out.add_sep_token_id(3)
    out.add_mask_token_id(4)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, c.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if not key.startswith('pooler.'):
            out.add_tensor(names.get_name(key, try_suffixes=('.weight', '.bias')), tensor.numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def by_llama_cpp(path, text):
    llama_cpp.llama_log_set(families.QUIET, None)
    llama = llama_cpp.Llama(str(path), n_ctx=80, n_batch=80, n_ubatch=80, n_threads=1, embedding=True, verbose=False)
    return llama.tokenize(text.encode()), {'sentence_embedding': numpy.array(llama.embed(text, normalize=True), dtype=numpy.float32)}


def with_noise(model):
    """Weights that all matter: norms and biases are noise too."""
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn_like(p)
    return model.float().eval()


def random_encoder(config):
    torch.manual_seed(3)
    return with_noise(transformers.AutoModel.from_config(config, attn_implementation='eager'))


def save(model, folder):
    model.save_pretrained(folder)
    bert = model.config.model_type == 'bert'
    (folder / 'tokenizer.json').write_text((word_tokenizer if bert else families.byte_tokenizer)(check.VOCABULARY))
    if bert:
        (folder / 'tokenizer_config.json').write_text(json.dumps({
            'tokenizer_class': 'BertTokenizer', 'pad_token': '[PAD]', 'unk_token': '[UNK]', 'cls_token': '[CLS]',
            'sep_token': '[SEP]', 'mask_token': '[MASK]'}))
    return model


def make_encoder(config, folder):
    model = save(random_encoder(config), folder)
    (folder / '1_Pooling').mkdir()
    (folder / '1_Pooling' / 'config.json').write_text('{"pooling_mode_mean_tokens": true}')
    (folder / 'modules.json').write_text(json.dumps([
        dict(idx=i, name=str(i), path=path, type=f'sentence_transformers.models.{kind}')
        for i, (path, kind) in enumerate((('', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Normalize', 'Normalize')))]))
    return model


def make_classifier(config, folder):
    torch.manual_seed(4)
    kind = transformers.AutoModelForSequenceClassification
    return save(with_noise(kind.from_config(config, attn_implementation='eager')), folder)


def encoder_by_transformers(model, ids):
    with torch.no_grad():
        out = model(torch.tensor([ids.tolist()]), output_hidden_states=True, output_attentions=True)
    states = out.last_hidden_state[0]
    return {'hidden_states.2': out.hidden_states[2][0].numpy(), 'attentions.1': out.attentions[1][0].numpy(),
            'hidden_states.final': states.numpy(),
            'sentence_embedding': torch.nn.functional.normalize(states.mean(0, keepdim=True))[0].numpy()}


def classifier_by_transformers(model, ids):
    with torch.no_grad():
        out = model(torch.tensor([ids.tolist()]), output_hidden_states=True, output_attentions=True)
        logits = out.logits[0]
    return {'hidden_states.3': out.hidden_states[3][0].numpy(), 'attentions.1': out.attentions[1][0].numpy(),
            'logits': logits.numpy(), 'logsumexp': torch.logsumexp(logits, 0).numpy()}


def by_limbeckd(daemon, model, ids, names):
    question = {'inputs': [{'name': 'input_ids', 'datatype': 'INT32', 'shape': [1, len(ids)], 'data': ids.tolist()}],
                'outputs': [{'name': name} for name in names]}
    with urllib.request.urlopen(f'{daemon.base}/v2/models/{model}/infer', json.dumps(question).encode()) as answer:
        return {o['name']: numpy.array(o['data'], dtype=numpy.float32).reshape(o['shape'])[0] for o in json.load(answer)['outputs']}


def labels_by_limbeckd(daemon, model):
    with urllib.request.urlopen(f'{daemon.base}/v2/models/{model}') as answer:
        said = json.load(answer)['parameters']
    return {int(i): name for i, name in said['id2label'].items()}, said['num_labels'], said.get('problem_type')


def tokens_of(limbeck, folder, text):
    run = subprocess.run([limbeck, 'tokenize', folder, text, '--special'], capture_output=True, text=True, check=True)
    return [int(line.split('\t')[0]) for line in run.stdout.splitlines()]


def sentences(folder, ids):
    """What sentence-transformers makes of these ids, through its own modules."""
    model = sentence_transformers.SentenceTransformer(str(folder), device='cpu')
    with torch.no_grad():
        out = model({'input_ids': torch.tensor([ids.tolist()]), 'attention_mask': torch.ones(1, len(ids), dtype=torch.long)})
    return {'sentence_embedding': out['sentence_embedding'][0].numpy()}


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    limbeck, limbeckd = (str(pathlib.Path(sys.argv[1]).resolve() / p) for p in ('trainer/limbeck', 'server/limbeckd'))
    transformers.utils.logging.disable_progress_bar()
    ids, bad, n = families.token_ids(check.VOCABULARY), 0, 0

    def tell(what, name, good, figure):
        nonlocal bad, n
        n += 1
        bad += not good
        print(f'{"ok  " if good else "FAIL"} {what:52} {name:20} {figure}', flush=True)

    def compare(what, have, want, close=CLOSE):
        for name in have:
            apart = float(abs(have[name] - want[name]).max() / abs(want[name]).max())
            tell(what, name, apart < close, f'{apart:.1e}')

    def compare_ggufs(model, folder, models):
        """Of BERT: ours and theirs, read by either."""
        given, at = folder / 'bert.given', {kind: folder / f'bert.{kind}' for kind in ('ours', 'f16', 'theirs', 'back')}
        check.export(limbeck, given, 'gguf', at['ours'], given)
        check.export(limbeck, given, 'gguf', at['f16'], given, 'f16')
        write_gguf(model, at['theirs'])
        check.export(limbeck, at['theirs'], 'hf', at['back'], given)
        text = tokenizers.Tokenizer.from_file(str(given / 'tokenizer.json')).encode(TEXT).ids
        same = encoder_by_transformers(model, numpy.array(text))
        for kind in ('ours', 'f16', 'theirs'):
            tokens, have = by_llama_cpp(at[kind], TEXT)
            tell(f'bert: gguf {kind}, by llama.cpp', 'tokens', tokens == text, '')
            compare(f'bert: gguf {kind}, by llama.cpp', have, same, CLOSE_BY_TABLE if kind != 'f16' else 5e-3)
        again = transformers.AutoModel.from_pretrained(at['back'], attn_implementation='eager').float().eval()
        compare('bert: gguf theirs, exported back, by transformers', encoder_by_transformers(again, ids), want['bert'])
        compare('bert: gguf theirs, back, by sentence-transformers', sentences(at['back'], ids), want['bert'])
        models |= {f'bert.{kind}': at[kind] for kind in ('ours', 'theirs', 'back')}
        return models

    with tempfile.TemporaryDirectory(prefix='limbeck-interop-') as name:
        folder, want, models, configs = pathlib.Path(name), {}, {}, {}
        for family, config in ENCODERS.items():
            given, back = folder / f'{family}.given', folder / f'{family}.exported'
            model = make_encoder(config, given)
            want[family] = encoder_by_transformers(model, ids)
            check.export(limbeck, given, 'hf', back, given)
            again = transformers.AutoModel.from_pretrained(back, attn_implementation='eager').float().eval()
            compare(f'{family}: exported, by transformers', encoder_by_transformers(again, ids), want[family])
            compare(f'{family}: exported, by sentence-transformers', sentences(back, ids), want[family])
            models |= {f'{family}.given': given, f'{family}.exported': back}
            if family == 'bert':
                models = compare_ggufs(model, folder, models)
        for family, config in CLASSIFIERS.items():
            key = f'{family}-classifier'
            given, back, configs[key] = folder / f'{key}.given', folder / f'{key}.exported', config
            text = numpy.append(ids, [7, 7]) if config.pad_token_id == 7 else ids  # pads at the end are passed over
            want[key] = classifier_by_transformers(make_classifier(config, given), text)
            check.export(limbeck, given, 'hf', back, given)
            kind = transformers.AutoModelForSequenceClassification
            again = kind.from_pretrained(back, attn_implementation='eager').float().eval()
            compare(f'{key}: exported, by transformers', classifier_by_transformers(again, text), want[key])
            same = again.config.id2label == config.id2label and again.config.problem_type == config.problem_type
            tell(f'{key}: exported, by transformers', 'id2label', same, '')
            if family == 'bert':  # the only one here with a tokenizer that transformers knows by its name
                cut = transformers.AutoTokenizer.from_pretrained(back)(TEXT).input_ids
                tell(f'{key}: exported, by AutoTokenizer', 'tokens', cut == tokens_of(limbeck, back, TEXT), '')
            models |= {f'{key}.given': given, f'{key}.exported': back}
        daemon = check.Daemon(limbeckd, folder, models)
        try:
            for model in models:
                family, kind = model.rsplit('.', 1)
                config = configs.get(family)
                text = numpy.append(ids, [7, 7]) if config is not None and config.pad_token_id == 7 else ids
                compare(f'{family}: {kind}, by limbeckd', by_limbeckd(daemon, model, text, want[family]), want[family])
                if config is not None:
                    said = labels_by_limbeckd(daemon, model)
                    tell(f'{family}: {kind}, by limbeckd', 'id2label',
                         said == (config.id2label, config.num_labels, config.problem_type), '')
        finally:
            daemon.stop()
    print(f'{n - bad} of {n} comparisons are close')
    sys.exit(bad > 0)


if __name__ == '__main__':
    main()
