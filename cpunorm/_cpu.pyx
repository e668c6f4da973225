# cython: language_level=3
"""What this CPU and this process may use: instructions, cores, threads."""

import os

cdef extern from *:
    """
    /* What setup.py asks for, as the compiler's own cpu model knows it: it reads cpuid and, for AVX and AVX-512, what
       the operating system saves (xgetbv).  FEATURE is a line of the function below. */
    #ifndef CPUNORM_FEATURES
    #define CPUNORM_FEATURES
    #endif
    #define FEATURE(name) if (__builtin_cpu_supports(name)) features[count++] = name;
    static int find_features(const char **features) {
        int count = 0;
        CPUNORM_FEATURES
        return count;
    }
    """
    int find_features(const char** features)

cdef extern from *:
    """
    #include <limits.h>
    #include <time.h>
    #ifdef __linux__
    #include <sched.h>
    #endif
    #ifdef _OPENMP
    #include <omp.h>
    #define CPUNORM_OPENMP _OPENMP
    #else
    #define CPUNORM_OPENMP 0
    #define omp_get_max_threads() INT_MAX
    #endif
    #if defined(_OPENMP) && (_OPENMP >= 201811 || __GNUC__ >= 9)  /* gcc 9 has it ahead of its version */
    static void end_threads(void) { omp_pause_resource_all(omp_pause_hard); }
    #else
    #define end_threads NULL
    #endif
    #ifdef _WIN32
    #define at_fork(before, in_child) 0
    #else
    #include <pthread.h>
    #define at_fork(before, in_child) pthread_atfork(before, NULL, in_child)
    #endif

    static long long nanoseconds(void) {
        struct timespec now;
    #ifdef CLOCK_MONOTONIC
        clock_gettime(CLOCK_MONOTONIC, &now);
    #else
        timespec_get(&now, TIME_UTC);
    #endif
        return now.tv_sec * 1000000000LL + now.tv_nsec;
    }

    #ifdef __linux__
    typedef struct { cpu_set_t part[8]; } Cpus;  /* 8192 */

    /* How many CPUs OpenMP's places have; 0 without OMP_PLACES, OMP_PROC_BIND and the like.  With them OpenMP binds
       each thread to a place, the importing one at once: its affinity is no longer what the process was given. */
    static int cpus_of_places(void) {
        Cpus cpus;
        CPU_ZERO_S(sizeof cpus, cpus.part);
    #if defined(_OPENMP) && _OPENMP >= 201511
        int place, i, count, ids[8192];
        for (place = 0; place < omp_get_num_places(); place++) {
            count = omp_get_place_num_procs(place);
            if (count > 8192)
                continue;
            omp_get_place_proc_ids(place, ids);
            for (i = 0; i < count; i++)
                CPU_SET_S(ids[i], sizeof cpus, cpus.part);
        }
    #endif
        return CPU_COUNT_S(sizeof cpus, cpus.part);
    }

    /* How many CPUs the calling thread may run on, at most `age` nanoseconds ago; INT_MAX if that is not known. */
    static int allowed_cpus(long long now, long long age) {
        static int placed = -1;
        static _Thread_local int count = 0;
        static _Thread_local long long counted = 0;
        Cpus cpus;
        if (placed < 0)
            placed = cpus_of_places();
        if (placed)
            return placed;
        if (!count || now - counted >= age) {
            count = sched_getaffinity(0, sizeof cpus, cpus.part) ? INT_MAX : CPU_COUNT_S(sizeof cpus, cpus.part);
            counted = now;
        }
        return count;
    }
    #else
    #define allowed_cpus(now, age) INT_MAX
    #endif
    """
    int INT_MAX
    long CPUNORM_OPENMP
    void end_threads() noexcept
    int at_fork(void (*before)() noexcept, void (*in_child)() noexcept)
    int omp_get_max_threads() noexcept
    long long nanoseconds() noexcept
    int allowed_cpus(long long now, long long age) noexcept

# Values read, from which on several threads are faster than one: measured on two cores, where a second thread costs
# 1 us if it is awake, and some 200 us if it sleeps.
cdef Py_ssize_t parallel_from = 1 << 15
cdef Py_ssize_t parallel_asleep_from = 1 << 22
cdef long long AWAKE = 2_000_000  # nanoseconds after a call in which the team is surely awake
cdef long long PINNED = 100_000_000  # nanoseconds in which a change of affinity is noticed
cdef long long last_worthy = 0  # when a call that was large enough for a team last began or ended
cdef int num_threads = 1
cdef int openmp_then = 0
cdef int cpus_then = 0
cdef bint alone = False


def features():
    """The names of the features that some ISA level needs and this CPU and operating system have."""
    cdef const char* found[64]
    cdef int i
    return frozenset([found[i].decode() for i in range(find_features(found))])


def use_threads(int threads, int openmp, int cpus):
    """Let a call use up to `threads` threads.

    Fewer if OpenMP's own number of the calling thread is less, unless that is `openmp`; or if this thread may run on
    less CPUs than `cpus`.
    """
    global num_threads, openmp_then, cpus_then, alone
    num_threads, openmp_then, cpus_then, alone = threads, openmp, cpus, False


