#!/usr/bin/env python3
"""Makes tests/golden/gguf_vocab/: small vocabularies of each kind that GGUF files have, and what others read in them.

usage: make_gguf_vocab.py     (needs what tests/interop/requirements.txt lists; run once, the results are committed)
NAME.gguf holds a vocabulary and no tensors, written by the gguf package. NAME.json is the tokenizer.json that says the same,
made here from the same parts by tokenizers. NAME.cases.json is a list of {text, ids, llama_cpp}: ids without what is put
around a text, as tokenizers has them; llama_cpp is false where llama.cpp, asked about NAME.gguf, has others (the script
prints these).
"""
import json
import pathlib
import sys

import gguf
import llama_cpp
import numpy
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as pre

import make_tokenizers

OUT = pathlib.Path(__file__).resolve().parent / "gguf_vocab"
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
SPACE = "\u2581"
LINES = [line.replace("\n", " ") for line in make_tokenizers.TRAINING]


def write(name, model, tokens, types, tokenizer, **keys):
    """keys: of tokenizer.ggml. scores and merges are lists."""
    w = gguf.GGUFWriter(OUT / f"{name}.gguf", keys.pop("family", "llama"))
    for key, value in {"context_length": 64, "embedding_length": 8, "block_count": 1, "feed_forward_length": 8,
                       "attention.head_count": 1}.items():
        w.add_uint32(f"{w.arch}.{key}", value)
    w.add_float32(f"{w.arch}.attention.layer_norm_rms_epsilon", 1e-6)
    w.add_tokenizer_model(model)
    w.add_token_list(tokens)
    w.add_token_types(types)
    for key, value in keys.items():
        if key == "scores":
            w.add_token_scores(value)
        elif key == "merges":
            w.add_token_merges(value)
        elif key == "precompiled_charsmap":
            w.add_precompiled_charsmap(value)
        elif isinstance(value, bool):
            w.add_bool(f"tokenizer.ggml.{key}", value)
        elif isinstance(value, str):
            w.add_string(f"tokenizer.ggml.{key}", value)
        else:
            w.add_uint32(f"tokenizer.ggml.{key}", value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()
    (OUT / f"{name}.json").write_text(tokenizer.to_str() + "\n")
    reader, cases = llama_cpp.Llama(str(OUT / f"{name}.gguf"), vocab_only=True, verbose=False), []
    for text in make_tokenizers.HARD[::2 if name in ("scores", "t5", "mapped") else 1]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        same = reader.tokenize(text.encode(), add_bos=False, special=True) == ids
        cases.append({"text": text, "ids": ids, "llama_cpp": same})
        if not same:
            print(f"{name}: llama.cpp has other ids for {text[:60]!r}")
    (OUT / f"{name}.cases.json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")) + "\n")


def put_around(tokenizer, before, after=None):
    names = [n for n in (before, after) if n]
    around = [before] * bool(before), [after] * bool(after)
    second = [] if after == "[SEP]" else around[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=around[0] + ["$A"] + around[1],
        pair=around[0] + ["$A"] + around[1] + [f"{t}:1" for t in second] + ["$B:1"] + [f"{t}:1" for t in around[1]],
        special_tokens=[(n, tokenizer.token_to_id(n)) for n in names])


def trained_pieces(prefix, size):
    """The pieces of a BPE of characters, in the order in which they were merged, then its characters."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Replace(" ", SPACE)
    t.pre_tokenizer = pre.Split(Regex(SPACE), "merged_with_next")
    t.train_from_iterator([prefix + line for line in LINES], trainers.BpeTrainer(vocab_size=size, show_progress=False))
    vocab = sorted(t.get_vocab(), key=t.token_to_id)
    return [p for p in vocab if len(p) > 1], [p for p in vocab if len(p) == 1]


def all_merges(tokens, types, best):
    """Each pair of normal or user's tokens that makes one, the best first."""
    known = {t: i for i, t in enumerate(tokens) if types[i] in (NORMAL, USER) and " " not in t}
    found = [(best(known[t]), -cut, -(len(t) - cut), known[t], t[:cut], t[cut:]) for t in known for cut in range(1, len(t))
             if t[:cut] in known and t[cut:] in known]
    return [(m[4], m[5]) for m in sorted(found)]


