#include "common/base/notes.h"

#include <stdio.h>

void lb_note(struct lb_notes *notes, const char *format, ...) {
    if (notes == NULL) {
        return;
    }
    if (notes->n < LB_MAX_NOTES) {
        va_list args;
        va_start(args, format);
        vsnprintf(notes->text[notes->n], LB_NOTE_TEXT, format, args);
        va_end(args);
    } else {
        snprintf(notes->text[LB_MAX_NOTES - 1], LB_NOTE_TEXT, "and %zu more of this kind",
                 notes->n - LB_MAX_NOTES + 2);
    }
    notes->n++;
}

const char *lb_note_get(const struct lb_notes *notes, size_t i) {
    return i < notes->n && i < LB_MAX_NOTES ? notes->text[i] : NULL;
}
