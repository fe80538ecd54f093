#!/usr/bin/env python3
"""Makes tests/golden/text/: small tokenizers of many kinds, and what Hugging Face's tokenizers does with hard texts.

usage: make_tokenizers.py     (needs tokenizers; run once, the results are committed)
Those of MORE have fewer cases. NAME.json is a tokenizer.json; NAME.cases.json a list of {text, special, ids, decoded, skipped}: the ids with or without
the post-processor's additions, and their text with and without special tokens. wordnet.cases.json is about
examples/wordnet/tokenizer.json.
"""
import json
import pathlib
import struct

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as pre

HERE = pathlib.Path(__file__).resolve().parent
WORDNET = HERE.parent.parent / "examples" / "wordnet" / "tokenizer.json"

# The splitting patterns that model families share, as their files have them.
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"]
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

TRAINING = [
    "The still was an old one of copper, and what it gave was stronger than what went in.",
    "She'll say that they've seen it; I'm sure it isn't theirs, we'd know, you're right, it's Tom's.",
    "In 1831 there were 12,345 of them, 678 in the north and 90 in the south.",
    "for (int i = 0; i < 10; i++) {\n    total += values[i];\n\tif (total > 100) { break; }\n}\n",
    "Der Kessel ist größer als die Flasche, und draußen fällt Schnee über die Straße.",
    "Où est passée l'élève ? Ça dépend de la façon dont on l'a prévenue.",
    "Быстрая лиса прыгает через ленивую собаку, а дождь всё идёт и идёт.",
    "Η θάλασσα ήταν ήρεμη και ο άνεμος φυσούσε από τα δυτικά.",
    "今日は天気がいいので、散歩に行きましょう。明日は雨かもしれません。",
    "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？",
    "오늘은 날씨가 좋아서 산책을 하기로 했습니다.",
    "हम कल सुबह बाज़ार गए और फल ख़रीदे।",
    "ذهبنا إلى السوق صباحا واشترينا الفاكهة والخبز.",
    "    four spaces, then words   and three    and four     and five\n\n\nand lines",
] * 3

