// An LD_PRELOAD library that makes a program's file calls fail or block, or kills its process, to simulate faults of
// disks and machines reproducibly. The approach is that of ALICE (Pillai et al., OSDI 2014): a driver first records the
// calls of an undisturbed run, then injects a fault into one after the other.
//
// A call is identified by its operation: the k-th call of a kind on a kind of file. Its position among all calls of the
// process depends on the load, because several threads make calls; its position among the calls on one file does not.
//
//   FAULT_PATH    the folder whose calls are logged: calls on paths in it, or on descriptors of files in it
//   FAULT_EXCEPT  a subfolder whose calls are not logged
//   FAULT_RANK    the rank that has the fault (by OMPI_COMM_WORLD_RANK; "alone" if that is not set), or "all"
//   FAULT_CALL    pattern of the call's name; absent for no fault. Patterns are those of fnmatch(3); "*" also matches
//                 slashes, and "@(a|b)" matches either
//   FAULT_FILE    patterns, one per line, of the path relative to FAULT_PATH. Default "*"
//   FAULT_TO      pattern of the second path of a rename or link, relative to FAULT_PATH. Default: any or none
//   FAULT_AT      which of the matching calls, counted from 1. Default 1
//   FAULT_TIMES   number of matching calls that have the fault from there on; 0 for all. Default 1
//   FAULT_ACTION  EIO, ENOSPC, EDQUOT, ESTALE, EROFS, EMFILE: the call fails without effect; close closes and fails
//                 short       a write writes half of its data
//                 delay       the call takes FAULT_SECONDS longer, then succeeds
//                 wait        the call waits until the file FAULT_UNTIL exists, then succeeds
//                 kill        the process is killed before the call; torn: after half of the write
//                 stop        the process stops before the call, as by SIGSTOP
//                 parent      mpirun is killed before the call
//                 powercut    the file system shuts down without writing its journal, and the process is killed
//                 readonly    the file system is remounted read-only
//                 clock       the wall clock is set back by an hour
//   FAULT_ONCE    a file: only the process that creates it has the fault; restarted ones do not
//   FAULT_LIE     fsync of paths that contain this text reports success and does nothing, as some disks do; this
//                 verifies that the tests detect the data that a power failure then loses
//   FAULT_LOG     calls are appended to FAULT_LOG.RANK: "pid N" first, then a line for each call, when it has returned
//                 or the fault begins: mark, name, result (or the action), path, second path. The mark is "!" if the
//                 fault was injected, else "-"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXT4_IOC_SHUTDOWN _IOR('X', 125, unsigned int)
#define NO_LOG_FLUSH 2

static char folder[PATH_MAX], except[PATH_MAX];
static const char *action = "", *lie, *call_pattern, *file_patterns = "*", *other_pattern, *wait_until, *once;
static long fault_at = 1, fault_times = 1;
static double delay_seconds;
static int log_file = -1, is_chosen_rank;
static atomic_long matches;
static atomic_long clock_offset;

__attribute__((constructor)) static void prepare(void) {
    const char *path = getenv("FAULT_PATH"), *other = getenv("FAULT_EXCEPT"), *log = getenv("FAULT_LOG"), *text;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!rank) rank = "alone";
    if (path) snprintf(folder, sizeof folder, "%s", path);
    if (other) snprintf(except, sizeof except, "%s", other);
    if ((text = getenv("FAULT_ACTION"))) action = text;
    if ((text = getenv("FAULT_CALL")) && text[0]) call_pattern = text;
    if ((text = getenv("FAULT_FILE")) && text[0]) file_patterns = text;
    if ((text = getenv("FAULT_TO")) && text[0]) other_pattern = text;
    if ((text = getenv("FAULT_AT"))) fault_at = atol(text);
    if ((text = getenv("FAULT_TIMES"))) fault_times = atol(text);
    if ((text = getenv("FAULT_SECONDS"))) delay_seconds = atof(text);
    if ((text = getenv("FAULT_UNTIL")) && text[0]) wait_until = text;
    if ((text = getenv("FAULT_ONCE")) && text[0]) once = text;
    if ((text = getenv("FAULT_LIE")) && text[0]) lie = text;
    is_chosen_rank = (text = getenv("FAULT_RANK")) && (!strcmp(text, rank) || !strcmp(text, "all"));
    if (!log) return;
    char name[PATH_MAX], line[32];
    snprintf(name, sizeof name, "%s.%s", log, rank);
    log_file = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int length = snprintf(line, sizeof line, "pid %d\n", (int)getpid());
    syscall(SYS_write, log_file, line, length);
}

