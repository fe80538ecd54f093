/* Folders that this program wrote, told from all others: a mark inside lists what was written. What has no
 * mark, or holds a file that the mark does not list, is somebody's own and is never replaced or removed.
 *
 * The mark is the file .limbeck: "limbeck KIND 1", then one name a line.
 */
#ifndef LB_BASE_FOLDER_H
#define LB_BASE_FOLDER_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define LB_MARK ".limbeck"

/* Marks a finished folder with all that is in it now. kind: "model". */
LB_NODISCARD enum lb_status lb_folder_mark(const char *dir, const char *kind, struct lb_detail *detail);
/* LB_OK when path may be written to as a folder of that kind: nothing is there, an empty folder, or one that
 * this program wrote and nobody added to. LB_E_ARG names what is in the way; LB_E_IO. */
LB_NODISCARD enum lb_status lb_folder_check(const char *path, const char *kind, struct lb_detail *detail);
/* Whether the folder holds nothing but files of the n names. */
bool lb_folder_holds_only(const char *dir, const char *const *names, size_t n);

/* Puts a finished folder in dir's place at once: it is never missing, nor has parts missing. What was there
 * stands at finished afterwards, if anything was. LB_E_IO: among others a file is there. */
LB_NODISCARD enum lb_status lb_folder_swap_in(const char *finished, const char *dir,
                                              struct lb_detail *detail);

/* Removes what killed writers left in a folder that the caller owns: NAME.tmp-PID-N and NAME.new-PID. */
LB_NODISCARD enum lb_status lb_folder_sweep(const char *dir, struct lb_detail *detail);
/* Removes PATH.new-PID of processes that are gone (a minute ago or longer). Failures are ignored. */
void lb_folder_sweep_beside(const char *path);

#endif
