#!/usr/bin/env python3
"""Trains the tokenizer of the WordNet examples: byte-level BPE, 2,048 entries, <eos> = 0, no prefix space.

    make_tokenizer.py FOLDER [OUT]      FOLDER: what make_text wrote; OUT: default tokenizer.json beside this script

Needs the Python package "tokenizers". The result is committed, so that only who wants another vocabulary runs this.
Only the train lines are read. The same text gives the same file.
"""
import os
import sys

ENTRIES = 2048
PARTS = ["train.noun.txt", "train.other.txt"]


def lines(folder):
    for part in PARTS:
        with open(os.path.join(folder, part), encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\n")


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = sys.argv[1]
    out = sys.argv[2] if len(sys.argv) == 3 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer.json")
    for part in PARTS:
        if not os.path.exists(os.path.join(folder, part)):
            sys.exit(f"make_tokenizer.py: {os.path.join(folder, part)} is missing; run make_text {folder} first")
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        sys.exit("make_tokenizer.py: the Python package tokenizers is missing (pip install tokenizers)")

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES,
        special_tokens=["<eos>"],  # the first special token is entry 0
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # all 256 bytes, seen or not
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines(folder), trainer)
    if tokenizer.get_vocab_size() != ENTRIES or tokenizer.token_to_id("<eos>") != 0:
        sys.exit("make_tokenizer.py: the text is too small for a vocabulary of %d entries" % ENTRIES)
    part = out + ".part"
    tokenizer.save(part, pretty=True)
    os.replace(part, out)

    n_bytes = n_tokens = 0
    for line in lines(folder):
        n_bytes += len(line.encode()) + 1
        n_tokens += len(tokenizer.encode(line).ids) + 1
    print(f"{out}: {ENTRIES} entries; train text {n_tokens} tokens with <eos>, {n_bytes / n_tokens:.2f} bytes a token")


if __name__ == "__main__":
    main()