// --- Selection of the calls to log and of the call with the fault ------------------------------------------

struct call {
    const char *name;
    int is_inside, is_hit, does_fail, is_short;
    char path[PATH_MAX], other[PATH_MAX];
};

// The absolute path of a descriptor (if `path` is NULL), or of a path relative to a folder's descriptor.
static void resolve(char *result, int descriptor, const char *path) {
    result[0] = 0;
    if (path && path[0] == '/') {
        snprintf(result, PATH_MAX, "%s", path);
        return;
    }
    char link[64];
    if (descriptor == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, result, PATH_MAX - 1);
    if (length < 0) length = 0;
    result[length] = 0;
    if (path) snprintf(result + length, PATH_MAX - length, "/%s", path);
}

static int is_below(const char *path, const char *top) {
    size_t length = strlen(top);
    return length > 0 && !strncmp(path, top, length) && (path[length] == 0 || path[length] == '/');
}

static int is_inside(const char *path) { return is_below(path, folder) && !is_below(path, except); }

static void note(const struct call *call, const char *result) {
    if (log_file < 0) return;
    char line[2 * PATH_MAX + 128];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%s\t%s\n", call->is_hit ? "!" : "-", call->name, result,
        call->path, call->other);
    syscall(SYS_write, log_file, line, length);
}

// The part of a path below FAULT_PATH; "." for the folder itself.
static const char *relative(const char *path) {
    if (!is_below(path, folder)) return path;
    path += strlen(folder);
    return *path == '/' ? path + 1 : ".";
}

// Whether a path matches one of the patterns, which are separated by line feeds.
static int matches_any(const char *patterns, const char *path) {
    char pattern[PATH_MAX];
    while (*patterns) {
        size_t length = strcspn(patterns, "\n");
        snprintf(pattern, sizeof pattern, "%.*s", (int)length, patterns);
        if (fnmatch(pattern, path, FNM_EXTMATCH) == 0) return 1;
        patterns += length + (patterns[length] == '\n');
    }
    return 0;
}

static int is_addressed(const struct call *call) {
    return call_pattern && fnmatch(call_pattern, call->name, FNM_EXTMATCH) == 0
        && matches_any(file_patterns, relative(call->path))
        && (!other_pattern || fnmatch(other_pattern, relative(call->other), FNM_EXTMATCH) == 0);
}

// Whether this process is the one that has the fault according to FAULT_ONCE.
static int is_first_process(void) {
    static atomic_int state;  // 0 unknown, 1 this process, 2 another process
    if (!once) return 1;
    if (state == 0) {
        int file = (int)syscall(SYS_openat, AT_FDCWD, once, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (file >= 0) syscall(SYS_close, file);
        int unknown = 0;
        atomic_compare_exchange_strong(&state, &unknown, file >= 0 ? 1 : 2);
    }
    return state == 1;
}

// --- The faults -------------------------------------------------------------------------------------------

static int error_number(void) {
    static const struct {
        const char *name;
        int number;
    } errors[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"ESTALE", ESTALE}, {"EROFS", EROFS},
        {"EMFILE", EMFILE}};
    for (size_t index = 0; index < sizeof errors / sizeof errors[0]; index++) {
        if (!strcmp(action, errors[index].name)) return errors[index].number;
    }
    return 0;
}