HARD = [
    "",
    " ",
    "a",
    "Hello, world!",
    " leading and trailing ",
    "two  spaces   three    four\t\ttabs \t mixed",
    "line\nbreaks\r\nand\n\n\nmore \n  indented\n\tx\n",
    "\n",
    "   \n   ",
    "it's they're I'll we'd you've I'm don't 'tis rock'n'roll O'Neill's ''''s'",
    "IT'S THEY'RE I'LL 'S 'LL it’s they’re",
    "'\u017f a'\u017ft",
    "0 12 345 6789 1234567890 3.14159 1e-10 0x1F 1,000,000 ½ ² Ⅷ ٣٤٥ १२३",
    "abc123def 4you 2nd x2y",
    "snake_case camelCase HTTPServer kebab-case a.b.c C++ C# $var @name #tag 100% ^_^ ~/path",
    "https://example.org/a/b?c=d&e=f#g user@example.org",
    "!!! ??? ... --- *** === <<< >>> ((())) [[]] {{}} ;;; \"quoted\" 'single' `code`",
    "for (int i = 0; i < n; i++) { x[i] += y[i] * 2.5f; }  // comment\n",
    "\tif x:\n\t\treturn y  # why\n",
    "naïve façade Ångström coöperate Zürich São Paulo",
    "nai\u0308ve fac\u0327ade A\u030angstro\u0308m e\u0301\u0302\u0323 q\u0307\u0323",
    "ﬁne ﬂow ﬀ ① ㎏ ½ Å K ﬅ ＡＢＣ１２３ ｶﾞ …",
    "Быстрая коричневая лиса. ЁЖИК ёжик",
    "Η γρήγορη αλεπού ΣΊΣΥΦΟΣ σίσυφος",
    "ΑΣ ΟΔΟΣ İstanbul ISPARTA ısı ẞ ß Ǆ ǅ ǆ",
    "שָׁלוֹם עוֹלָם",
    "مرحبا بالعالم العَرَبِيَّة ١٢٣",
    "नमस्ते दुनिया क्षत्रिय",
    "สวัสดีชาวโลก",
    "こんにちは世界。カタカナ ひらがな 漢字ｶﾀｶﾅ",
    "你好，世界！一二三",
    "안녕하세요 세계 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "გამარჯობა მსოფლიო Ⴀ",
    "🙂 👍🏽 👨‍👩‍👧‍👦 🇫🇷🇩🇪 ❤️ ☕︎ 1️⃣",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 𐍈 𠜎𠜱",
    "a\u00a0b\u2003c\u2009d\u3000e\u200bf\u2028g\u2029h\u0085i\ufeffj",
    "a\u180eb \u180e \u1680c\u202f\u205f",
    "\u0001\u0002\u001b[0m\u007f\u0080\u009f\u00ad",
    "\ufffd \ufffe \uffff \U0010ffff \ue000 \u0378",
    "\x0b\x0c\x1c\x1d",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    " " * 100 + "x",
    "-" * 70,
    "ab" * 60,
    "x\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308",
    "Zalgo h\u0335\u0321\u0322e\u0337\u0328l\u0334\u0322l\u0336o\u0338",
    "Tom's, Tom 's, Tom' s",
    "mixedТекст文字とabc한국어12",
    "e.g. i.e. etc. a.m. U.S.A. Mr. Smith's",
    "copper still: an apparatus used for the distillation of liquids; consists of a vessel",
    "distillation, distillment: the process of purifying a liquid by boiling it and condensing its vapors",
    "(chemistry) \"alembic\"; 'limbeck'; \"a still\"",
    "eat <eos> drink<eos><eos> <eos",
    "<s>x</s> <|endoftext|> <|im_start|>user\nhi<|im_end|>",
    "<pad> [MASK]  [MASK][MASK] . a[MASK]b",
    "TOKEN token Token xtokenx token.",
    "école→ ÉCOLE→ e\u0301cole→ école",
    "<tool> <tool_call> <tool_cal",
    "  [SEP]\t\n[SEP]  x",
    "q" + "\u0300" * 40,
    "e\u0301cole→ xe\u0301cole→e\u0301cole",
    "\u0130\u0130 \u1e9e \u03a3",
    "०१२ 𝟘𝟙 ౦ ๒",
]


def bpe(size, pre_tokenizer, normalizer=None, special=(), unk=None, alphabet=True, lines=TRAINING, **options):
    tokenizer = Tokenizer(models.BPE(unk_token=unk, **options))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    letters = sorted(pre.ByteLevel.alphabet()) if alphabet else []
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), show_progress=False,
                                                             initial_alphabet=letters))
    return tokenizer


def split(pattern, behavior="isolated", invert=False):
    return pre.Split(Regex(pattern), behavior, invert)


def template(tokenizer, single, *tokens):
    return processors.TemplateProcessing(single=single, special_tokens=[(t, tokenizer.token_to_id(t)) for t in tokens])


def gpt2():
    """GPT-2: the regex within ByteLevel; one special token, at the end of the vocabulary as there."""
    t = bpe(520, pre.ByteLevel(add_prefix_space=False))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens(["<|endoftext|>"])
    return t


def llama3():
    """Llama 3: ignore_merges, bos before each text through a Sequence, many reserved tokens."""
    t = bpe(520, pre.Sequence([split(CL100K), pre.ByteLevel(add_prefix_space=False, use_regex=False)]), ignore_merges=True)
    t.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"])
    t.add_special_tokens([f"<|reserved_special_token_{i}|>" for i in range(4)])
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False), template(t, "<|begin_of_text|> $A", "<|begin_of_text|>")])
    return t


