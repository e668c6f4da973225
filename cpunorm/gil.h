/* What the GIL gives where there is one: one thread at a time, and counts that none is lost from. */

#ifndef CPUNORM_GIL_H
#define CPUNORM_GIL_H

#include <Python.h>
#include <pthread.h>

#ifdef Py_GIL_DISABLED
typedef PyMutex Lock; /* one that waits for it lets Python stop the other threads meanwhile; not recursive */
static inline void lock(Lock *it) { PyMutex_Lock(it); }
static inline void unlock(Lock *it) { PyMutex_Unlock(it); }
static inline void forget(Lock *it) { *it = (Lock){0}; }
static inline void add(Py_ssize_t *number, Py_ssize_t more) { __atomic_add_fetch(number, more, __ATOMIC_SEQ_CST); }
static inline Py_ssize_t value_of(Py_ssize_t *number) { return __atomic_load_n(number, __ATOMIC_SEQ_CST); }
#else
typedef struct {
    char unused;
} Lock;
static inline void lock(Lock *it) { (void) it; }
static inline void unlock(Lock *it) { (void) it; }
static inline void forget(Lock *it) { (void) it; }
static inline void add(Py_ssize_t *number, Py_ssize_t more) { *number += more; }
static inline Py_ssize_t value_of(Py_ssize_t *number) { return *number; }
#endif

/* Have `function` called in a forked child, where the threads inside did not come along; forks from C, too. */
static inline int at_fork_in_child(void (*function)(void)) { return pthread_atfork(NULL, NULL, function); }

#endif
