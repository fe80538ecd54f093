#include "common/base/turns.h"

#include <stddef.h>

static void append(struct lb_turns *turns, struct lb_turn *turn) {
    turn->next_client = NULL;
    *(turns->last ? &turns->last->next_client : &turns->first) = turn;
    turns->last = turn;
}

void lb_turns_put(struct lb_turns *turns, struct lb_turn *turn) {
    turn->next_same = NULL;
    turn->last_same = turn;
    for (struct lb_turn *t = turns->first; t; t = t->next_client) {
        if (t->client == turn->client) {
            t->last_same->next_same = turn;
            t->last_same = turn;
            return;
        }
    }
    append(turns, turn);
}

struct lb_turn *lb_turns_take(struct lb_turns *turns) {
    struct lb_turn *turn = turns->first;
    if (!turn) {
        return NULL;
    }
    turns->first = turn->next_client;
    turns->last = turns->first ? turns->last : NULL;
    if (turn->next_same) {
        turn->next_same->last_same = turn->last_same;
        append(turns, turn->next_same);
    }
    return turn;
}
