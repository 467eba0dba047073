// count_allocations: counts what a program asks its allocator for. Loaded with LD_PRELOAD; with PYTHONMALLOC=malloc every
// object of Python that is not taken from a free list is counted.
//
// Owns the count of calls of malloc, calloc and realloc, which the program reads with count_allocations(). Relies on
// glibc, whose own functions do the work. Never changes a size.

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static atomic_uint_least64_t calls;

uint64_t count_allocations(void)
{
    return atomic_load_explicit(&calls, memory_order_relaxed);
}

void *malloc(size_t size)
{
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    return __libc_realloc(old, size);
}
