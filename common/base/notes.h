/* Notes: what a person should be told although nothing failed. Libraries collect them, programs log them. */
#ifndef LB_BASE_NOTES_H
#define LB_BASE_NOTES_H

#include "common/base/status.h"

#include <stddef.h>

#define LB_MAX_NOTES 16
#define LB_NOTE_TEXT 320

/* Zero-initialise before use. */
struct lb_notes {
    size_t n; /* all that were added; those beyond LB_MAX_NOTES are only counted */
    char text[LB_MAX_NOTES][LB_NOTE_TEXT];
};

/* Adds one line, cut at LB_NOTE_TEXT. notes may be NULL: nobody wants to know. */
void lb_note(struct lb_notes *notes, const char *format, ...) LB_PRINTF(2, 3);
/* Line i, valid as long as notes; after the last one NULL. Where lines were left out the last one says so. */
const char *lb_note_get(const struct lb_notes *notes, size_t i);

#endif
