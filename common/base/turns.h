/* A line in which clients take turns, whoever waits for how many things. Not thread-safe. */
#ifndef LB_BASE_TURNS_H
#define LB_BASE_TURNS_H

/* Part of what waits, which must live until it is taken. */
struct lb_turn {
    const void *client;                                  /* whose it is; NULL: one like any other */
    struct lb_turn *next_same, *last_same, *next_client; /* the line's */
};

/* Clients in the order of their turns; each is what it waits for longest, which leads to its others. All
 * zero: nobody waits. */
struct lb_turns {
    struct lb_turn *first, *last;
};

/* Last of its client's. */
void lb_turns_put(struct lb_turns *turns, struct lb_turn *turn);
/* Whose turn it is, and its client comes last with the next one; NULL: nobody waits. */
struct lb_turn *lb_turns_take(struct lb_turns *turns);

#endif
