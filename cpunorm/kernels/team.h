/* What keeps the threads of a parallel region out of each other's way when they start cold.

   Linux wakes a sleeping thread on the CPU of the one that wakes it.  That one works on, and then spins at the region's
   end until its time slice is over: it cost the first region after a pause 4 to 8 ms.  So the calling thread sleeps, for
   an instant, until all others have begun, and one that finds itself on the caller's CPU moves off it.  (sched_yield
   isn't enough: it leaves a slice that has just begun to its owner.) */

#ifndef CPUNORM_TEAM_H
#define CPUNORM_TEAM_H

/* Kernels run without the GIL.  Before a parallel region Cython asks whether it must be let go, and at the end of Python
   (before 3.12) is told so: a daemon thread that was still in a kernel then ended the process. */
#define PyGILState_Check() 0

#if defined(_OPENMP) && defined(__linux__) && defined(__GNUC__)
#include <omp.h>
#include <sched.h>
#include <time.h>

enum { PATIENCE = 2000 };  /* looks before the first sleep: some microseconds */

typedef struct {
    int cpu;     /* the calling thread's */
    int joined;  /* how many others have begun */
} Team;

static inline void start_team(Team *team) {
    team->cpu = sched_getcpu();
    team->joined = 0;
}

#define team_size() omp_get_num_threads()

/* Called by each thread before its share; returns its number. */
static inline int join_team(Team *team) {
    cpu_set_t allowed, others;
    int thread = omp_get_thread_num();
    if (thread == 0)
        return 0;
    if (sched_getcpu() == team->cpu && sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        others = allowed;
        CPU_CLR(team->cpu, &others);
        if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
            sched_setaffinity(0, sizeof allowed, &allowed);
    }
    __atomic_add_fetch(&team->joined, 1, __ATOMIC_RELEASE);
    return thread;
}

/* Called by each thread after its share. */
static inline void leave_team(Team *team) {
    const struct timespec instant = {0, 1000};
    if (omp_get_thread_num() == 0)
        for (int looks = 0; __atomic_load_n(&team->joined, __ATOMIC_ACQUIRE) < omp_get_num_threads() - 1; looks++)
            if (looks >= PATIENCE)
                nanosleep(&instant, NULL);
}

#else
typedef struct {
    int unused;
} Team;
#define start_team(team) (void) (team)
#define team_size() 1
#define join_team(team) 0
#define leave_team(team)
#endif

#endif