static void pause_for(double seconds) {
    struct timespec rest = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) continue;
}

static void end_process(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static void inject(struct call *call) {
    if (error_number()) {
        call->does_fail = 1;
        return;
    }
    int writes = strstr(call->name, "write") != NULL;
    if (writes && (!strcmp(action, "short") || !strcmp(action, "torn"))) {
        call->is_short = 1;
        return;
    }
    note(call, action);
    if (!strcmp(action, "delay")) pause_for(delay_seconds);
    while (!strcmp(action, "wait") && wait_until && syscall(SYS_faccessat, AT_FDCWD, wait_until, F_OK) != 0) {
        pause_for(0.01);
    }
    if (!strcmp(action, "kill") || !strcmp(action, "torn")) end_process();
    if (!strcmp(action, "stop")) syscall(SYS_kill, getpid(), SIGSTOP);
    if (!strcmp(action, "parent")) syscall(SYS_kill, getppid(), SIGKILL);
    if (!strcmp(action, "clock")) clock_offset = -3600;
    if (!strcmp(action, "readonly") && mount(NULL, folder, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0) {
        note(call, "remount failed");
    }
    if (!strcmp(action, "powercut")) {
        unsigned int flag = NO_LOG_FLUSH;
        int file = (int)syscall(SYS_openat, AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
        if (syscall(SYS_ioctl, file, EXT4_IOC_SHUTDOWN, &flag) != 0) note(call, "shutdown failed");
        end_process();
    }
}

static void enter(struct call *call, const char *name, int descriptor, const char *path, int other_descriptor,
    const char *other) {
    int saved = errno;
    *call = (struct call){.name = name};
    if (!folder[0]) return;
    resolve(call->path, descriptor, path);
    if (other) resolve(call->other, other_descriptor, other);
    call->is_inside = is_inside(call->path) || (other && is_inside(call->other));
    if (is_chosen_rank && call->is_inside && is_addressed(call) && is_first_process()) {
        long number = ++matches;
        call->is_hit = number >= fault_at && (fault_times == 0 || number < fault_at + fault_times);
        if (call->is_hit) inject(call);
    }
    errno = saved;
}

static long leave(struct call *call, long result) {
    if (!call->is_inside) return result;
    int saved = errno;
    char text[32];
    if (result < 0) snprintf(text, sizeof text, "%s%s", call->does_fail ? "injected " : "", strerrorname_np(saved));
    else snprintf(text, sizeof text, "%s%ld", call->is_short ? "short " : "", result);
    note(call, text);
    if (call->is_short && !strcmp(action, "torn")) end_process();
    errno = saved;
    return result;
}

static long refuse(void) {
    errno = error_number();
    return -1;
}

// --- The calls --------------------------------------------------------------------------------------------

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))
#define SLOT(name) static void *_Atomic real_##name;
static void *real(void *_Atomic *slot, const char *name) {
    if (!*slot) *slot = dlsym(RTLD_NEXT, name);
    return *slot;
}

// Defines a call with fixed arguments: result type, name, parameters, descriptor and path of the file, the same of the
// second file, and the arguments to forward.
#define DEFINE(type, name, parameters, descriptor, path, other_descriptor, other, arguments)           \
    SLOT(name)                                                                                         \
    type name parameters {                                                                             \
        struct call call;                                                                              \
        enter(&call, #name, descriptor, path, other_descriptor, other);                                \
        return (type)leave(&call, call.does_fail ? refuse() : (long)REAL(name) arguments);             \
    }

#define DEFINE_OPEN(name, parameters, descriptor, path, ...)                                           \
    SLOT(name)                                                                                         \
    int name parameters {                                                                              \
        mode_t mode = 0;                                                                               \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                                         \
            va_list rest;                                                                              \
            va_start(rest, flags);                                                                     \
            mode = va_arg(rest, mode_t);                                                               \
            va_end(rest);                                                                              \
        }                                                                                              \
        struct call call;                                                                              \
        enter(&call, (flags & (O_CREAT | O_WRONLY | O_RDWR)) ? "open" : "open-read", descriptor, path, \
            0, NULL);                                                                                  \
        return (int)leave(&call, call.does_fail ? refuse() : REAL(name)(__VA_ARGS__, flags, mode));    \
    }

// A write can be cut to half its size.
#define DEFINE_WRITE(name, parameters, ...)                                                            \
    SLOT(name)                                                                                         \
    ssize_t name parameters {                                                                          \
        struct call call;                                                                              \
        enter(&call, #name, file, NULL, 0, NULL);                                                      \
        if (call.is_short) size = (size + 1) / 2;                                                      \
        return leave(&call, call.does_fail ? refuse() : REAL(name)(__VA_ARGS__));                      \
    }

// A gathered write can be cut to its first part or, if it has only one, to half of that.
#define DEFINE_WRITEV(name, parameters, ...)                                                           \
    SLOT(name)                                                                                         \
    ssize_t name parameters {                                                                          \
        struct call call;                                                                              \
        enter(&call, #name, file, NULL, 0, NULL);                                                      \
        struct iovec half;                                                                             \
        if (call.is_short && count > 0) {                                                              \
            half = parts[0];                                                                           \
            if (count == 1) half.iov_len = (half.iov_len + 1) / 2;                                     \
            parts = &half;                                                                             \
            count = 1;                                                                                 \
        }                                                                                              \
        return leave(&call, call.does_fail ? refuse() : REAL(name)(__VA_ARGS__));                      \
    }

DEFINE_OPEN(open, (const char *path, int flags, ...), AT_FDCWD, path, path)
DEFINE_OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, path, path)
DEFINE_OPEN(openat, (int at, const char *path, int flags, ...), at, path, at, path)
DEFINE_OPEN(openat64, (int at, const char *path, int flags, ...), at, path, at, path)
DEFINE(int, creat, (const char *path, mode_t mode), AT_FDCWD, path, 0, NULL, (path, mode))
DEFINE(int, creat64, (const char *path, mode_t mode), AT_FDCWD, path, 0, NULL, (path, mode))

DEFINE_WRITE(write, (int file, const void *bytes, size_t size), file, bytes, size)
DEFINE_WRITE(pwrite, (int file, const void *bytes, size_t size, off_t at), file, bytes, size, at)
DEFINE_WRITE(pwrite64, (int file, const void *bytes, size_t size, off64_t at), file, bytes, size, at)
DEFINE_WRITEV(writev, (int file, const struct iovec *parts, int count), file, parts, count)
DEFINE_WRITEV(pwritev, (int file, const struct iovec *parts, int count, off_t at), file, parts, count, at)
DEFINE_WRITEV(pwritev64, (int file, const struct iovec *parts, int count, off64_t at), file, parts, count, at)

DEFINE(ssize_t, read, (int file, void *bytes, size_t size), file, NULL, 0, NULL, (file, bytes, size))
DEFINE(ssize_t, pread, (int file, void *bytes, size_t size, off_t at), file, NULL, 0, NULL, (file, bytes, size, at))
DEFINE(ssize_t, pread64, (int file, void *bytes, size_t size, off64_t at), file, NULL, 0, NULL,
    (file, bytes, size, at))

#define DEFINE_SYNC(name)                                                                              \
    SLOT(name)                                                                                         \
    int name(int file) {                                                                               \
        struct call call;                                                                              \
        enter(&call, #name, file, NULL, 0, NULL);                                                      \
        int is_lie = lie && strstr(call.path, lie);                                                    \
        return (int)leave(&call, call.does_fail ? refuse() : is_lie ? 0 : REAL(name)(file));           \
    }
DEFINE_SYNC(fsync)
DEFINE_SYNC(fdatasync)

DEFINE(int, ftruncate, (int file, off_t size), file, NULL, 0, NULL, (file, size))
DEFINE(int, ftruncate64, (int file, off64_t size), file, NULL, 0, NULL, (file, size))
DEFINE(int, fallocate, (int file, int mode, off_t at, off_t size), file, NULL, 0, NULL, (file, mode, at, size))

DEFINE(int, mkdir, (const char *path, mode_t mode), AT_FDCWD, path, 0, NULL, (path, mode))
DEFINE(int, mkdirat, (int at, const char *path, mode_t mode), at, path, 0, NULL, (at, path, mode))
DEFINE(int, rename, (const char *from, const char *to), AT_FDCWD, from, AT_FDCWD, to, (from, to))
DEFINE(int, renameat, (int at, const char *from, int other, const char *to), at, from, other, to,
    (at, from, other, to))
DEFINE(int, renameat2, (int at, const char *from, int other, const char *to, unsigned int flags), at, from, other, to,
    (at, from, other, to, flags))
DEFINE(int, link, (const char *from, const char *to), AT_FDCWD, from, AT_FDCWD, to, (from, to))
DEFINE(int, symlink, (const char *from, const char *to), AT_FDCWD, to, 0, NULL, (from, to))
DEFINE(int, unlink, (const char *path), AT_FDCWD, path, 0, NULL, (path))
DEFINE(int, unlinkat, (int at, const char *path, int flags), at, path, 0, NULL, (at, path, flags))
DEFINE(int, rmdir, (const char *path), AT_FDCWD, path, 0, NULL, (path))
DEFINE(int, remove, (const char *path), AT_FDCWD, path, 0, NULL, (path))

// posix_fallocate returns the error number instead of setting errno.
SLOT(posix_fallocate)
int posix_fallocate(int file, off_t at, off_t size) {
    struct call call;
    enter(&call, "posix_fallocate", file, NULL, 0, NULL);
    int error = call.does_fail ? error_number() : REAL(posix_fallocate)(file, at, size);
    errno = error;
    leave(&call, -(error != 0));
    return error;
}

// A close that fails has closed the file anyway.
SLOT(close)
int close(int file) {
    struct call call;
    enter(&call, "close", file, NULL, 0, NULL);
    int result = REAL(close)(file);
    return (int)leave(&call, call.does_fail ? refuse() : result);
}

// Streams write through libc's internal calls, which cannot be interposed; faults are injected when they are opened and
// closed.
SLOT(fopen)
static FILE *open_stream(void *_Atomic *slot, const char *name, const char *path, const char *mode) {
    struct call call;
    enter(&call, mode[0] == 'r' && !strchr(mode, '+') ? "open-read" : "open", AT_FDCWD, path, 0, NULL);
    FILE *(*function)(const char *, const char *) = (FILE * (*)(const char *, const char *)) real(slot, name);
    FILE *result = call.does_fail ? NULL : function(path, mode);
    if (call.does_fail) errno = error_number();
    leave(&call, result ? 0 : -1);
    return result;
}
FILE *fopen(const char *path, const char *mode) { return open_stream(&real_fopen, "fopen", path, mode); }
SLOT(fopen64)
FILE *fopen64(const char *path, const char *mode) { return open_stream(&real_fopen64, "fopen64", path, mode); }

// Logged as "write", because fclose writes the buffered data.
SLOT(fclose)
int fclose(FILE *file) {
    struct call call;
    enter(&call, "write", fileno(file), NULL, 0, NULL);
    int result = REAL(fclose)(file);
    return (int)leave(&call, call.does_fail ? refuse() : result);
}

// --- The clock --------------------------------------------------------------------------------------------

SLOT(clock_gettime)
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += clock_offset;
    return result;
}

SLOT(gettimeofday)
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = REAL(gettimeofday)(now, zone);
    if (result == 0) now->tv_sec += clock_offset;
    return result;
}

SLOT(time)
time_t time(time_t *result) {
    time_t now = REAL(time)(NULL) + clock_offset;
    if (result) *result = now;
    return now;
}
