#!/usr/bin/env python3
"""Writes tests/golden/chat/cases.json: small templates and what transformers' environment (jinja2) makes of them.

usage: make_chat.py FOLDER   (needs transformers and jinja2 as tests/interop/requirements.txt has them)
A case is {"template", "data", "words", "text", "generation"} or, where Python raises, {"template", ..., "error"}.
"""
import json
import pathlib
import sys

from transformers.utils import chat_template_utils

DATA = {
    'messages': [{'role': 'system', 'content': 'Be kind.'}, {'role': 'user', 'content': ' Hi <b> '},
                 {'role': 'assistant', 'content': 'Hello\nyou'}],
    'n': [3, 1, 2], 'empty': [], 'none': None, 'yes': True, 'f': 2.5, 'i': 7,
    's': 'Grüße an alle\n  zwei\n\nEnde', 'word': 'hello world-wide (web)',
    'd': {'b': 1, 'A': 2, 'c': {'x': [1, None, 'q"\'']}, 'items': 'hidden'},
    'tools': [{'name': 'one', 'rank': 2, 'tags': ['x', 'y']}, {'name': 'Two', 'rank': 1}, {'name': 'three', 'rank': 2}],
}
DATA['deep'] = 'end'
for level in range(25):
    DATA['deep'] = {f'k{level}': DATA['deep']}
WORDS = {'bos_token': '<s>', 'eos_token': '</s>'}

