/* Where the time of a piece of work goes, by samples of what each OpenMP thread executes.
 *
 * A sample is taken of every thread a thousand times a second of wall time, also of those that wait.
 * Functions are told apart by the program's own table of symbols (so it must not be stripped) and those of
 * its libraries, and put together by the file they stand in. Who waits does so for the parallel region that
 * is under way (GCC's OpenMP; "waiting" alone where none is, or where the compiler is another).
 */
#ifndef LB_TESTS_BENCH_PROFILE_H
#define LB_TESTS_BENCH_PROFILE_H

/* Begins to sample; exits the program where that cannot be. Phases are named by lb_profile_phase. */
void lb_profile_begin(void);
/* What follows belongs to a phase: a string that lives on. By the thread that began. */
void lb_profile_phase(const char *phase);
/* Ends sampling and prints a JSON line for each phase and kind of work: share (of the time of all threads),
 * of_main (of the first thread's), alone (the first thread's, outside of parallel regions: others wait). */
void lb_profile_end(const char *work);

#endif
