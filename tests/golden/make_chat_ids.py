#!/usr/bin/env python3
"""Writes tests/golden/chat/ids.json: conversations as ids, and which of them are the assistant's, by transformers.

usage: make_chat_ids.py TOKENIZER_JSON FOLDER   (examples/wordnet/tokenizer.json; needs transformers)
"""
import json
import pathlib
import sys

from transformers import PreTrainedTokenizerFast

TURNS = [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': ' a small bird\n'},
         {'role': 'assistant', 'content': 'that can sing  well'}, {'role': 'user', 'content': 'Grüße 你好'},
         {'role': 'assistant', 'content': '\n\na tree'}]
CONVERSATIONS = [TURNS, TURNS[1:3], [dict(TURNS[1]), dict(TURNS[2], content='')], TURNS[:2]]
TEMPLATES = [
    # the whole turn is the assistant's, with its end
    "{% for m in messages %}{{ '[' + m.role + ']' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content + eos_token }}{% endif %}{{ '\\n' }}{% endfor %}",
    # it begins and ends within what the tokenizer may join
    "{% for m in messages %}{% if m.role == 'assistant' %}so {% generation %}{{ m.content }}{% endgeneration %}s.{% else %}"
    "{{ m.content | trim }} {% endif %}{% endfor %}{{ eos_token }}",
    # only parts of a turn
    "{% for m in messages %}{{ m.role[0] }}{% generation %}{{ m.content[:3] }}{% endgeneration %}{{ m.content[3:] }}"
    "{{ eos_token }}{% endfor %}",
]


def main():
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1], eos_token='<eos>')
    cases = []
    for template in TEMPLATES:
        for messages in CONVERSATIONS:
            if any(not m['content'] for m in messages) and template == TEMPLATES[1]:
                continue  # char_to_token of an empty span within a token is that token
            got = tokenizer.apply_chat_template(messages, chat_template=template, return_assistant_tokens_mask=True,
                                                return_dict=True)
            cases.append({'template': template, 'messages': messages, 'ids': got['input_ids'],
                          'assistant': got['assistant_masks']})
    (pathlib.Path(sys.argv[2]) / 'ids.json').write_text(json.dumps(cases, ensure_ascii=False, separators=(',', ':')) + '\n')


if __name__ == '__main__':
    main()
