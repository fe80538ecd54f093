#!/usr/bin/env python3
"""Makes common/text/unicode_data.h: where Hugging Face's tokenizers has other Unicode tables than PCRE2 and utf8proc.

usage: make_unicode.py     (needs tokenizers, libpcre2-8 and libutf8proc; a few minutes)
tokenizers asks four sources of different age (Oniguruma, Rust's char, unicode_categories, unicode-normalization). Every
code point is put to each of them through tokenizers' own interface; what is written are the ranges in which they say
something else than the two libraries of Debian 12, and whole sets where the libraries have nothing alike.
"""
import base64
import ctypes
import pathlib
import struct

from tokenizers import Regex, normalizers
from tokenizers import pre_tokenizers as pre

HERE = pathlib.Path(__file__).resolve().parent
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(map(chr, POINTS))
CATEGORIES = "Cc Cf Co Ll Lm Lo Lt Lu Mc Me Mn Nd Nl No Pc Pd Pe Pf Pi Po Ps Sc Sk Sm So Zl Zp Zs".split()
SCRIPTS = ("Arabic Armenian Bengali Bopomofo Cyrillic Devanagari Ethiopic Georgian Greek Gujarati Gurmukhi Han Hangul Hebrew Hiragana "
           "Kannada Katakana Khmer Lao Latin Malayalam Mongolian Myanmar Oriya Sinhala Tamil Telugu Thai Tibetan").split()

pcre2 = ctypes.CDLL("libpcre2-8.so.0")
pcre2.pcre2_compile_8.restype = pcre2.pcre2_match_data_create_8.restype = ctypes.c_void_p
utf8proc = ctypes.CDLL("libutf8proc.so.2")
utf8proc.utf8proc_category_string.restype = ctypes.c_char_p


def oniguruma(pattern):
    """The code points that a set matches in tokenizers."""
    kept = "".join(s for s, _ in pre.Split(Regex(pattern), "removed").pre_tokenize_str(TEXT))
    return set(POINTS) - set(map(ord, kept))


def by_pcre2(pattern):
    error, offset, text = ctypes.c_int(), ctypes.c_size_t(), pattern.encode()
    utf_ucp, no_utf_check = 0x000A0000, 0x40000000
    code = pcre2.pcre2_compile_8(text, ctypes.c_size_t(len(text)), utf_ucp, ctypes.byref(error), ctypes.byref(offset), None)
    data, found = pcre2.pcre2_match_data_create_8(1, None), set()
    for c in POINTS:
        x = chr(c).encode()
        if pcre2.pcre2_match_8(ctypes.c_void_p(code), x, ctypes.c_size_t(len(x)), ctypes.c_size_t(0), no_utf_check,
                               ctypes.c_void_p(data), None) > 0:
            found.add(c)
    return found


def cut(tokenizer):
    """The code points that this pre-tokenizer cuts out of a word."""
    return {c for c in POINTS if len(tokenizer.pre_tokenize_str(f"x{chr(c)}x")) > 1}


