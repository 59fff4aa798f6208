// A cable with latency and loss, for kernels without netem: two tap devices in one process.
//
//     delay NEAR FAR DELAY_US LOSS_PPM
//
// A frame that arrives on NEAR is sent to FAR after DELAY_US microseconds, or dropped with a probability of LOSS_PPM in
// a million. Frames from FAR to NEAR are forwarded immediately: like netem on a host's interface, the line delays what
// the host sends. Frames are never reordered. Both taps are removed when the process ends.
//
// TCP passes segments of up to 64 KiB (TUNSETOFFLOAD), which makes gigabit rates cheap. With loss this is disabled,
// since one loss would then drop 44 packets: frames are cut to 1,514 bytes before they reach the line.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    largestFrame = 1 << 17,         // a 64 KiB segment, its headers and the virtio header, with a margin
    framesInOneGo = 64,             // prevents one direction from starving the other
    largestBacklog = 256 * 1024 * 1024,  // bytes in flight: 2 s at 1 Gbit/s; frames beyond this are dropped
};

struct Frame {
    struct Frame *next;
    int64_t due;  // ns, monotonic
    size_t length;
    unsigned char bytes[];
};

struct Line {
    int from, to;
    int64_t delay;      // ns
    uint32_t lossPPM;
    struct Frame *head, *tail;
    size_t backlog;     // bytes
};

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("delay: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int openTap(const char *name, int segments) {
    int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap < 0) fail("cannot open /dev/net/tun: %s; the kernel needs the tun driver (modprobe tun)", strerror(errno));
    struct ifreq request = {0};
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(tap, TUNSETIFF, &request) != 0) fail("cannot make tap %s: %s", name, strerror(errno));
    unsigned long offload = TUN_F_CSUM | (segments ? TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0);
    if (ioctl(tap, TUNSETOFFLOAD, offload) != 0) fail("cannot set the offloads of %s: %s", name, strerror(errno));
    return tap;
}

/// xorshift64*, with a fixed seed, so that the losses are reproducible.
static uint64_t randomState = 0x9E3779B97F4A7C15u;
static int isLost(uint32_t lossPPM) {
    if (lossPPM == 0) return 0;
    randomState ^= randomState >> 12;
    randomState ^= randomState << 25;
    randomState ^= randomState >> 27;
    return (randomState * 0x2545F4914F6CDD1Du >> 33) % 1000000 < lossPPM;
}

static void take(struct Line *line) {
    static unsigned char buffer[largestFrame];
    for (int i = 0; i < framesInOneGo; i++) {
        ssize_t length = read(line->from, buffer, sizeof buffer);
        if (length <= 0) return;  // EAGAIN: nothing more; EIO: the tap is not up yet
        if (isLost(line->lossPPM) || line->backlog + (size_t)length > largestBacklog) continue;
        struct Frame *frame = malloc(sizeof *frame + (size_t)length);
        if (frame == NULL) continue;
        frame->next = NULL;
        frame->due = now() + line->delay;
        frame->length = (size_t)length;
        memcpy(frame->bytes, buffer, (size_t)length);
        if (line->tail) line->tail->next = frame; else line->head = frame;
        line->tail = frame;
        line->backlog += (size_t)length;
    }
}

static void giveWhatIsDue(struct Line *line) {
    while (line->head && line->head->due <= now()) {
        struct Frame *frame = line->head;
        line->head = frame->next;
        if (line->head == NULL) line->tail = NULL;
        line->backlog -= frame->length;
        // A tap rejects frames only while it is down; an unplugged cable would lose them too.
        ssize_t ignored = write(line->to, frame->bytes, frame->length);
        (void)ignored;
        free(frame);
    }
}

static uint32_t number(const char *text, const char *what) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || value > UINT32_MAX) fail("%s is '%s', expected a whole number", what, text);
    return (uint32_t)value;
}

int main(int count, char **arguments) {
    if (count != 5) fail("usage: delay NEAR FAR DELAY_US LOSS_PPM");
    uint32_t delay = number(arguments[3], "DELAY_US"), loss = number(arguments[4], "LOSS_PPM");
    int near = openTap(arguments[1], loss == 0), far = openTap(arguments[2], 1);
    struct Line lines[2] = {
        {.from = near, .to = far, .delay = (int64_t)delay * 1000, .lossPPM = loss},
        {.from = far, .to = near},
    };

    // Without real-time priority, ranks that spin on every core would add their time slices (milliseconds) to the
    // latency. If a container forbids it, the line still works, but less exactly.
    struct sched_param priority = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_RR, &priority) != 0) {
        fprintf(stderr, "delay: no real-time priority (%s): latencies will be longer on busy cores\n", strerror(errno));
    }
    prctl(PR_SET_TIMERSLACK, 1);
    // The taps exist now, so the process that started this one may continue and use them.
    if (daemon(0, 0) != 0) fail("cannot go to the background: %s", strerror(errno));

    for (;;) {
        struct pollfd ready[2] = {{.fd = near, .events = POLLIN}, {.fd = far, .events = POLLIN}};
        int64_t next = INT64_MAX;
        for (int i = 0; i < 2; i++) {
            if (lines[i].head && lines[i].head->due < next) next = lines[i].head->due;
        }
        struct timespec pause, *wait = NULL;
        if (next != INT64_MAX) {
            int64_t left = next - now();
            if (left < 0) left = 0;
            pause = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
            wait = &pause;
        }
        if (ppoll(ready, 2, wait, NULL) < 0 && errno != EINTR) fail("cannot wait for frames: %s", strerror(errno));
        for (int i = 0; i < 2; i++) {
            if (ready[i].revents & POLLIN) take(&lines[i]);
            giveWhatIsDue(&lines[i]);
        }
    }
}
