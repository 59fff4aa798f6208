#define _GNU_SOURCE
#include "mpishim.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

// Messages are split into pieces of this many elements, well below the limit of MPI's int counts.
#define PIECE ((size_t)1 << 29)

_Static_assert(sizeof(MPI_Request) <= sizeof(mpishim_request), "an MPI_Request fits in 64 bits");

static MPI_Comm farewell_communicator;
static int local_rank, local_size, local_leader, world_rank, world_size;

// Initialization and termination

static int set_up_communicators(void) {
    int error;
    if ((error = MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN))) return error;
    if ((error = MPI_Comm_rank(MPI_COMM_WORLD, &world_rank))) return error;
    if ((error = MPI_Comm_size(MPI_COMM_WORLD, &world_size))) return error;

    MPI_Comm local;
    if ((error = MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world_rank, MPI_INFO_NULL, &local)))
        return error;
    if ((error = MPI_Comm_rank(local, &local_rank))) return error;
    if ((error = MPI_Comm_size(local, &local_size))) return error;
    local_leader = world_rank;
    if ((error = MPI_Bcast(&local_leader, 1, MPI_INT, 0, local))) return error;
    if ((error = MPI_Comm_free(&local))) return error;

    return MPI_Comm_dup(MPI_COMM_WORLD, &farewell_communicator);
}

// Open MPI sends large messages in pieces, and starts the next piece only when MPI is called again: while a rank
// computes, the network is idle between short pieces. Pieces of 1 MiB instead of 128 KiB (Open MPI 4.1) keep it busy. A
// value set by the user takes precedence.
static void prefer_long_pieces(void) { setenv("OMPI_MCA_btl_tcp_max_send_size", "1048576", 0); }

int mpishim_init(int requested, int *provided) {
    prefer_long_pieces();
    int error = MPI_Init_thread(NULL, NULL, requested, provided);
    return error ? error : set_up_communicators();
}

int mpishim_is_running(void) {
    int initialized = 0, finalized = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    return initialized && !finalized;
}

int mpishim_finalize(void) {
    int error = MPI_Comm_free(&farewell_communicator);
    return error ? error : MPI_Finalize();
}

_Noreturn void mpishim_abort(int code) {
    MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code); // MPI_Abort may return when MPI is not running any more.
}

void mpishim_error_string(int error, char *text, size_t capacity) {
    char full[MPI_MAX_ERROR_STRING] = "unknown MPI error";
    int length = 0;
    MPI_Error_string(error, full, &length);
    snprintf(text, capacity, "%s", full);
}

