# cython: language_level=3
"""What this CPU and this process may use: ISA levels, cores, OpenMP."""

import os

cdef extern from *:
    """
    /* x86-64 levels v3 and v4 (psABI), as far as the compiler may use them in a kernel.  The compiler's own
       cpu model reads cpuid and, for AVX and AVX-512, what the operating system saves (xgetbv). */
    #if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
    static int cpu_level(void) {
        __builtin_cpu_init();
        if (!(__builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1")
              && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt")))
            return 1;
        if (!(__builtin_cpu_supports("avx") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
              && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")))
            return 2;
        if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
              && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
              && __builtin_cpu_supports("avx512vl")))
            return 3;
        return 4;
    }
    #else
    static int cpu_level(void) { return 2; }
    #endif
    """
    int cpu_level()

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define CPUNORM_OPENMP _OPENMP
    #else
    #define CPUNORM_OPENMP 0
    #endif
    #if defined(_OPENMP) && (_OPENMP >= 201811 || __GNUC__ >= 9)  /* gcc 9 has it ahead of its version */
    static int end_threads(void) { return omp_pause_resource_all(omp_pause_hard); }
    #else
    static int end_threads(void) { return 0; }
    #endif
    """
    long CPUNORM_OPENMP
    int end_threads() nogil


def isa_levels():
    """The names of the ISA levels that this CPU and operating system can run, lowest first."""
    cdef int level = cpu_level()
    return ("baseline", "v3", "v4")[:max(0, level - 1)]


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
    if hasattr(os, "sched_getaffinity"):
        cores, why = len(os.sched_getaffinity(0)), "CPU affinity"
    else:
        cores, why = os.cpu_count() or 1, "CPU count"
    quota = _cgroup_quota()
    if quota is not None and quota < cores:
        return max(1, int(quota)), f"cgroup quota of {quota:g} cores"
    return cores, why


def openmp_runtime():
    """The version of OpenMP that the kernels were compiled for, or that there is none."""
    return f"OpenMP {CPUNORM_OPENMP}" if CPUNORM_OPENMP else "none: built without OpenMP, kernels run on one thread"


def release_threads():
    """End the idle OpenMP threads of the calling thread; the next parallel kernel starts new ones.

    Called before a fork: a child that inherits the records of threads that did not come along waits for them for ever.
    """
    with nogil:
        end_threads()