def ignore_merges():
    """A word of the vocabulary that its merges do not reach: only ignore_merges gives it."""
    t = bpe(480, pre.Sequence([split(CL100K), pre.ByteLevel(add_prefix_space=False, use_regex=False)]), ignore_merges=True)
    spec = json.loads(t.to_str())
    for word in ["distillation", "Ġworld", "ÃŁ"]:
        spec["model"]["vocab"][word] = len(spec["model"]["vocab"])
    return Tokenizer.from_str(json.dumps(spec))


def qwen():
    """Qwen: NFC, single digits, added tokens that are not special."""
    t = bpe(500, pre.Sequence([split(QWEN), pre.ByteLevel(add_prefix_space=False, use_regex=False)]), normalizers.NFC())
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<tool>", normalized=False),
                  AddedToken("e\u0301cole→", normalized=True)])
    return t


def o200k():
    """GPT-4o's pattern, with upper and lower case apart; bos and eos around."""
    t = bpe(500, pre.Sequence([split(O200K), pre.ByteLevel(add_prefix_space=False, use_regex=False)]), special=["<s>", "</s>"])
    t.post_processor = template(t, "<s> $A </s>", "<s>", "</s>")
    return t


def deepseek():
    """DeepSeek V3: three splits one behind the other."""
    return bpe(480, pre.Sequence([split(p) for p in DEEPSEEK] + [pre.ByteLevel(add_prefix_space=False, use_regex=False)]))


def starcoder():
    """StarCoder: digits one by one, then GPT-2's regex."""
    return bpe(480, pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]), special=["<|endoftext|>"])


def falcon():
    """Falcon: steps behind ByteLevel, which see letters in place of bytes."""
    return bpe(480, pre.Sequence([pre.Punctuation("contiguous"), pre.ByteLevel(add_prefix_space=False), pre.Digits(individual_digits=False),
                                  split("[0-9][0-9][0-9]")]))


def roberta():
    """RoBERTa: a space put before, cls and sep around, a mask that takes the space on its left."""
    t = bpe(480, pre.ByteLevel(add_prefix_space=True), special=["<s>", "<pad>", "</s>"])
    t.add_special_tokens([AddedToken("[MASK]", lstrip=True, normalized=False)])
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    return t


def bloom():
    """BLOOM: a set within a set, Isolated."""
    return bpe(480, pre.Sequence([split(BLOOM), pre.ByteLevel(add_prefix_space=False, use_regex=False)]))


def flags():
    """Added tokens with each flag, compatibility forms in lower case, and letters that the vocabulary lacks."""
    t = bpe(330, pre.Sequence([pre.Punctuation(), pre.ByteLevel(add_prefix_space=True)]),
            normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), special=["<unk>"], unk="<unk>", alphabet=False,
            fuse_unk=True, lines=["plain words in plain english, token and others"] * 9)
    t.add_tokens([AddedToken("token", single_word=True, normalized=False), AddedToken("École→", normalized=True),
                  AddedToken("[SEP]", lstrip=True, rstrip=True, normalized=False), AddedToken(" and", single_word=True),
                  AddedToken("..", rstrip=True)])
    t.add_special_tokens([AddedToken("[MASK]", rstrip=True, special=True)])
    return t


def merged(behavior, invert, pattern=r"[\w-]+|\d", normalizer=None):
    t = bpe(400, pre.Sequence([split(pattern, behavior, invert), pre.ByteLevel(add_prefix_space=False, use_regex=False)]), normalizer)
    return t


MAKERS = {
    "gpt2": gpt2, "llama3": llama3, "ignore_merges": ignore_merges, "qwen": qwen, "o200k": o200k, "deepseek": deepseek,
    "starcoder": starcoder, "falcon": falcon, "roberta": roberta, "bloom": bloom, "flags": flags,
    "with_previous": lambda: merged("merged_with_previous", False, r"\s|\p{P}", normalizers.NFD()),
    "with_next": lambda: merged("merged_with_next", False, r"x*|\s", normalizers.NFKD()),
    "contiguous": lambda: merged("contiguous", True),
    "removed": lambda: merged("removed", True, r"\w+|[^\w\s]+"),
}


