"""What examples/minilm/run does with texts and vectors. Python's own library is all that it needs.

glosses.py split WORDNET OUT     train.txt and held.txt: the glosses of WordNet's data files, each once, in an order of its own
glosses.py table OUT NAME...     for each name OUT/NAME.vectors (the first one's are the teacher's) and OUT/NAME.time
"""
import glob
import json
import operator
import random
import sys

HELD = 6000    # glosses that nobody trains on
ANCHORS = 5000  # each has a pair with its nearest among NEAR others, and one with anybody
NEAR = 100


def split(wordnet, out):
    found = set()
    for path in sorted(glob.glob(f'{wordnet}/data.*')):
        with open(path, encoding='utf-8', errors='replace') as lines:
            found.update(line.split('| ', 1)[1].strip() for line in lines if not line.startswith('  ') and '| ' in line)
    glosses = sorted(found)
    random.Random(7).shuffle(glosses)
    for name, part in (('held', glosses[:HELD]), ('train', glosses[HELD:])):
        with open(f'{out}/{name}.txt', 'w', encoding='utf-8') as to:
            to.write('\n'.join(part) + '\n')
    print(f'{len(glosses) - HELD} glosses to train on, {HELD} held out')


def vectors(path):
    rows = []
    with open(path, encoding='ascii') as lines:
        for line in lines:
            row = json.loads(line)
            length = sum(map(operator.mul, row, row)) ** 0.5
            rows.append([x / length for x in row])
    return rows


def cosine(rows, i, j):
    return sum(map(operator.mul, rows[i], rows[j]))


def choose(rows):
    """The pairs, by the teacher's vectors: half neighbours, half at random."""
    draw, n, pairs = random.Random(11), len(rows), []
    for i in range(ANCHORS):
        others = draw.sample(range(n), NEAR)
        pairs.append((i, max((j for j in others if j != i), key=lambda j: cosine(rows, i, j))))
        pairs.append((i, draw.choice([j for j in others if j != i])))
    return pairs


def ranks(values):
    """Of equal values the mean."""
    order, out, at = sorted(range(len(values)), key=values.__getitem__), [0.0] * len(values), 0
    while at < len(order):
        end = at
        while end < len(order) and values[order[end]] == values[order[at]]:
            end += 1
        for k in order[at:end]:
            out[k] = (at + end - 1) / 2
        at = end
    return out


def spearman(a, b):
    a, b = ranks(a), ranks(b)
    mean = (len(a) - 1) / 2
    a, b = [x - mean for x in a], [x - mean for x in b]
    return sum(map(operator.mul, a, b)) / (sum(map(operator.mul, a, a)) * sum(map(operator.mul, b, b))) ** 0.5


def table(out, names):
    teacher = vectors(f'{out}/{names[0]}.vectors')
    pairs = choose(teacher)
    expected = [cosine(teacher, i, j) for i, j in pairs]
    rows = []
    for name in names:
        own = teacher if name == names[0] else vectors(f'{out}/{name}.vectors')
        with open(f'{out}/{name}.time', encoding='ascii') as text:
            times = [json.loads(line) for line in text]
        best = max(times, key=lambda t: t['texts_per_second'])
        rows.append(dict(name=name, parameters=best['parameters'], texts_per_second=best['texts_per_second'],
                         spearman=spearman(expected, [cosine(own, i, j) for i, j in pairs])))
    for row in rows:
        row['times_teacher'] = row['texts_per_second'] / rows[0]['texts_per_second']
    with open(f'{out}/table.json', 'w', encoding='ascii') as to:
        json.dump(dict(pairs=len(pairs), rows=rows), to, indent=2)
    print(f'{"model":<16} {"parameters":>11} {"Spearman":>9} {"texts/s":>9} {"speed":>7}')
    for r in rows:
        print(f'{r["name"]:<16} {r["parameters"]:>11} {r["spearman"]:>9.4f} {r["texts_per_second"]:>9.0f} {r["times_teacher"]:>6.2f}x')


if __name__ == '__main__':
    if sys.argv[1] == 'split':
        split(sys.argv[2], sys.argv[3])
    else:
        table(sys.argv[2], sys.argv[3:])