def sentencepiece(name, prefix, by_place):
    """Llama's kind (a space before each text), and Gemma's (none; runs of spaces and lines are users' own)."""
    merged, letters = trained_pieces(" " if prefix else "", 420)
    first = ["<unk>", "<s>", "</s>"] if prefix else ["<pad>", "</s>", "<s>", "<unk>"]
    runs = [] if prefix else ["\n\n", SPACE * 2, SPACE * 3, "\t\t", "<tool>"]
    data = [f"<0x{b:02X}>" for b in range(256)]
    if not by_place:
        merged = merged[::-1]  # their scores say what comes first, not their places
    tokens = first + data + runs + merged + letters
    types = [CONTROL] * len(first) + [BYTE] * 256 + [USER] * len(runs) + [NORMAL] * (len(merged) + len(letters))
    types[first.index("<unk>")] = UNKNOWN
    order = merged if by_place else merged[::-1]
    place = {p: i for i, p in enumerate(order + letters)}
    scores = [-float(place[t]) if types[i] == NORMAL else -1000.0 if types[i] == USER else 0.0 for i, t in enumerate(tokens)]
    merges = all_merges(tokens, types, (lambda i: i) if by_place else (lambda i: -scores[i]))
    t = Tokenizer(models.BPE({p: i for i, p in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", SPACE)
    t.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace]) if prefix else replace
    if not prefix:
        t.pre_tokenizer = pre.Split(" ", "merged_with_previous")
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    t.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * prefix)
    t.add_special_tokens([AddedToken(x, normalized=False) for x in first])
    t.add_tokens([AddedToken(x, normalized=False) for x in runs if SPACE not in x])
    put_around(t, "<s>")
    spelled = [x.replace(SPACE, " ") if types[i] == USER else x for i, x in enumerate(tokens)]
    if not prefix:  # rows that fill the matrix up
        spelled, types, scores = spelled + [f"[PAD{len(tokens)}]", ""], types + [UNUSED] * 2, scores + [-1000.0] * 2
        t_bos, t_eos, t_unk = 2, 1, 3
    else:
        t_bos, t_eos, t_unk = 1, 2, 0
    write(name, "llama", spelled, types, t, family="gemma" if not prefix else "llama", scores=scores, pre="default",
          add_space_prefix=prefix, add_bos_token=True, bos_token_id=t_bos, eos_token_id=t_eos, unknown_token_id=t_unk)


def byte_level():
    """A file that names no pre-tokenizer: what llama.cpp takes then. Added tokens stand behind the vocabulary."""
    patterns = [r"[\p{P}\$\+<=>\^~\|]+",
                r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", r"\p{N}+", "[0-9][0-9][0-9]"]
    cut = [make_tokenizers.split(p) for p in patterns] + [pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    t = make_tokenizers.bpe(420, pre.Sequence(cut), lines=LINES)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(["<|endoftext|>"])
    t.add_tokens([AddedToken("<tool>", normalized=False)])
    put_around(t, None, "<|endoftext|>")
    tokens = sorted(t.get_vocab(), key=t.token_to_id)
    model = json.loads(t.to_str())["model"]
    types = [CONTROL if x == "<|endoftext|>" else USER if x == "<tool>" else NORMAL for x in tokens]
    write("default", "gpt2", tokens, types, t, merges=[" ".join(m) for m in model["merges"]], bos_token_id=len(tokens) - 2,
          eos_token_id=len(tokens) - 2, add_bos_token=False, add_eos_token=True)


def wordpiece():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False))
    put_around(t, "[CLS]", "[SEP]")
    tokens = sorted(t.get_vocab(), key=t.token_to_id)
    spelled = [x if x in special else x[2:] if x.startswith("##") else SPACE + x for x in tokens]
    write("bert", "bert", spelled, [CONTROL if x in special else NORMAL for x in tokens], t, family="bert", pre="default",
          cls_token_id=2, bos_token_id=2, seperator_token_id=3, unknown_token_id=1, padding_token_id=0, mask_token_id=4)


# What Unicode calls a space, as SentencePiece's own rules have it.
SPACES = {c: " " for c in map(chr, range(0x3001)) if c.isspace() and c not in " \x1c\x1d\x1e\x1f"}


def unigram(name, rules=None):
    t, given = Tokenizer(models.Unigram()), {}
    if rules:
        given = dict(precompiled_charsmap=make_tokenizers.charsmap(rules, True))
        t.normalizer = normalizers.Precompiled(given["precompiled_charsmap"])
    t.pre_tokenizer = pre.Sequence([pre.WhitespaceSplit(), pre.Metaspace()])
    special = ["<pad>", "</s>", "<unk>"]
    t.train_from_iterator(LINES, trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>",
                                                         show_progress=False))
    model = json.loads(t.to_str())["model"]
    scores = [float(numpy.float32(s)) for _, s in model["vocab"]]
    t.model = models.Unigram([(p, s) for (p, _), s in zip(model["vocab"], scores)], 2, False)
    t.decoder = decoders.Metaspace()
    put_around(t, None, "</s>")
    tokens = [p for p, _ in model["vocab"]]
    types = [UNKNOWN if x == "<unk>" else CONTROL if x in special else NORMAL for x in tokens]
    write(name, "t5", tokens, types, t, family="t5", **given, pre="default", scores=scores, add_space_prefix=True,
          remove_extra_whitespaces=True, add_eos_token=True, eos_token_id=1, unknown_token_id=2, padding_token_id=0)


if __name__ == "__main__":
    if len(sys.argv) != 1:
        sys.exit(__doc__)
    OUT.mkdir(exist_ok=True)
    sentencepiece("llama", True, True)
    sentencepiece("scores", True, False)
    sentencepiece("gemma", False, True)
    byte_level()
    wordpiece()
    unigram("t5")
    unigram("mapped", {**make_tokenizers.RULES, **SPACES})