void mpishim_library_version(char *text, size_t capacity) {
    char full[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(full, &length);
    snprintf(text, capacity, "%s", full);
}

int mpishim_processor_name(char *text, size_t capacity) {
    char full[MPI_MAX_PROCESSOR_NAME] = "";
    int length = 0;
    int error = MPI_Get_processor_name(full, &length);
    snprintf(text, capacity, "%s", full);
    return error;
}

int mpishim_rank(void) { return world_rank; }
int mpishim_size(void) { return world_size; }
int mpishim_local_rank(void) { return local_rank; }
int mpishim_local_size(void) { return local_size; }
int mpishim_local_leader(void) { return local_leader; }

// Blocking collectives and messages

static size_t piece_length(size_t done, size_t count) { return count - done < PIECE ? count - done : PIECE; }

int mpishim_barrier(void) { return MPI_Barrier(MPI_COMM_WORLD); }

int mpishim_broadcast(void *bytes, size_t count, int root) {
    for (size_t done = 0; done < count; done += PIECE) {
        int error = MPI_Bcast((char *)bytes + done, (int)piece_length(done, count), MPI_BYTE, root, MPI_COMM_WORLD);
        if (error) return error;
    }
    return MPI_SUCCESS;
}

int mpishim_allreduce(void *values, size_t count, mpishim_type type, mpishim_operation operation) {
    MPI_Datatype datatype = type == MPISHIM_FLOAT ? MPI_FLOAT : type == MPISHIM_DOUBLE ? MPI_DOUBLE : MPI_INT64_T;
    MPI_Op op = operation == MPISHIM_SUM ? MPI_SUM : operation == MPISHIM_MAX ? MPI_MAX : MPI_MIN;
    size_t width = type == MPISHIM_FLOAT ? 4 : 8;
    for (size_t done = 0; done < count; done += PIECE) {
        int error = MPI_Allreduce(MPI_IN_PLACE, (char *)values + done * width, (int)piece_length(done, count),
                                  datatype, op, MPI_COMM_WORLD);
        if (error) return error;
    }
    return MPI_SUCCESS;
}

int mpishim_reduce_scatter_sum(const float *values, float *slice, const size_t *counts) {
    int *small = malloc(sizeof(int) * (size_t)world_size);
    if (!small) return MPI_ERR_NO_MEM;
    int error = MPI_SUCCESS;
    for (int r = 0; r < world_size; r++) {
        if (counts[r] > INT_MAX) error = MPI_ERR_COUNT;
        small[r] = (int)counts[r];
    }
    if (!error) error = MPI_Reduce_scatter(values, slice, small, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    free(small);
    return error;
}

int mpishim_allgather(const void *bytes, size_t count, void *gathered) {
    if (count > INT_MAX) return MPI_ERR_COUNT;
    return MPI_Allgather(bytes, (int)count, MPI_BYTE, gathered, (int)count, MPI_BYTE, MPI_COMM_WORLD);
}

int mpishim_allgather_in_place(void *bytes, const size_t *counts, const size_t *offsets, size_t element_size) {
    MPI_Datatype datatype;
    switch (element_size) {
    case 1: datatype = MPI_BYTE; break;
    case 2: datatype = MPI_UINT16_T; break;
    case 4: datatype = MPI_UINT32_T; break;
    case 8: datatype = MPI_UINT64_T; break;
    default: return MPI_ERR_TYPE;
    }
    int fits = 1;
    for (int r = 0; r < world_size; r++) {
        if (counts[r] % element_size || offsets[r] % element_size) return MPI_ERR_COUNT;
        if ((offsets[r] + counts[r]) / element_size > INT_MAX) fits = 0;
    }
    if (!fits) {
        // Exceeds the range of MPI's int offsets: use one broadcast per rank, split into pieces.
        for (int r = 0; r < world_size; r++) {
            int error = mpishim_broadcast((char *)bytes + offsets[r], counts[r], r);
            if (error) return error;
        }
        return MPI_SUCCESS;
    }
    int *table = malloc(2 * sizeof(int) * (size_t)world_size);
    if (!table) return MPI_ERR_NO_MEM;
    for (int r = 0; r < world_size; r++) {
        table[r] = (int)(counts[r] / element_size);
        table[world_size + r] = (int)(offsets[r] / element_size);
    }
    int error = MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, bytes, table, table + world_size, datatype,
                               MPI_COMM_WORLD);
    free(table);
    return error;
}

// Uses point-to-point messages instead of MPI_Gatherv, which has int offsets. The tag separates them from users'
// messages.
static const int gather_tag = 32767;

int mpishim_gather(const void *bytes, size_t count, void *gathered, const size_t *counts, const size_t *offsets,
                   int root) {
    if (world_rank != root) return mpishim_send(bytes, count, root, gather_tag);
    for (int r = 0; r < world_size; r++) {
        char *place = (char *)gathered + offsets[r];
        if (r == root) {
            if (count) memcpy(place, bytes, count);
            continue;
        }
        int error = mpishim_receive(place, counts[r], r, gather_tag);
        if (error) return error;
    }
    return MPI_SUCCESS;
}

int mpishim_send(const void *bytes, size_t count, int destination, int tag) {
    size_t done = 0;
    do { // An empty message is still a message.
        size_t length = piece_length(done, count);
        int error = MPI_Send((const char *)bytes + done, (int)length, MPI_BYTE, destination, tag, MPI_COMM_WORLD);
        if (error) return error;
        done += length;
    } while (done < count);
    return MPI_SUCCESS;
}

int mpishim_receive(void *bytes, size_t count, int source, int tag) {
    size_t done = 0;
    do {
        size_t length = piece_length(done, count);
        MPI_Status status;
        int received = 0;
        int error = MPI_Recv((char *)bytes + done, (int)length, MPI_BYTE, source, tag, MPI_COMM_WORLD, &status);
        if (error) return error;
        if ((error = MPI_Get_count(&status, MPI_BYTE, &received))) return error;
        // MPI accepts a message that is shorter than the buffer, but here both sides must agree on the length.
        if ((size_t)received != length) return MPI_ERR_TRUNCATE;
        done += length;
    } while (done < count);
    return MPI_SUCCESS;
}

int mpishim_exchange(const void *sent, size_t sent_count, int destination, void *received, size_t received_count,
                     int source, int tag) {
    if (sent_count > INT_MAX || received_count > INT_MAX) return MPI_ERR_COUNT;
    return MPI_Sendrecv(sent, (int)sent_count, MPI_BYTE, destination, tag, received, (int)received_count, MPI_BYTE,
                        source, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

// Non-blocking reductions

static mpishim_request from_mpi(MPI_Request request) {
    mpishim_request number = 0;
    memcpy(&number, &request, sizeof request);
    return number;
}

static MPI_Request to_mpi(mpishim_request number) {
    MPI_Request request;
    memcpy(&request, &number, sizeof request);
    return request;
}

mpishim_request mpishim_null_request(void) { return from_mpi(MPI_REQUEST_NULL); }

int mpishim_start_allreduce_sum(float *values, size_t count, mpishim_request *request) {
    if (count > INT_MAX) return MPI_ERR_COUNT;
    MPI_Request started = MPI_REQUEST_NULL;
    int error =
        MPI_Iallreduce(MPI_IN_PLACE, values, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, &started);
    *request = from_mpi(started);
    return error;
}

int mpishim_start_reduce_sum(float *values, size_t count, int root, mpishim_request *request) {
    if (count > INT_MAX) return MPI_ERR_COUNT;
    MPI_Request started = MPI_REQUEST_NULL;
    int error = world_rank == root
        ? MPI_Ireduce(MPI_IN_PLACE, values, (int)count, MPI_FLOAT, MPI_SUM, root, MPI_COMM_WORLD, &started)
        : MPI_Ireduce(values, NULL, (int)count, MPI_FLOAT, MPI_SUM, root, MPI_COMM_WORLD, &started);
    *request = from_mpi(started);
    return error;
}

int mpishim_start_send(const void *bytes, size_t count, int destination, int tag, mpishim_request *request) {
    if (count > INT_MAX) return MPI_ERR_COUNT;
    MPI_Request started = MPI_REQUEST_NULL;
    int error = MPI_Isend(bytes, (int)count, MPI_BYTE, destination, tag, MPI_COMM_WORLD, &started);
    *request = from_mpi(started);
    return error;
}

int mpishim_start_receive(void *bytes, size_t count, int source, int tag, mpishim_request *request) {
    if (count > INT_MAX) return MPI_ERR_COUNT;
    MPI_Request started = MPI_REQUEST_NULL;
    int error = MPI_Irecv(bytes, (int)count, MPI_BYTE, source, tag, MPI_COMM_WORLD, &started);
    *request = from_mpi(started);
    return error;
}

int mpishim_test_all(mpishim_request *requests, size_t count, int *done) {
    *done = 1;
    for (size_t i = 0; i < count; i++) {
        MPI_Request request = to_mpi(requests[i]);
        if (request == MPI_REQUEST_NULL) continue;
        int complete = 0;
        int error = MPI_Test(&request, &complete, MPI_STATUS_IGNORE);
        requests[i] = from_mpi(request);
        if (error) return error;
        if (!complete) *done = 0;
    }
    return MPI_SUCCESS;
}

int mpishim_wait(mpishim_request *request) {
    MPI_Request waiting = to_mpi(*request);
    int error = MPI_Wait(&waiting, MPI_STATUS_IGNORE);
    *request = from_mpi(waiting);
    return error;
}

// End of a run

int mpishim_start_farewell(const int64_t *values, int64_t *gathered, mpishim_request *request) {
    MPI_Request started = MPI_REQUEST_NULL;
    int error = MPI_Iallgather(values, 3, MPI_INT64_T, gathered, 3, MPI_INT64_T, farewell_communicator, &started);
    *request = from_mpi(started);
    return error;
}

// Machine

int mpishim_single_copy_works(void) {
    // Yama's scopes 2 and 3 forbid it between processes, although a process may still read its own memory.
    FILE *yama = fopen("/proc/sys/kernel/yama/ptrace_scope", "r");
    if (yama) {
        int scope = 0;
        int read = fscanf(yama, "%d", &scope);
        fclose(yama);
        if (read == 1 && scope > 1) return 0;
    }
    uint64_t source = 0x5ca1ab1e, target = 0;
    struct iovec to = {&target, sizeof target}, from = {&source, sizeof source};
    // A container's system call filter rejects this call even for the own process.
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == sizeof target && target == source;
}
