#include "server/http/mailbox.h"

#include "server/http/parts.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

bool lb_mailbox_open(struct lb_mailbox *mailbox) {
    pthread_mutex_init(&mailbox->lock, NULL);
    mailbox->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return mailbox->wake_fd >= 0;
}

void lb_mailbox_close(struct lb_mailbox *mailbox) {
    if (mailbox->wake_fd >= 0) {
        close(mailbox->wake_fd);
    }
    pthread_mutex_destroy(&mailbox->lock);
}

void lb_mailbox_wake(struct lb_mailbox *mailbox) {
    uint64_t one = 1;
    while (write(mailbox->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void lb_mailbox_put(struct lb_mailbox *mailbox, struct lb_held *held) {
    pthread_mutex_lock(&mailbox->lock);
    bool first = mailbox->newest == NULL;
    held->next_back = mailbox->newest;
    mailbox->newest = held;
    if (first) {
        lb_mailbox_wake(mailbox); /* under the lock: the loop lives until it has seen this */
    }
    pthread_mutex_unlock(&mailbox->lock);
}

struct lb_held *lb_mailbox_take(struct lb_mailbox *mailbox) {
    uint64_t count;
    while (read(mailbox->wake_fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
    pthread_mutex_lock(&mailbox->lock);
    struct lb_held *back = mailbox->newest, *ordered = NULL;
    mailbox->newest = NULL;
    pthread_mutex_unlock(&mailbox->lock);
    while (back) {
        struct lb_held *next = back->next_back;
        back->next_back = ordered;
        ordered = back;
        back = next;
    }
    return ordered;
}
