#!/usr/bin/env python3
"""Limbeck, transformers and sentence-transformers on the same encoders and classifiers of texts: do they give the same numbers?

usage: encoders.py BUILD     (BUILD: the build folder with limbeckd and limbeck; needs requirements.txt beside this file)
For each encoder a small random one is made by transformers, with a modules.json; for each classifier one with names of classes.
Then
  hosted        the folder, by limbeckd: states, attention, sentence_embedding, class logits
  exported      `limbeck export --format hf`, by transformers, by sentence-transformers, and by limbeckd
are held against transformers' model. One line a comparison; exit status 0 only when all are close.
"""
import json
import pathlib
import sys
import tempfile
import urllib.request

import numpy
import sentence_transformers
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
TEXTS = ['one', 'Two three', 'a longer text, of more than one word', '!']


def fill(model, folder):
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn_like(p)
    model.save_pretrained(folder)
    (folder / 'tokenizer.json').write_text(families.byte_tokenizer(check.VOCABULARY))
    return model


def make_encoder(config, folder):
    torch.manual_seed(3)
    model = fill(transformers.AutoModel.from_config(config, attn_implementation='eager').float().eval(), folder)
    (folder / '1_Pooling').mkdir()
    (folder / '1_Pooling' / 'config.json').write_text('{"pooling_mode_mean_tokens": true}')
    (folder / 'modules.json').write_text(json.dumps([
        dict(idx=i, name=str(i), path=path, type=f'sentence_transformers.models.{kind}')
        for i, (path, kind) in enumerate((('', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Normalize', 'Normalize')))]))
    return model


def make_classifier(config, folder):
    torch.manual_seed(4)
    kind = transformers.AutoModelForSequenceClassification
    return fill(kind.from_config(config, attn_implementation='eager').float().eval(), folder)


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

    def compare(what, have, want):
        for name in have:
            apart = float(abs(have[name] - want[name]).max() / abs(want[name]).max())
            tell(what, name, apart < CLOSE, f'{apart:.1e}')

    with tempfile.TemporaryDirectory(prefix='limbeck-interop-') as name:
        folder, want, models, configs = pathlib.Path(name), {}, {}, {}
        for family, config in ENCODERS.items():
            given, back = folder / f'{family}.given', folder / f'{family}.exported'
            want[family] = encoder_by_transformers(make_encoder(config, given), ids)
            check.export(limbeck, given, 'hf', back, given)
            again = transformers.AutoModel.from_pretrained(back, attn_implementation='eager').float().eval()
            compare(f'{family}: exported, by transformers', encoder_by_transformers(again, ids), want[family])
            compare(f'{family}: exported, by sentence-transformers', sentences(back, ids), want[family])
            models |= {f'{family}.given': given, f'{family}.exported': back}
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
