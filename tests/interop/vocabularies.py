#!/usr/bin/env python3
"""Do vocabularies survive GGUF files? Limbeck against llama.cpp and tokenizers.

usage: vocabularies.py BUILD [PATH...]     (BUILD: the build folder with limbeck; needs requirements.txt beside this file)
PATH: more tokenizers beside those of this tree: tokenizer.json files, and .gguf files with a vocabulary.
  written   a GGUF that `limbeck export` wrote with the tokenizer: llama.cpp's ids of hard texts are those of tokenizers
  read      `limbeck tokenize` of a .gguf file: its ids are llama.cpp's
llama.cpp does no Unicode normalization and takes "</s>" for special wherever a vocabulary has it: texts that are not
normalized are passed over where the tokenizer normalizes, and those with "</s>" where that is no added token.
One line a comparison; exit status 0 only when all agree.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unicodedata

import llama_cpp
import tokenizers
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'golden'))
from make_tokenizers import HARD  # noqa: E402

OURS = [ROOT.parent / 'examples/wordnet/tokenizer.json'] + [
    ROOT / f'golden/text/{name}.json' for name in ('gpt2', 'llama3', 'starcoder', 'deepseek', 'bloom')] + [
    ROOT / f'golden/gguf_vocab/{name}.json' for name in ('llama', 'mapped')]


def run(*command, text=None):
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command[:3])}: {done.stderr.strip()}')
    return done.stdout


def by_llama_cpp(path):
    reader = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return lambda text, special: reader.tokenize(text.encode(), add_bos=special, special=True)


def texts_of(tokenizer):
    """The hard texts, and every added token between words and alone."""
    added = [t.content for t in tokenizer.get_added_tokens_decoder().values()][:40]
    texts = [t for t in HARD if '</s>' not in t or '</s>' in added] + [f'a{t}b {t} c{t}{t}' for t in added]
    normalizer = tokenizer.normalizer
    return [t for t in texts if normalizer is None or normalizer.normalize_str(t) == t or unicodedata.is_normalized('NFC', t)]


def write_model(folder, tokenizer, path):
    """A small random model of the tokenizer's size, and a few rows more."""
    config = transformers.LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
                                      num_key_value_heads=1, vocab_size=tokenizer.get_vocab_size() + 5, bos_token_id=None,
                                      eos_token_id=None, pad_token_id=None)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / 'tokenizer.json').write_bytes(path.read_bytes())


def different(texts, left, right, sides=(False, True)):
    for text in texts:
        for special in sides:
            a, b = left(text, special), right(text, special)
            if a != b:
                return f'{text[:50]!r}{" with what is put around" if special else ""}: {a[:12]} and {b[:12]}'
    return None


def written(limbeck, path, folder):
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model, out = folder / 'model', folder / 'model.gguf'
    write_model(model, tokenizer, path)
    run(limbeck, 'export', str(model), '--format=gguf', f'--out={out}')
    return different(texts_of(tokenizer), by_llama_cpp(out),
                     lambda text, special: tokenizer.encode(text, add_special_tokens=special).ids)


def read(limbeck, path):
    lines = [t for t in HARD if t and not set(t) & set('\n\r')]
    ids = {special: dict(zip(lines, (json.loads(answer)['ids'] for answer in run(
        limbeck, 'tokenize', '--json', *['--special'] * special, str(path), text='\n'.join(lines) + '\n').splitlines())))
        for special in (False, True)}
    for text in set(HARD) - set(lines) - {''}:
        ids[False][text] = json.loads(run(limbeck, 'tokenize', '--json', str(path), '--', text))['ids']
    return different(lines, by_llama_cpp(path), lambda text, special: ids[special][text]) or different(
        list(ids[False]), by_llama_cpp(path), lambda text, _: ids[False][text], (False,))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    limbeck, bad = str(pathlib.Path(sys.argv[1]).resolve() / 'trainer/limbeck'), 0
    transformers.utils.logging.disable_progress_bar()
    for path in OURS + [pathlib.Path(p) for p in sys.argv[2:]]:
        with tempfile.TemporaryDirectory(prefix='limbeck-interop-') as name:
            what = 'read' if path.suffix == '.gguf' else 'written'
            try:
                apart = read(limbeck, path) if what == 'read' else written(limbeck, path, pathlib.Path(name))
            except RuntimeError as error:
                apart = str(error)
            bad += apart is not None
            print(f'{"FAIL" if apart else "ok  "} {what:8} {path.parent.name}/{path.name} {apart or ""}', flush=True)
    sys.exit(bad > 0)


if __name__ == '__main__':
    main()