TEXTS = [
    # white space
    'a\n  {% if true %}\n  b\n  {% endif %}\nc\n', 'a  {%- if true -%}  b  {%- endif +%}\n c', '{{ 1 }}\n{{ 2 }}\n\n',
    '  {%+ if true %}x{% endif %}', 'x {# c #}\ny', '  {# c #}\n  {#- d -#}  z', 'a\r\nb\rc {{- 1 -}} \n d',
    '{% raw %}{{ x }}{% endraw %}', 'a {%- raw -%} {{ x }} {%- endraw -%} b', '{% raw %}\n  {% endraw %}\nx',
    '{% if true %}\n\nx{% endif %}', '{{- "\\n" }}x', 'a\n {{ 1 }} \n {% set x = 1 %}\n b', '{{ "}}" }}{{ {"a": {"b": 1}}["a"]["b"] }}',
    '{%if yes%}1{%endif%}', 'x\n\n', '', '\n', 'a{%- set x = 1 -%}\n\n b', '\t{%- if yes %}\t{% endif -%}\n.',
    # literals
    "{{ 'a\\'b\\n\\t\\\\ \\x41 \\u00e9 \\q' }}", '{{ "a" "b" }}', '{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1.5e3 }} {{ 2e-7 }} {{ 1e16 }} {{ 0.1 }}',
    '{{ [1, "a", none, true, 1.0, {"k": (1,)}] }}', '{{ (1, 2) }} {{ () }} {{ 1, 2 }}', '{{ {"a": 1, 2: "b"} }}', '{{ True }} {{ None }} {{ false }}',
    '{{ [] }}{{ {} }}{{ "" }}', "{{ ['it\\'s', 'q\"', 'both\\'\"', '\\n\\x07é\u200b'] }}", '{{ "a" if false }}|{{ "a" if false else "b" }}',
    # operators
    '{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2 ** -1 }}',
    '{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1 / 3 }} {{ 10 / 2 }} {{ 3 * 1.5 }}', '{{ 1 ~ "a" ~ none ~ 2.0 }}', '{{ "ab" * 3 }} {{ [1] * 2 }} {{ 2 * "x" }}',
    '{{ [1] + [2] }} {{ (1,) + (2,) }} {{ "a" + "b" }}', '{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ "a" < "b" }} {{ [1, 2] < [1, 3] }}',
    '{{ 1 in [1] }} {{ 4 not in n }} {{ "b" in d }} {{ "lo" in word }} {{ 1 in missing }}', '{{ not yes }} {{ not not yes }} {{ 1 and 0 or "x" }} {{ "" or none }}',
    '{{ "%s is %d, %.2f %r %%" % ("a", 3, 1.239, "q") }}', '{{ "x%s" % 1 }}', '{{ +3 }} {{ -i }} {{ - 2.5 }}', '{{ 1 if 2 > 1 else 0 }}{{ (1 if no else 2) + 1 }}',
    '{{ [1, 2] == (1, 2) }} {{ {"a": 1} == {"a": 1.0} }} {{ none == false }} {{ missing == gone }} {{ "1" == 1 }}', '{{ yes + yes }} {{ i and f }}',
    # items, attributes, slices
    '{{ n[0] }}{{ n[-1] }}{{ n[9] }}|{{ n.0 }}|{{ d.b }}{{ d["A"] }}{{ d.c.x[2] }}{{ d.zzz }}', '{{ d["items"] }} {{ d.items() | list }}',
    '{{ n[1:] }}{{ n[:-1] }}{{ n[::-1] }}{{ n[::2] }}{{ n[5:] }}{{ n[-2:10] }}{{ n[2:0:-1] }}', '{{ s[2:5] }}|{{ s[::-1] }}|{{ s[-4:] }}|{{ s[3] }}', '{{ (1,2,3)[1:] }} {{ range(5)[1:3] | list }}',
    '{{ messages[0].role }}{{ messages[0]["content"] }}{{ messages[1:][0].content }}', '{{ none.x }}|{{ 5 .x }}|{{ "s".nothing }}', '{{ (tools | first).tags[1] }}',
    # methods
    '{{ "né ñ".upper() }}|{{ s.lower() }}|{{ word.title() }}|{{ "hELLO" .capitalize() }}', '[{{ " a ".strip() }}][{{ "xxaxx".strip("x") }}][{{ " a ".lstrip() }}][{{ "abab".rstrip("ab") }}][{{ "abcab".rstrip("b") }}]',
    '{{ s.split() }} {{ "a,b,,c".split(",") }} {{ "a,b,c".split(",", 1) }} {{ "a,b,c".rsplit(",", 1) }} {{ "".split() }} {{ "".split(",") }} {{ " a  b ".split(none, 1) }}',
    '{{ s.splitlines() }} {{ "a\\r\\nb\\n".splitlines() }} {{ "a\\nb".splitlines(true) }}', '{{ word.startswith("he") }} {{ word.endswith(("x", "web)")) }} {{ word.find("o") }} {{ word.rfind("o") }} {{ s.find("an") }} {{ word.find("zz") }}',
    '{{ "aaa".replace("a", "b", 2) }} {{ "abc".replace("", "-") }} {{ "a.b".replace(".", "") }}', '{{ ", ".join(["a", "b"]) }} {{ "a.a".count("a") }} {{ "abc".count("") }} {{ n.count(1) }} {{ n.index(2) }}',
    '{{ "12".isdigit() }} {{ "ab".isalpha() }} {{ " ".isspace() }} {{ "AB1".isupper() }} {{ "a1".islower() }} {{ "".isdigit() }}', '{{ "prefix-x".removeprefix("prefix-") }} {{ "x.py".removesuffix(".py") }}',
    '{{ d.get("b") }} {{ d.get("zz") }} {{ d.get("zz", 5) }} {{ d.keys() | list }} {{ d.values() | list }}', '{{ d.items() | length }} {% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}',
    # filters
    '[{{ s | trim }}][{{ "xax" | trim("x") }}][{{ 5 | trim }}]', '{{ word | title }} {{ word | upper }} {{ "ABC" | lower }} {{ "aBC" | capitalize }}', '{{ n | join(",") }} {{ tools | join(", ", attribute="name") }} {{ s | join("-") }}',
    '{{ n | length }} {{ s | length }} {{ d | count }} {{ missing | length }}', '{{ missing | default("x") }} {{ none | default("x") }} {{ "" | default("x", true) }} {{ 0 | d(4, boolean=true) }} {{ missing | default }}',
    '{{ n | first }} {{ n | last }} {{ empty | first }} {{ s | first }}', '{{ n | sort }} {{ n | sort(attribute="x") }} {{ n | sort(reverse=true) }} {{ ["b", "A", "a"] | sort }} {{ ["b", "A"] | sort(case_sensitive=true) }} {{ tools | sort(attribute="rank") | map(attribute="name") | list }}',
    '{{ d | dictsort | map("first") | list }} {{ {"x": 2, "y": 1} | dictsort(by="value") }} {{ {"x": 1, "y": 2} | dictsort(reverse=true) }}', '{{ [1, 2, 1, "a", "A"] | unique | list }} {{ n | reverse | list }} {{ "abc" | reverse }}',
    '{{ n | map("string") | list }} {{ tools | map(attribute="tags", default="-") | list }} {{ ["a", " b"] | map("trim") | map("upper") | join }} {{ n | map("default", 1) | list }}',
    '{{ [1, none, "a", 0] | select | list }} {{ n | select("odd") | list }} {{ n | reject("gt", 1) | list }} {{ n | select("in", [1, 2]) | list }}',
    '{{ tools | selectattr("rank", "equalto", 2) | map(attribute="name") | list }} {{ tools | selectattr("tags") | list | length }} {{ tools | rejectattr("tags", "defined") | list | length }} {{ messages | selectattr("role", "eq", "user") | list }}',
    '{{ d | items | list | length }} {{ missing | items | list }} {{ d | list }}', '{{ "5" | int }} {{ "x" | int }} {{ "x" | int(9) }} {{ 2.9 | int }} {{ "2.5" | float }} {{ 3 | float }} {{ "z" | float(1.5) }} {{ " 12 " | int }} {{ "3.7" | int }} {{ true | int }}',
    '{{ -3 | abs }} {{ -2.5 | abs }} {{ 2.5 | round }} {{ 3.5 | round }} {{ 2.345 | round(2) }} {{ 2.1 | round(0, "ceil") }} {{ 2.9 | round(method="floor") }} {{ 7 | round }}',
    '{{ n | sum }} {{ tools | sum(attribute="rank") }} {{ n | sum(start=10) }} {{ n | min }} {{ n | max }} {{ tools | max(attribute="name") }} {{ empty | min }}', '{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, "x") | list }}',
    '{{ s | indent }}|{{ s | indent(2, true) }}|{{ s | indent(2, blank=true) }}|{{ "a\\n" | indent(width=1) }}|{{ "" | indent(3, true) }}|{{ "a\\nb" | indent("> ") }}',
    '{{ "a-b-a" | replace("a", "x") }} {{ "aaa" | replace("a", "b", 1) }} {{ 11 | replace(1, 2) }}', '{{ "%s-%s" | format(1, "b") }}', '{{ "<a>&\'" | escape }} {{ "<a>" | e }} {{ "<a>" | safe }}', '{{ 5 | string + "x" }} {{ none | string }} {{ n | string }}',
    '{% set g = n | map("string") %}{{ g | join }}{{ g | join }}{% if g %}yes{% endif %}', '{% filter upper | trim %} abc {{ i }} {% endfilter %}',
    # tojson
    '{{ d | tojson }}', '{{ d | tojson(indent=2) }}', '{{ d | tojson(sort_keys=true) }}', '{{ s | tojson }} {{ "\\x01/<é🙂" | tojson }} {{ "é🙂\\x7f" | tojson(ensure_ascii=true) }}',
    '{{ [1.0, 1e20, 1e-7, 100000.0, 123456789012345680.0, true, none] | tojson }}', '{{ {"a": [], "b": {}, "c": [1]} | tojson(indent=4) }}', '{{ {1: 2, none: 3, true: 4} | tojson }} {{ [1, 2] | tojson(separators=(",", ":")) }} {{ {"a": 1} | tojson(separators=(",", ":"), indent=1) }} {{ (1, 2) | tojson }}',
    # tests
    '{{ x is defined }} {{ x is not defined }} {{ x is undefined }} {{ none is none }} {{ 1 is number }} {{ true is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ "a" is string }}',
    '{{ d is mapping }} {{ n is mapping }} {{ n is sequence }} {{ d is sequence }} {{ "a" is sequence }} {{ x is sequence }} {{ n is iterable }} {{ 5 is iterable }} {{ x is iterable }} {{ (n | map("string")) is sequence }} {{ (n | map("string")) is iterable }}',
    '{{ 3 is odd }} {{ 3 is even }} {{ 6 is divisibleby 3 }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ true is boolean }} {{ 1 is in [1] }} {{ 1 is eq 1 }} {{ 2 is gt(1) }} {{ 1 is ne 2 }} {{ 1 is le 1 }} {{ "a" is equalto "a" }}',
    '{{ "ab" is lower }} {{ "AB" is upper }} {{ range is callable }} {{ "a" is callable }} {{ 1 is number and 2 is number }} {{ 5 is not string }}', '{{ "yes" if tools is defined and tools is not none and tools | length > 0 }}', '{{ strftime_now is defined }} {{ raise_exception is defined }} {{ loop is defined }}',
    # statements
    '{% for x in n %}{{ loop.index }}/{{ loop.length }}:{{ x }}{% if loop.first %}F{% endif %}{% if loop.last %}L{% else %},{% endif %}{% endfor %}', '{% for x in empty %}a{% else %}none{% endfor %}', '{% for x in n if x > 1 %}{{ loop.index0 }}{{ x }}{{ loop.revindex }}{{ loop.revindex0 }} {% else %}e{% endfor %}',
    '{% for x in n %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{{ loop.cycle("a", "b") }};{{ loop.changed(x > 1) }} {% endfor %}', '{% for k, v in d | dictsort %}{{ k }}{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in "ab" %}{{ c }}.{% endfor %}', '{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}',
    '{% for x in n %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if loop.last %}{% break %}{% endif %}{% endfor %}', '{% for x in range(3) %}{% for y in range(x) %}{{ x }}{{ y }}{{ loop.depth }} {% endfor %}{% endfor %}', '{% for x in [1, [2, [3]]] recursive %}{% if x is number %}{{ x }}@{{ loop.depth }}{% else %}({{ loop(x) }}){% endif %}{% endfor %}',
    '{% set a = 1 %}{% for x in n %}{{ a }}{% set a = x %}{{ a }} {% endfor %}{{ a }}', '{% set ns = namespace(c=0, l=[]) %}{% for x in n %}{% set ns.c = ns.c + x %}{% set ns.l = ns.l + [x] %}{% endfor %}{{ ns.c }}{{ ns.l }}{{ ns.zz }}', '{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}',
    '{% set x %}\n a{{ i }} {% endset %}[{{ x }}]{% set y | upper | trim %} b {% endset %}[{{ y }}]', '{% if false %}a{% elif i == 7 %}b{% else %}c{% endif %}{% if no %}x{% elif no %}y{% endif %}', '{% if true %}{% set z = 5 %}{% endif %}{{ z }}', '{% with a = 1, b = i %}{{ a }}{{ b }}{% set q = 3 %}{% endwith %}{{ q }}|{{ a }}',
    '{% macro m(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c=9) }} {{ m() }}', '{% macro m(x) %} {{ x }}\n{%- endmacro %}{{ m("a") | trim ~ m("b") }}', '{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}',
    '{% macro r(x) %}{% if x is mapping %}{% for k, v in x.items() %}<{{ k ~ r(v) }}>{% endfor %}{% else %}{{ x }}{% endif %}'
    '{% endmacro %}{{ r(deep) }}{{ deep | tojson }}',
    '{% macro box(t) %}[{{ t }}:{{ caller() }}]{% endmacro %}{% call box("x") %}in{{ i }}{% endcall %}', '{% macro each(l) %}{% for x in l %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(v) each(n) %}<{{ v }}>{% endcall %}', '{% macro g() %}{{ later }}{% endmacro %}{% set later = 4 %}{{ g() }}', '{% set q = 1 %}{% macro g() %}{{ q }}{% set q = 2 %}{{ q }}{% endmacro %}{{ g() }}{{ q }}',
    '{{ range(3) | list }} {{ range(1, 7, 2) | list }} {{ range(3, 0, -1) | list }} {{ 2 in range(3) }} {{ range(3) | length }}', '{{ dict(a=1, b=2) }} {{ dict({"x": 1}, y=2) }} {{ dict([("p", 1)]) }}',
    '{% generation %}a{{ i }}{% endgeneration %}b{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}', '{% for m in messages %}{{ bos_token + m.role ~ "\\n" + m["content"] | trim + eos_token }}{% endfor %}', '{%- for m in messages -%}\n{{ m.role | upper }}: {{ m.content }}\n{% endfor -%}',
    '{{ "\u00aa\u2170\u24d0".islower() }} {{ "\u2160\u24b6".isupper() }} {{ "\u2160" is lower }} {{ "\u00aa" is upper }} {{ "a\u2160b \u00aac".title() }}',
    # refusals at rendering
    '{{ raise_exception("no " + "way") }}', '{{ missing.x }}', '{{ missing + 1 }}', '{{ 1 / 0 }}', '{{ "a" + 1 }}', '{{ n.append(1) }}', '{{ "a" < 1 }}', '{% for x in none %}{% endfor %}', '{{ none | length }}', '{% set a, b = [1, 2, 3] %}', '{{ 5[0:1]["x"] }}', '{{ n | map("string") | length }}', '{{ 1 in none }}', '{% set x.y = 1 %}', '{{ d.update({}) }}', '{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}', '{% macro m(a) %}{% endmacro %}{{ m(z=2) }}', '{{ missing | tojson }}', '{{ [1] | join(missing.x) }}', '{{ {[1]: 2} }}', '{{ "abc".split("") }}', '{{ 2.5 | round(method="up") }}', '{% set ns = namespace() %}{% set ns._x = 1 %}',
]


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    cases = []
    for template in TEXTS:
        case = {'template': template}
        try:
            chat = chat_template_utils._compile_jinja_template(template)
            if 'generation' in template:
                text, spans = chat_template_utils._render_with_assistant_indices(
                    compiled_template=chat, messages=DATA['messages'], tools=DATA['tools'], documents=None,
                    add_generation_prompt=False,
                    **{k: v for k, v in DATA.items() if k not in ('messages', 'tools')}, **WORDS)
                case |= {'text': text, 'generation': [[len(text[:s].encode()), len(text[:e].encode())] for s, e in spans]}
            else:
                case['text'] = chat.render(**DATA, **WORDS)
        except Exception as error:  # whatever it raises, the template refuses
            case['error'] = type(error).__name__
        cases.append(case)
    (folder / 'cases.json').write_text(json.dumps({'data': DATA, 'words': WORDS, 'cases': cases}, indent=0) + '\n')


if __name__ == '__main__':
    main()