# ---- SentencePiece's models as Hugging Face writes them, WordPiece, Unigram ----

KIMI = "|".join([
    r"[\p{Han}]+", r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re)?",
    r"\p{N}{1,3}+", r" ?[[:punct:]\p{S}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+$", r"\b\s+"])
SIGN = "▁"
BYTES = [f"<0x{b:02X}>" for b in range(256)]
LATIN = TRAINING[:7]

# Beside HARD: control characters, odd spaces, line ends, long runs, characters of new Unicode versions, marks in odd places.
TORTURE = [
    "", " ", "  a  ", "Hello, world! it's 'tis don't", "a b  c   d\te\nf\r\ng\n\nh ", "\n", "0 12 345 67890 ½ Ⅷ ٣٤٥ 1,000.5",
    "naïve façade Ångström Zürich", "nai\u0308ve fac\u0327ade A\u030angstro\u0308m e\u0301\u0302\u0323", "ﬁne ﬂow ① ㎏ ½ Å ＡＢＣ１２３ ｶﾞ … ㋿ ™",
    "Быстрая лиса. ЁЖИК й", "ΑΣ ΟΔΟΣ İstanbul ẞ ß ǅ", "שָׁלוֹם مرحبا العَرَبِيَّة", "नमस्ते क्षत्रिय สวัสดี", "こんにちは世界。漢字ｶﾀｶﾅ你好，世界！",
    "안녕하세요 \u1112\u1161\u11ab", "🙂👍🏽 👨‍👩‍👧‍👦 🇫🇷🇩🇪 ❤️ 1️⃣ \U0001fae8 \U0002ebf0", "a\u00a0b\u2003c\u3000d\u200be\u2028f\u0085g\ufeffh\u00adi\u200dj\u2060",
    "a\x00b\x01c\x1b[0m\x7f\x80\x9f", "\ufffd \uffff \U0010ffff \ue000 \u0378", "``quoted'' \"x\" a_b-c/d ^_^ $5 100% #x @y C++",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "supercalifragilisticexpialidocious", "x" + "\u0301\u0323" * 9, "-" * 40, "9" * 40,
    " " * 20 + "x" + " " * 5, "▁a▁▁b ▁ c", "<s>x</s> <unk> <pad>y [MASK] . a[MASK]b<0x41>", "[CLS] the [SEP] THE [UNK] ##ing", "the still of copper, distilled: x",
    "q\u0300\u0301 \u0301q \u0300", "\u1c89\ua7cb\U00010d50\U00016ea0", "\U00011938\U00011935\U00011930 \u09fe\u0301", "don't do not can't, I 'm he 's ?",
]


def charsmap(rules, strict=False):
    """The rules as SentencePiece compiles them: a double-array trie (darts-clone) and the texts, in that order. strict: as there,
    no two nodes share a base, so that nothing is found but the rules."""
    texts, places = bytearray(), {}
    for text in rules.values():
        if text not in places:
            places[text] = len(texts)
            texts += text.encode() + b"\0"
    tree = {}
    for key, text in rules.items():
        node = tree
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[None] = places[text]
    units, used, bases = [0] * (1 << 14), {0}, set()

    def lay(node, at):
        labels = [0 if byte is None else byte for byte in node]
        base = next(b for b in range(1, len(units)) if not used & {b ^ label for label in labels} and b ^ at < 1 << 21 and b not in bases)
        bases.update([base] * strict)
        used.update(base ^ label for label in labels)
        units[at] |= (base ^ at) << 10 | (256 if None in node else 0)
        for byte, child in node.items():
            if byte is None:
                units[base] = 1 << 31 | child
            else:
                units[base ^ byte] = byte
                lay(child, base ^ byte)

    lay(tree, 0)
    units = units[:(max(used) | 255) + 1]
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + bytes(texts)


