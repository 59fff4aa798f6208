// MPIShim: Open MPI as plain functions that Swift can import.
//
// MPI's constants (MPI_COMM_WORLD, MPI_FLOAT, MPI_SUM, MPI_IN_PLACE, ...) are macros that cast addresses, which Swift
// cannot import. MPI's counts are ints, so a message with more than 2^31 - 1 elements must be split. The shim only
// solves these two problems; the meaning of messages is defined in Swift.
//
// Every function returns 0 (MPI_SUCCESS) or an MPI error code, which mpishim_error_string explains. Errors are returned
// and are not fatal: the shim sets MPI_ERRORS_RETURN. All collectives run on MPI_COMM_WORLD and must be called by every
// rank in the same order.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Initialization and termination

enum { MPISHIM_THREAD_FUNNELED = 1, MPISHIM_THREAD_MULTIPLE = 3 };

/// Initializes MPI. `requested` and `*provided` are thread levels in MPI's order: 0 single, 1 funneled, 2 serialized, 3
/// multiple.
int mpishim_init(int requested, int *provided);
/// 1 between mpishim_init and mpishim_finalize, otherwise 0.
int mpishim_is_running(void);
int mpishim_finalize(void);
/// Terminates all ranks of the job. Does not return.
_Noreturn void mpishim_abort(int code);

/// Writes the text of an error code, truncated to `capacity` bytes including the terminating zero.
void mpishim_error_string(int error, char *text, size_t capacity);
/// The library's name and version, for example "Open MPI v4.1.4, ...". Works before mpishim_init.
void mpishim_library_version(char *text, size_t capacity);
int mpishim_processor_name(char *text, size_t capacity);

int mpishim_rank(void);
int mpishim_size(void);
/// The rank among the ranks that share this machine's memory, and their number.
int mpishim_local_rank(void);
int mpishim_local_size(void);
/// The lowest rank on this machine.
int mpishim_local_leader(void);

// Blocking collectives and messages

typedef enum { MPISHIM_FLOAT = 0, MPISHIM_DOUBLE = 1, MPISHIM_INT64 = 2 } mpishim_type;
typedef enum { MPISHIM_SUM = 0, MPISHIM_MAX = 1, MPISHIM_MIN = 2 } mpishim_operation;

int mpishim_barrier(void);
int mpishim_broadcast(void *bytes, size_t count, int root);
/// Reduces `count` values over the ranks, in place on every rank.
int mpishim_allreduce(void *values, size_t count, mpishim_type type, mpishim_operation operation);
/// Sums over the ranks; rank r receives counts[r] consecutive elements in `slice`.
int mpishim_reduce_scatter_sum(const float *values, float *slice, const size_t *counts);
/// Gathers `count` bytes of every rank in rank order; `gathered` has size * count bytes.
int mpishim_allgather(const void *bytes, size_t count, void *gathered);
/// Rank r provides counts[r] bytes at offsets[r] of `bytes`; afterwards every rank has all of them. Offsets and counts
/// must be multiples of `element_size`, which is 1, 2, 4 or 8.
int mpishim_allgather_in_place(void *bytes, const size_t *counts, const size_t *offsets,
                               size_t element_size);
/// Gathers counts[r] bytes of rank r at offsets[r] of `gathered` on `root`. On other ranks, `gathered` and the two
/// arrays are not read.
int mpishim_gather(const void *bytes, size_t count, void *gathered, const size_t *counts,
                   const size_t *offsets, int root);
int mpishim_send(const void *bytes, size_t count, int destination, int tag);
int mpishim_receive(void *bytes, size_t count, int source, int tag);
/// Sends to one rank while receiving from another; either count may be 0.
int mpishim_exchange(const void *sent, size_t sent_count, int destination, void *received, size_t received_count,
                     int source, int tag);

// Non-blocking reductions and messages

/// An MPI_Request as an integer, so that Swift can store it in an array.
typedef uint64_t mpishim_request;

/// A request that is already complete; waiting for it returns immediately.
mpishim_request mpishim_null_request(void);
/// Starts an in-place sum over the ranks. `values` must not be accessed until the request is complete. `count` is at
/// most 2^31 - 1.
int mpishim_start_allreduce_sum(float *values, size_t count, mpishim_request *request);
/// Starts a sum over the ranks into `values` of `root`; those of other ranks are not modified.
int mpishim_start_reduce_sum(float *values, size_t count, int root, mpishim_request *request);
/// Starts a message of at most 2^31 - 1 bytes; `bytes` must not be accessed until the request is complete.
int mpishim_start_send(const void *bytes, size_t count, int destination, int tag, mpishim_request *request);
int mpishim_start_receive(void *bytes, size_t count, int source, int tag, mpishim_request *request);
/// Drives all requests on, and sets *done to 1 (and the requests to null) when all are complete.
int mpishim_test_all(mpishim_request *requests, size_t count, int *done);
int mpishim_wait(mpishim_request *request);

// End of a run

/// Starts an all-gather of three int64 values per rank on a separate communicator, so that it cannot match a collective
/// that other ranks are still in. `gathered` has size * 3 elements.
int mpishim_start_farewell(const int64_t *values, int64_t *gathered, mpishim_request *request);

// Machine

/// 1 if a process may read another's memory (process_vm_readv), which Open MPI's shared memory transport uses for large
/// messages; 0 if a container or a security policy forbids it.
int mpishim_single_copy_works(void);

#ifdef __cplusplus
}
#endif
