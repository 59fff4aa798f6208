// MPIShim: Open MPI as plain functions that Swift can import.
//
// Why a shim: MPI's constants (MPI_COMM_WORLD, MPI_FLOAT, MPI_SUM, MPI_IN_PLACE, ...) are macros that
// cast addresses, which Swift cannot see, and MPI's counts are ints, so a message of more than
// 2^31 - 1 elements has to be cut. Nothing else lives here: what a message means is for Swift to say.
//
// Every function returns 0 (MPI_SUCCESS) or an MPI error code, which mpishim_error_string explains.
// Errors are returned and not fatal: the shim sets MPI_ERRORS_RETURN. All collectives run on
// MPI_COMM_WORLD and have to be called by every rank in the same order.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Life cycle

enum { MPISHIM_THREAD_FUNNELED = 1, MPISHIM_THREAD_MULTIPLE = 3 };

/// Initialises MPI. `requested` and `*provided` are thread levels in MPI's order: 0 single, 1 funneled,
/// 2 serialized, 3 multiple.
int mpishim_init(int requested, int *provided);
/// 1 between mpishim_init and mpishim_finalize, else 0.
int mpishim_is_running(void);
int mpishim_finalize(void);
/// Ends every rank of the job. Does not return.
_Noreturn void mpishim_abort(int code);

/// Writes the text of an error code, cut to `capacity` bytes with its closing zero.
void mpishim_error_string(int error, char *text, size_t capacity);
/// The library's name and version, for example "Open MPI v4.1.4, ...". Works before mpishim_init.
void mpishim_library_version(char *text, size_t capacity);
int mpishim_processor_name(char *text, size_t capacity);

int mpishim_rank(void);
int mpishim_size(void);
/// The rank among, and the number of, ranks that share this machine's memory.
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
/// `count` bytes of every rank, in rank order; `gathered` holds size * count bytes.
int mpishim_allgather(const void *bytes, size_t count, void *gathered);
/// Rank r owns counts[r] bytes at offsets[r] of `bytes`; afterwards every rank holds all of them.
/// Offsets and counts have to be multiples of `element_size`, which is 1, 2, 4 or 8.
int mpishim_allgather_in_place(void *bytes, const size_t *counts, const size_t *offsets,
                               size_t element_size);
/// counts[r] bytes of rank r land at offsets[r] of `gathered` on `root`; elsewhere `gathered` and the
/// two arrays are not read.
int mpishim_gather(const void *bytes, size_t count, void *gathered, const size_t *counts,
                   const size_t *offsets, int root);
int mpishim_send(const void *bytes, size_t count, int destination, int tag);
int mpishim_receive(void *bytes, size_t count, int source, int tag);
/// Sends to one rank while receiving from another; either count may be 0.
int mpishim_exchange(const void *sent, size_t sent_count, int destination, void *received, size_t received_count,
                     int source, int tag);

// Non-blocking reductions and messages

/// An MPI_Request as a plain number, so that Swift can hold it in an array.
typedef uint64_t mpishim_request;

/// A request that is complete, and that waiting for costs nothing.
mpishim_request mpishim_null_request(void);
/// Starts a sum over the ranks in place. `values` may not be touched until the request is complete.
/// `count` is at most 2^31 - 1.
int mpishim_start_allreduce_sum(float *values, size_t count, mpishim_request *request);
/// Starts a sum over the ranks into `values` of `root`; the others' stay as they are.
int mpishim_start_reduce_sum(float *values, size_t count, int root, mpishim_request *request);
/// Starts a message of at most 2^31 - 1 bytes; `bytes` may not be touched until the request is complete.
int mpishim_start_send(const void *bytes, size_t count, int destination, int tag, mpishim_request *request);
int mpishim_start_receive(void *bytes, size_t count, int source, int tag, mpishim_request *request);
/// Sets *done to 1 when the request is complete, and leaves the request to be waited for.
int mpishim_peek(mpishim_request request, int *done);
/// Drives all requests on, and sets *done to 1 (and the requests to null) when all are complete.
int mpishim_test_all(mpishim_request *requests, size_t count, int *done);
int mpishim_wait(mpishim_request *request);

// The end of a run

/// Starts an all-gather of three int64 values of every rank on a communicator of its own, so that it
/// cannot be mistaken for a collective that other ranks are still in. `gathered` holds size * 3.
int mpishim_start_farewell(const int64_t *values, int64_t *gathered, mpishim_request *request);

// The machine

/// 1 when one process may read another's memory (process_vm_readv), which Open MPI's shared memory
/// transport uses for large messages; 0 where a container or a security policy forbids it.
int mpishim_single_copy_works(void);

#ifdef __cplusplus
}
#endif