RULES = {"\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u200b": "", "\u00ad": "", "\x7f": "", "ﬁ": "fi", "①": "1", "㎏": "kg", "½": "1⁄2",
         "™": "TM", "e\u0301": "é", "o\u0308": "ö", "Ａ": "A", "Ｂ": "B", "１": "1", "ｶ": "カ", "…": "...", "\u0378": "<?>", "q": "Q"}


def byte_bpe(size, train_pre=None, use_pre=None, normalizer=None, **options):
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True, **options))
    t.normalizer = normalizer
    if train_pre:
        t.pre_tokenizer = train_pre
    t.train_from_iterator(LATIN, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"] + BYTES))
    spec = json.loads(t.to_str())
    spec["added_tokens"] = spec["added_tokens"][:3]
    spec["pre_tokenizer"] = json.loads(use_pre.__getstate__()) if use_pre else None
    return Tokenizer.from_str(json.dumps(spec))


def spaces(*more):
    return normalizers.Sequence([*more, normalizers.Replace(" ", SIGN)])


def unspaced(*more):
    return decoders.Sequence([decoders.Replace(SIGN, " "), decoders.ByteFallback(), decoders.Fuse(), *more])


def llama2():
    """Llama 2: a space before each stretch of text, no pre-tokenizer; merges here reach over spaces."""
    t = byte_bpe(480, normalizer=spaces(normalizers.Prepend(SIGN)))
    t.decoder = unspaced(decoders.Strip(" ", 1, 0))
    t.post_processor = template(t, "<s> $A", "<s>")
    return t


def mistral():
    """Llama 2 and Mistral without "legacy": the space only at the beginning; text is one piece, merges keep to words."""
    t = byte_bpe(420, pre.Metaspace(), pre.Metaspace(prepend_scheme="first", split=False))
    t.decoder = unspaced(decoders.Strip(" ", 1, 0))
    t.post_processor = template(t, "<s> $A </s>", "<s>", "</s>")
    return t


def gemma():
    """Gemma: nothing put before, a Split that never matches behind the normalizer."""
    t = byte_bpe(420, pre.Metaspace(prepend_scheme="never"), pre.Split(" ", "merged_with_previous"), normalizers.Replace(" ", SIGN))
    t.decoder = unspaced()
    t.add_tokens(["\n\n", SIGN * 3])
    t.add_special_tokens(["<start_of_turn>"])
    return t


def clip():
    """CLIP: words end in </w>, over byte letters."""
    t = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    t.pre_tokenizer = pre.Sequence([split(r"'s|'t|'re|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", "removed", True), pre.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TRAINING[:9], trainers.BpeTrainer(vocab_size=700, show_progress=False, end_of_word_suffix="</w>",
                                                            special_tokens=["<|startoftext|>", "<|endoftext|>"],
                                                            initial_alphabet=sorted(pre.ByteLevel.alphabet())))
    t.post_processor = processors.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), False, False)
    return t


def words():
    """BPE over words with a prefix inside them, unknown characters fused, no decoder."""
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True, continuing_subword_prefix="##"))
    t.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.StripAccents(), normalizers.Nmt()])
    t.pre_tokenizer = pre.Sequence([pre.Whitespace(), pre.CharDelimiterSplit("_"), pre.Digits(False)])
    t.train_from_iterator(LATIN, trainers.BpeTrainer(vocab_size=220, show_progress=False, special_tokens=["[UNK]"], continuing_subword_prefix="##"))
    return t


def kimi():
    """Sets that meet, POSIX classes, line ends and borders of words in the pattern."""
    return bpe(480, pre.Sequence([split(KIMI), pre.ByteLevel(add_prefix_space=False, use_regex=False)]))


