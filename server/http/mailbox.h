/* Exchanges on their way back to an HTTP thread. Any thread puts them in; the loop's own takes them out. */
#ifndef LB_HTTP_MAILBOX_H
#define LB_HTTP_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>

struct lb_held;

struct lb_mailbox {
    int wake_fd;          /* becomes readable for the loop; -1: none */
    pthread_mutex_t lock; /* guards newest */
    struct lb_held *newest;
};

/* False (errno) when there is no file for it; to be closed either way. */
bool lb_mailbox_open(struct lb_mailbox *mailbox);
void lb_mailbox_close(struct lb_mailbox *mailbox);
void lb_mailbox_put(struct lb_mailbox *mailbox, struct lb_held *held);
/* All that came, oldest first, linked by next_back; NULL: none. */
struct lb_held *lb_mailbox_take(struct lb_mailbox *mailbox);
/* Makes wake_fd readable with nothing put in. */
void lb_mailbox_wake(struct lb_mailbox *mailbox);

#endif
