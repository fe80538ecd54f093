#!/usr/bin/env python3
"""Limbeck and transformers on the same encoders: do they give the same states, attention and sentences?

usage: encoders.py BUILD     (BUILD: the build folder with limbeckd and limbeck; needs requirements.txt beside this file)
For each family a small random encoder is made by transformers, with a modules.json; then
  hosted        the folder, by limbeckd: states, attention, sentence_embedding
  exported      `limbeck export --format hf`, by transformers, and by limbeckd
are held against transformers' model. One line a comparison; exit status 0 only when all are close.
"""
import json
import pathlib
import sys
import tempfile
import urllib.request

import numpy
import torch
import transformers

import check
import families

SIZES = dict(vocab_size=check.VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3,
             max_position_embeddings=80)
ENCODERS = {
    'bert': transformers.BertConfig(**SIZES),
    'roberta': transformers.RobertaConfig(**SIZES),
    'distilbert': transformers.DistilBertConfig(vocab_size=check.VOCABULARY, dim=24, hidden_dim=40, n_layers=3, n_heads=3,
                                                max_position_embeddings=80),
}
CLOSE = 1e-5  # of the largest number


def make(config, folder):
    torch.manual_seed(3)
    model = transformers.AutoModel.from_config(config, attn_implementation='eager').float().eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn_like(p)
    model.save_pretrained(folder)
    (folder / 'tokenizer.json').write_text(families.byte_tokenizer(check.VOCABULARY))
    (folder / '1_Pooling').mkdir()
    (folder / '1_Pooling' / 'config.json').write_text('{"pooling_mode_mean_tokens": true}')
    (folder / 'modules.json').write_text(json.dumps([
        dict(idx=i, name=str(i), path=path, type=f'sentence_transformers.models.{kind}')
        for i, (path, kind) in enumerate((('', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Normalize', 'Normalize')))]))
    return model


def by_transformers(model, ids):
    with torch.no_grad():
        out = model(torch.tensor([ids.tolist()]), output_hidden_states=True, output_attentions=True)
    states = out.last_hidden_state[0]
    return {'hidden_states.2': out.hidden_states[2][0].numpy(), 'attentions.1': out.attentions[1][0].numpy(),
            'hidden_states.final': states.numpy(),
            'sentence_embedding': torch.nn.functional.normalize(states.mean(0, keepdim=True))[0].numpy()}


def by_limbeckd(daemon, model, ids, names):
    question = {'inputs': [{'name': 'input_ids', 'datatype': 'INT32', 'shape': [1, len(ids)], 'data': ids.tolist()}],
                'outputs': [{'name': name} for name in names]}
    with urllib.request.urlopen(f'{daemon.base}/v2/models/{model}/infer', json.dumps(question).encode()) as answer:
        return {o['name']: numpy.array(o['data'], dtype=numpy.float32).reshape(o['shape'])[0] for o in json.load(answer)['outputs']}


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    limbeck, limbeckd = (str(pathlib.Path(sys.argv[1]).resolve() / p) for p in ('trainer/limbeck', 'server/limbeckd'))
    transformers.utils.logging.disable_progress_bar()
    ids, bad, n = families.token_ids(check.VOCABULARY), 0, 0

    def compare(family, what, have, want):
        nonlocal bad, n
        for name in want:
            apart = float(abs(have[name] - want[name]).max() / abs(want[name]).max())
            n += 1
            bad += not apart < CLOSE
            print(f'{"ok  " if apart < CLOSE else "FAIL"} {family:12} {what:28} {name:20} {apart:.1e}', flush=True)

    with tempfile.TemporaryDirectory(prefix='limbeck-interop-') as name:
        folder, want, models = pathlib.Path(name), {}, {}
        for family, config in ENCODERS.items():
            given, back = folder / f'{family}.given', folder / f'{family}.exported'
            want[family] = by_transformers(make(config, given), ids)
            check.export(limbeck, given, 'hf', back, given)
            again = transformers.AutoModel.from_pretrained(back, attn_implementation='eager').float().eval()
            compare(family, 'exported, by transformers', by_transformers(again, ids), want[family])
            models |= {f'{family}.given': given, f'{family}.exported': back}
        daemon = check.Daemon(limbeckd, folder, models)
        try:
            for model in models:
                family, kind = model.rsplit('.', 1)
                compare(family, f'{kind}, by limbeckd', by_limbeckd(daemon, model, ids, want[family]), want[family])
        finally:
            daemon.stop()
    print(f'{n - bad} of {n} comparisons are close')
    sys.exit(bad > 0)


if __name__ == '__main__':
    main()