def word_piece(normalizer, prefix="##", chars=100):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=chars))
    t.normalizer = normalizer
    t.pre_tokenizer = pre.BertPreTokenizer()
    t.decoder = decoders.WordPiece(prefix, True)
    t.train_from_iterator(TRAINING[:11], trainers.WordPieceTrainer(vocab_size=420, show_progress=False, continuing_subword_prefix=prefix,
                                                                   special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    spec = json.loads(t.to_str())
    spec["model"]["continuing_subword_prefix"] = prefix
    return Tokenizer.from_str(json.dumps(spec))


def bert():
    t = word_piece(normalizers.BertNormalizer())
    t.post_processor = template(t, "[CLS] $A [SEP]", "[CLS]", "[SEP]")
    t.enable_truncation(8)
    t.enable_padding(length=8)
    return t


def bert_cased():
    """Accents and capitals stay; short words only, another prefix."""
    t = word_piece(normalizers.BertNormalizer(True, True, False, False), "~", 12)
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return t


def unigram(size, normalizer, pre_tokenizer, byte_fallback=False, special=("<pad>", "</s>", "<unk>")):
    t = Tokenizer(models.Unigram())
    t.normalizer, t.pre_tokenizer = normalizer, pre_tokenizer
    t.train_from_iterator(TRAINING[:13], trainers.UnigramTrainer(vocab_size=size, show_progress=False, special_tokens=list(special), unk_token="<unk>",
                                                                 max_piece_length=8))
    spec = json.loads(t.to_str())
    spec["model"]["vocab"] = [[text, round(score, 4)] for text, score in spec["model"]["vocab"]]
    if byte_fallback:
        spec["model"]["vocab"] += [[text, -9.0] for text in BYTES]
        spec["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(spec))


def t5():
    """T5: a charsmap, a sign before each stretch of text."""
    t = unigram(420, normalizers.Precompiled(charsmap(RULES)), pre.Metaspace())
    t.decoder = decoders.Metaspace()
    t.post_processor = template(t, "$A </s>", "</s>")
    return t


def xlmr():
    """A Unigram that falls back to bytes, behind many steps."""
    t = unigram(330, normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Strip(True, False), normalizers.Replace(Regex(" {2,}"), " ")]),
                pre.Sequence([pre.WhitespaceSplit(), pre.Metaspace(prepend_scheme="first")]), True, ("<s>", "<pad>", "</s>", "<unk>"))
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    t.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    return t


def albert():
    """ALBERT: quotes, accents and capitals go."""
    t = unigram(330, normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
                                           normalizers.Lowercase(), normalizers.Precompiled(charsmap(RULES))]), pre.Metaspace(), special=("<unk>", "[CLS]", "[SEP]"))
    t.decoder = decoders.Metaspace(prepend_scheme="never")
    return t


MORE = {"llama2": llama2, "mistral": mistral, "gemma": gemma, "clip": clip, "words": words, "kimi": kimi, "bert": bert, "bert_cased": bert_cased,
        "t5": t5, "xlmr": xlmr, "albert": albert}


def old_form(text):
    """The same file as older versions wrote it: merges as "a b"."""
    spec = json.loads(text)
    spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    return json.dumps(spec, ensure_ascii=False)


def case(tokenizer, text, special):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = tokenizer.encode(text, add_special_tokens=special).ids
    return {"text": text, "special": special, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "skipped": tokenizer.decode(ids, skip_special_tokens=True)}


def write_cases(name, tokenizer, texts=HARD):
    cases = [case(tokenizer, text, i % 2 == 0) for i, text in enumerate(texts)]
    lines = ",\n".join(json.dumps(c, ensure_ascii=True, separators=(",", ":")) for c in cases)
    (HERE / "text" / f"{name}.cases.json").write_text("[\n" + lines + "\n]\n", encoding="utf-8")


def main():
    (HERE / "text").mkdir(exist_ok=True)
    for name, make in MAKERS.items():
        tokenizer = make()
        text = tokenizer.to_str()
        text = old_form(text) if name in ("gpt2", "roberta") else text
        (HERE / "text" / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        write_cases(name, Tokenizer.from_str(text))
    for name, make in MORE.items():
        text = make().to_str()
        (HERE / "text" / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        write_cases(name, Tokenizer.from_str(text), TORTURE)
    write_cases("wordnet", Tokenizer.from_file(str(WORDNET)))


if __name__ == "__main__":
    main()