def dropped(normalizer):
    return {c for c in POINTS if normalizer.normalize_str(f"x{chr(c)}x") == "xx"}


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] in (c - 1, 0xD7FF if c == 0xE000 else c - 1):
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def newer_than_pcre2():
    """[first, last, three older code points that PCRE2 sees as tokenizers sees these]: of their length, category, script and
    alphabetic or not; where nothing is all of that, of their length and category."""
    theirs, ours = {}, {}
    for k in CATEGORIES:
        theirs.update((c, k) for c in oniguruma(rf"\p{{{k}}}"))
        ours.update((c, k) for c in by_pcre2(rf"\p{{{k}}}"))
    script = {c: s for s in SCRIPTS for c in oniguruma(rf"\p{{{s}}}")}
    alphabetic = oniguruma(r"\p{Alphabetic}")
    kind = {c: (len(chr(c).encode()), theirs.get(c, "Cn"), script.get(c), c in alphabetic) for c in POINTS}
    newer, old = [c for c in POINTS if theirs.get(c) != ours.get(c)], {}
    for c in POINTS:
        if theirs.get(c) == ours.get(c):
            for key in (kind[c], kind[c][:3], kind[c][:2]):
                old.setdefault(key, []).append(c)
    out = []
    for c in newer:
        known = next(old[key] for key in (kind[c], kind[c][:3], kind[c][:2]) if key in old)
        stands = known[0], known[len(known) // 2], known[-1]
        if out and out[-1][1] == c - 1 and out[-1][2] == stands:
            out[-1][1] = c
        else:
            out.append([c, c, stands])
    return out


def inert():
    """What tokenizers' normal forms leave alone and utf8proc's do not."""
    forms = {normalizers.NFC(): 1 << 1 | 1 << 3, normalizers.NFD(): 1 << 1 | 1 << 4, normalizers.NFKC(): 1 << 1 | 1 << 2 | 1 << 3,
             normalizers.NFKD(): 1 << 1 | 1 << 2 | 1 << 4}
    buffer = (ctypes.c_int32 * 256)()

    def by_utf8proc(text, options):
        raw = text.encode()
        n = utf8proc.utf8proc_decompose(raw, len(raw), buffer, 256, options)
        n = utf8proc.utf8proc_normalize_utf32(buffer, n, options)
        return "".join(map(chr, buffer[:n]))

    other = set()
    for form, options in forms.items():
        for c in POINTS:
            for text in (chr(c), f"a\u0315{chr(c)}\u0334\u0301b"):
                if form.normalize_str(text) != by_utf8proc(text, options):
                    other.add(c)
    for c in list(other):  # and what a newer composition is made of
        if c > 0x10FFF and len(by_utf8proc(chr(c), 1 << 1 | 1 << 4)) == 2:
            other.update(map(ord, by_utf8proc(chr(c), 1 << 1 | 1 << 4)))
    for c in other:
        text = f"a\u0315{chr(c)}\u0334\u0301b"
        assert all(form.normalize_str(text) == text for form in forms), hex(c)
    return other


def lower():
    """(first, last, distance) of capitals newer than utf8proc's."""
    utf8proc.utf8proc_tolower.restype = ctypes.c_int32
    step, out = normalizers.Lowercase(), []
    for c in POINTS:
        to = step.normalize_str(chr(c))
        if c != 0x130 and ord(to) != utf8proc.utf8proc_tolower(c):
            if out and out[-1][1] == c - 1 and out[-1][2] == ord(to) - c:
                out[-1][1] = c
            else:
                out.append([c, c, ord(to) - c])
    return out


def extending():
    """What joins the character before it into one grapheme, in tokenizers and not in utf8proc, and the other way round."""
    # A charsmap of one rule, "a" to "b": whatever shares a grapheme with an "a" vanishes with it.
    def unit(offset, label, leaf=False):
        return offset << 10 | int(leaf) << 8 | label
    trie = [0] * 512
    trie[0] = unit(1, 0)
    trie[1 ^ ord("a")] = unit(256 ^ (1 ^ ord("a")), ord("a"), True)
    trie[256] = 1 << 31 | 0
    blob = struct.pack("<I", 4 * len(trie)) + struct.pack(f"<{len(trie)}I", *trie) + b"b\0"
    step = normalizers.Precompiled(blob)
    assert step.normalize_str("xay") == "xby"
    theirs = {c for c in POINTS if 0x80 <= c and step.normalize_str("a" + chr(c)) == "b"}
    ours = {c for c in POINTS if 0x80 <= c and not utf8proc.utf8proc_grapheme_break(ord("a"), c)}
    return theirs - ours, ours - theirs


def table(name, comment, rows):
    line, lines = "   ", []
    for row in rows:
        cells = [f"0x{x:x}" if x >= 0 else str(x) for x in row]
        cells = cells if len(cells) < 4 else [*cells[:2], "{" + ", ".join(cells[2:]) + "}"]
        cell = "{" + ", ".join(cells) + "}, "
        if len(line) + len(cell) > 109:
            lines.append(line.rstrip())
            line = "   "
        line += " " + cell if line == "   " else cell
    lines.append(line.rstrip())
    kind = {2: "lb_range", 3: "lb_shift", 5: "lb_stand_in"}[len(rows[0]) if rows else 2]
    return f"/* {comment} */\nstatic const struct {kind} {name}[] = {{\n" + "\n".join(lines) + "\n};\n"


def main():
    utf8 = {c: utf8proc.utf8proc_category_string(c).decode() for c in POINTS}
    word = set(POINTS) - {c for c in POINTS if len(pre.Whitespace().pre_tokenize_str(f"x{chr(c)}x")) > 1}
    symbols = [(0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189), (0x200C, 0x200D)]
    known = {c for c in POINTS if utf8[c] in "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl Pc".split() or any(a <= c <= b for a, b in symbols)}
    assert not known - word, [hex(c) for c in known - word]
    digits = cut(pre.Digits(True))
    known_digits = {c for c in POINTS if utf8[c][0] == "N"}
    assert not known_digits - digits
    more, less = extending()
    assert not less, [hex(c) for c in less]
    clean = normalizers.BertNormalizer(True, False, False, False)
    accents = normalizers.BertNormalizer(False, False, True, False)
    parts = [
        "/* Made by make_unicode.py; what each table is about stands in unicode.h. For unicode.c only. */\n"
        "#ifndef LB_TEXT_UNICODE_DATA_H\n#define LB_TEXT_UNICODE_DATA_H\n\n#include \"common/text/unicode.h\"\n\n#include <stdint.h>\n\n"
        "struct lb_range {\n    uint32_t first, last;\n};\n\n"
        "struct lb_shift {\n    uint32_t first, last;\n    int32_t distance;\n};\n\n"
        "struct lb_stand_in {\n    uint32_t first, last, stands[LB_STAND_INS];\n};\n\n// clang-format off\n",
        table("newer", "PCRE2 10.42 (Unicode 14) does not know these; the last three are seen by it as they should be.",
              [(a, b, *s) for a, b, s in newer_than_pcre2()]),
        table("inert", "utf8proc normalizes these, tokenizers leaves them alone.", ranges(inert())),
        table("lowered", "Capitals that utf8proc 2.8 does not know, and how far away their small letters are.", lower()),
        table("more_words", "Word characters that are newer than utf8proc's.", ranges(word - known)),
        table("more_numbers", "Numbers that are newer than utf8proc's.", ranges(digits - known_digits)),
        table("more_extending", "Extending characters that are newer than utf8proc's.", ranges(more)),
        table("punctuation", "Punctuation beyond ASCII.", ranges(c for c in cut(pre.Punctuation()) if c >= 0x80)),
        table("control", "What BERT's clean_text drops.", ranges(dropped(clean))),
        table("accents", "What BERT's strip_accents drops.", ranges(dropped(accents))),
        table("marks", "What StripAccents drops.", ranges(dropped(normalizers.StripAccents()))),
    ]
    (HERE / "unicode_data.h").write_text("\n".join(parts) + "// clang-format on\n\n#endif\n", encoding="utf-8")


if __name__ == "__main__":
    main()