def is_alone():
    """Whether this is a forked process that nobody has called `use_threads` in: one thread is used."""
    return alone


cdef void be_alone() noexcept:
    global num_threads, alone
    num_threads, alone = 1, True


# Forks from C, too, come by here. The idle OpenMP threads of the thread that forks end before, and start again when
# needed: a child that inherits records of threads that did not come along waits for them for ever.
if at_fork(end_threads, be_alone):
    raise MemoryError("cpunorm: no memory to register what a fork does")


cdef inline int threads_at(long long now, long long age) noexcept:
    cdef int threads = num_threads, openmp = omp_get_max_threads(), cpus = allowed_cpus(now, age)
    if openmp < threads and openmp != openmp_then:
        threads = openmp
    return cpus if cpus < threads and cpus < cpus_then else threads


def threads():
    """How many threads a call may use, from this thread and now."""
    return threads_at(nanoseconds(), 0)


cdef enum Worth:
    SMALL, ASLEEP, TEAM


cdef inline Worth worth_of(Py_ssize_t work, long long passed) noexcept:
    """Whether a team saves more than it costs, `passed` nanoseconds after the last call that was worth one.

    That depends on whether the team is awake: its threads wait busily for some milliseconds after a call, then sleep.
    """
    if work < parallel_from:
        return SMALL
    return TEAM if passed < AWAKE or work >= parallel_asleep_from else ASLEEP


cpdef int threads_for(Py_ssize_t size, int reads) noexcept:
    """How many threads a kernel gets that reads `size` values `reads` times."""
    global last_worthy
    cdef long long now, before = last_worthy
    if num_threads == 1 or worth_of(reads * size, 0) == SMALL:
        return 1
    now = last_worthy = nanoseconds()
    return threads_at(now, PINNED) if worth_of(reads * size, now - before) == TEAM else 1


def explained_threads(Py_ssize_t work):
    """What `threads_for` would say now of so many values read, and why."""
    cdef int most = threads()
    cdef Worth worth = worth_of(work, nanoseconds() - last_worthy)
    if most == 1:
        return 1, "one thread is all that a call may use"
    if worth == SMALL:
        return 1, f"{work} values read are fewer than the {parallel_from} from which on a team of threads pays"
    if worth == ASLEEP:
        return 1, (f"the team sleeps, {AWAKE // 1_000_000} ms after the last call that was worth one; waking it pays "
                   f"from {parallel_asleep_from} values read on, not for {work}")
    return most, f"{work} values read are worth a team"


cdef void call_ends(Py_ssize_t size, int reads) noexcept:
    """Called after the kernel that `threads_for` was asked for: a team is awake from its end on."""
    global last_worthy
    if reads * size >= parallel_from and num_threads > 1:
        last_worthy = nanoseconds()


def openmp_threads():
    """OpenMP's own number of threads for the calling thread; without OpenMP no limit."""
    return omp_get_max_threads()


def cpus():
    """How many CPUs the calling thread may run on, or all that OpenMP may bind it to; None if the system can't say."""
    cdef int count = allowed_cpus(nanoseconds(), 0)
    return None if count == INT_MAX else count


def _cgroup_quota(root="/sys/fs/cgroup", table="/proc/self/cgroup"):
    """Cores that the cgroups of this process grant it (v2 or v1; the tightest), or None if they set no limit."""
    quotas = []
    try:
        with open(table) as lines:
            entries = [line.rstrip("\n").split(":", 2) for line in lines]
    except OSError:
        return None
    for _, controllers, path in entries:
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root if not controllers else os.path.join(root, "cpu")
        while True:
            folder = os.path.join(base, path.strip("/"))
            try:
                if controllers:
                    with open(os.path.join(folder, "cpu.cfs_quota_us")) as file:
                        quota = file.read()
                    with open(os.path.join(folder, "cpu.cfs_period_us")) as file:
                        period = file.read()
                else:
                    with open(os.path.join(folder, "cpu.max")) as file:
                        quota, period = file.read().split()
                if quota.strip() not in ("max", "-1"):
                    quotas.append(int(quota) / int(period))
            except (OSError, ValueError):
                pass  # a controller that is not there sets no limit
            if path in ("", "/"):
                break
            path = os.path.dirname(path)
    return min(quotas, default=None)


def usable_cores():
    """Cores that this process may use: (number, why), from its affinity and its cgroups' quota."""
    cores, why = cpus(), "CPU affinity"
    if cores is None:
        cores, why = os.cpu_count() or 1, "CPU count"
    quota = _cgroup_quota()
    if quota is not None and quota < cores:
        return max(1, int(quota)), f"cgroup quota of {quota:g} cores"
    return cores, why


def openmp_runtime():
    """The version of OpenMP that the kernels were compiled for, or that there is none."""
    return f"OpenMP {CPUNORM_OPENMP}" if CPUNORM_OPENMP else "none: built without OpenMP, kernels run on one thread"
