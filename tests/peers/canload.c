// canload: loads CAN buses that a tunnel joins, and checks every frame that comes out.
//
//     canload [OPTIONS] BUS BUS...      frames go from the first bus to each other one; with --both also back
//     canload --watch BUS               prints each frame of one bus in hex, and sends those that come on stdin in hex
//
// Without --rate frames go as fast as the programs take them. With one they go at their times, and a program that is
// late loses what its socket cannot hold (`overflow`), unless --patient makes the bus wait for it. --hold waits for a
// line on stdin before it begins.
//
// Owns the frames, their pace and the verdict. A bus is a kernel interface, or, where FAKECAN_DIR is set, a socket in that
// folder which programs under fakecan.so connect to: canload then is the bus, and hands each program's frames to the
// others. Every frame follows from its number; from 8 data bytes on it carries number and time of sending, a shorter one
// the low bits of its number in its id. So loss, order, doubles and every byte are exact, and so is age: one process, one
// clock. Never changes what it received, never waits without an end.
//
// stdout: `listening`, `ready` (a frame came through each way), `go`, then one JSON object per direction.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/can.h>
#include <linux/can/raw.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BUSES = 9, CONNECTIONS = 16, MANY = 64, PROBE_ID = 0x7FF };
enum { CLASSIC, FD64, ZERO, MIXED };

typedef struct {
    struct canfd_frame frame;
    int size;
} Message;

typedef struct {
    const char *name;
    int listener;  // -1: a kernel interface
    int fds[CONNECTIONS];
    atomic_int count;
    pthread_mutex_t lock;
    atomic_uint probes;  // one bit for each bus that was heard
    atomic_ulong overflow;
} Bus;

// One direction: what was sent on one bus and came out of another.
typedef struct {
    int from, to;
    atomic_ulong sent, received;
    unsigned long next, lost, doubled, late, corrupt, old, stamps;
    double late_ms_max;
    uint32_t *ages;       // of each frame with a stamp, in 0.1 us
    unsigned char *seen;  // one for each number
    char bad[200];
} Flow;

static Bus buses[BUSES];
static int bus_count;
static Flow flows[2 * BUSES];
static int flow_count;
static int kind = CLASSIC, both, patient, hold, burst = 1;
static double rate, idle_ms = 1000, age_limit_ms = 1e9, ready_s = 20, seconds;
static unsigned long total;
static atomic_int stop, probing = 1;
static atomic_llong last_receipt;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static uint32_t stamp(void) { return (uint32_t)(now_ns() / 100); }

static void fail(const char *what) {
    perror(what);
    exit(2);
}

// Frame `number` of a flow, without its time of sending.
static Message make(int flow, unsigned long number) {
    Message m;
    memset(&m, 0, sizeof m);
    int shape = kind == CLASSIC ? 0 : kind == FD64 ? 4 : kind == ZERO ? 2 : (int)(number % 8);
    static const int lengths[8] = {8, 8, 0, 4, 64, 12, 3, 0};
    // A standard id has room for the marks of four buses.
    int extended = shape == 1 || shape == 4 || shape == 7 || bus_count > 4, remote = shape == 3 || shape == 7;
    int fd = shape == 4 || shape == 5;
    m.frame.can_id = extended ? (uint32_t)(flow + 1) << 24 | (number & 0xffffff) | CAN_EFF_FLAG
                              : (uint32_t)(flow & 3) << 9 | (number & 0x1ff);
    if (remote)
        m.frame.can_id |= CAN_RTR_FLAG;
    m.frame.len = lengths[shape];
    m.frame.flags = shape == 4 ? CANFD_BRS : 0;
    m.size = fd ? CANFD_MTU : CAN_MTU;
    if (!remote) {
        for (int i = 0; i < m.frame.len; i++)
            m.frame.data[i] = (unsigned char)(number * 31 + i + flow);
        if (m.frame.len >= 8) {
            uint32_t n = (uint32_t)number;
            memcpy(m.frame.data, &n, 4);
        }
    }
    return m;
}

static int has_stamp(const Message *m) { return m->frame.len >= 8 && !(m->frame.can_id & CAN_RTR_FLAG); }

static int flow_of(int from, int to) {
    for (int i = 0; i < flow_count; i++)
        if (flows[i].from == from && flows[i].to == to)
            return i;
    return -1;
}

// The flow's mark in a frame is the bus that it was sent on: frames of one bus reach several others.
static void check(int to, const Message *got) {
    uint32_t id = got->frame.can_id;
    if (id & CAN_ERR_FLAG)
        return;
    int extended = !!(id & CAN_EFF_FLAG);
    int from = extended ? (int)((id & CAN_EFF_MASK) >> 24) - 1 : (int)((id & CAN_SFF_MASK) >> 9);
    int index = flow_of(from, to);
    // A frame of no flow can only be told to be wrong where there is one flow that it should have been of.
    if (index < 0 && !(bus_count == 2 && (index = flow_of(1 - to, to)) >= 0))
        return;
    Flow *f = &flows[index];
    if (atomic_load(&probing))
        return;
    // The number: as many of its bits as the frame has, nearest to the one that is due.
    uint32_t bits = extended ? 24 : 9, low = id & (extended ? 0xffffff : 0x1ff);
    if (has_stamp(got)) {
        bits = 32;
        memcpy(&low, got->frame.data, 4);
    }
    int64_t distance = ((int64_t)low - (int64_t)f->next) & ((1LL << bits) - 1);
    if (distance >= 1LL << (bits - 1))
        distance -= 1LL << bits;
    int64_t number = (int64_t)f->next + distance;
    int good = number >= 0 && number < (int64_t)atomic_load(&f->sent) + MANY;
    Message want = make(f->from, good ? number : 0);
    uint32_t at = 0;
    if (good && has_stamp(&want) && has_stamp(got)) {
        memcpy(&at, got->frame.data + 4, 4);
        memcpy(want.frame.data + 4, &at, 4);
    }
    struct canfd_frame seen = got->frame;
    seen.flags &= ~0x04;  // FDF: newer kernels set it
    good = good && got->size == want.size && memcmp(&seen, &want.frame, got->size) == 0;
    if (!good) {
        if (f->corrupt++ == 0)
            snprintf(f->bad, sizeof f->bad, "id %08x size %d len %d flags %d where number %lu was due", id, got->size,
                     got->frame.len, got->frame.flags, f->next);
        return;
    }
    atomic_fetch_add(&f->received, 1);
    atomic_store(&last_receipt, now_ns());
    if (f->seen && (unsigned long)number < total) {
        if (f->seen[number]) {
            f->doubled++;
            atomic_fetch_sub(&f->received, 1);
        } else if (number < (int64_t)f->next) {
            f->late++;
            f->lost--;
        }
        f->seen[number] = 1;
    }
    if (number >= (int64_t)f->next) {
        f->lost += number - f->next;
        f->next = number + 1;
    }
    if (has_stamp(&want) && f->stamps < total) {
        uint32_t age = stamp() - at;
        f->ages[f->stamps++] = age;
        if (age / 1e4 > age_limit_ms)
            f->old++;
    }
}

// Sends to one connection; waits for room if `wait`, else a full one loses the frame, as a CAN socket's queue does.
static void put(Bus *bus, int fd, const Message *messages, int count, int wait) {
    struct mmsghdr headers[MANY];
    struct iovec parts[MANY];
    memset(headers, 0, sizeof headers);
    for (int i = 0; i < count; i++) {
        parts[i].iov_base = (void *)&messages[i].frame;
        parts[i].iov_len = messages[i].size;
        headers[i].msg_hdr.msg_iov = &parts[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    for (int done = 0; done < count;) {
        int n = sendmmsg(fd, headers + done, count - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            done += n;
        } else if ((errno == EAGAIN || errno == ENOBUFS) && (wait || bus->listener < 0)) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            if (errno == ENOBUFS)
                usleep(200);
            else
                poll(&room, 1, 100);
            if (atomic_load(&stop))
                return;
        } else if (errno == EAGAIN) {
            atomic_fetch_add(&bus->overflow, count - done);
            return;
        } else if (errno != EINTR) {
            return;  // gone; its reader notices
        }
    }
}

static void put_all(Bus *bus, int except, const Message *messages, int count, int wait) {
    pthread_mutex_lock(&bus->lock);
    for (int i = 0; i < atomic_load(&bus->count); i++)
        if (bus->fds[i] != except)
            put(bus, bus->fds[i], messages, count, wait);
    pthread_mutex_unlock(&bus->lock);
}

static void open_bus(Bus *bus) {
    const char *folder = getenv("FAKECAN_DIR");
    pthread_mutex_init(&bus->lock, NULL);
    bus->listener = -1;
    if (folder) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", folder, bus->name);
        unlink(address.sun_path);
        bus->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (bus->listener < 0 || bind(bus->listener, (void *)&address, sizeof address) || listen(bus->listener, 16))
            fail(address.sun_path);
        return;
    }
    int fd = socket(PF_CAN, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, CAN_RAW), on = 1, big = 64 << 20, small = 0;
    struct sockaddr_can address = {.can_family = AF_CAN, .can_ifindex = if_nametoindex(bus->name)};
    if (fd < 0 || !address.can_ifindex || setsockopt(fd, SOL_CAN_RAW, CAN_RAW_FD_FRAMES, &on, sizeof on) ||
        bind(fd, (void *)&address, sizeof address))
        fail(bus->name);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);  // the least: a full queue is then EAGAIN, not ENOBUFS
    setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
    bus->fds[0] = fd;
    atomic_store(&bus->count, 1);
}

static void remove_connection(Bus *bus, int index) {
    pthread_mutex_lock(&bus->lock);
    close(bus->fds[index]);
    int last = atomic_load(&bus->count) - 1;
    bus->fds[index] = bus->fds[last];
    atomic_store(&bus->count, last);
    pthread_mutex_unlock(&bus->lock);
}

static void take_new(Bus *bus) {
    int fd = accept4(bus->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    pthread_mutex_lock(&bus->lock);
    int count = atomic_load(&bus->count);
    if (count < CONNECTIONS) {
        bus->fds[count] = fd;
        atomic_store(&bus->count, count + 1);
    } else {
        close(fd);
    }
    pthread_mutex_unlock(&bus->lock);
}

static void handle(int to, const Message *m, int watch) {
    if (watch) {
        const unsigned char *bytes = (const void *)&m->frame;
        for (int i = 0; i < m->size; i++)
            printf("%02x", bytes[i]);
        printf("\n");
        fflush(stdout);
    } else if (m->frame.can_id == PROBE_ID && m->frame.len == 1) {
        atomic_fetch_or(&buses[to].probes, 1U << m->frame.data[0]);
    } else {
        check(to, m);
    }
}

// Reads one bus: every frame is checked (or printed), and goes to the bus's other programs.
static void *reader(void *argument) {
    int to = (int)(intptr_t)argument, watch = bus_count == 1;
    Bus *bus = &buses[to];
    Message messages[MANY];
    struct mmsghdr headers[MANY];
    struct iovec parts[MANY];
    while (!atomic_load(&stop)) {
        struct pollfd fds[CONNECTIONS + 1];
        int count = atomic_load(&bus->count);
        for (int i = 0; i < count; i++)
            fds[i] = (struct pollfd){.fd = bus->fds[i], .events = POLLIN};
        fds[count] = (struct pollfd){.fd = bus->listener, .events = POLLIN};
        if (poll(fds, count + 1, 50) <= 0)
            continue;
        for (int i = count - 1; i >= 0; i--) {
            if (!fds[i].revents)
                continue;
            memset(headers, 0, sizeof headers);
            memset(messages, 0, sizeof messages);
            for (int j = 0; j < MANY; j++) {
                parts[j] = (struct iovec){.iov_base = &messages[j].frame, .iov_len = CANFD_MTU};
                headers[j].msg_hdr.msg_iov = &parts[j];
                headers[j].msg_hdr.msg_iovlen = 1;
            }
            int n = recvmmsg(fds[i].fd, headers, MANY, MSG_DONTWAIT, NULL);
            if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENETDOWN))
                continue;
            if (n <= 0 || headers[0].msg_len == 0) {
                if (bus->listener >= 0)
                    remove_connection(bus, i);
                continue;
            }
            for (int j = 0; j < n && headers[j].msg_len > 0; j++) {
                messages[j].size = (int)headers[j].msg_len;
                handle(to, &messages[j], watch);
            }
            if (bus->listener >= 0 && count > 1)
                put_all(bus, fds[i].fd, messages, n, 0);
        }
        if (fds[count].revents)
            take_new(bus);
    }
    return NULL;
}

// Sends the frames of one bus at their times.
static void *sender(void *argument) {
    int from = (int)(intptr_t)argument;
    Bus *bus = &buses[from];
    Message messages[MANY];
    prctl(PR_SET_TIMERSLACK, 1UL);
    int64_t start = now_ns();
    int most = rate > 0 ? burst : MANY;
    for (unsigned long number = 0; number < total && !atomic_load(&stop);) {
        if (rate > 0) {
            int64_t at = start + (int64_t)(number / rate * 1e9);
            struct timespec t = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        }
        int count = 0;
        for (; count < most && number + count < total; count++) {
            messages[count] = make(from, number + count);
            if (has_stamp(&messages[count])) {
                uint32_t at = stamp();
                memcpy(messages[count].frame.data + 4, &at, 4);
            }
        }
        number += count;
        for (int i = 0; i < flow_count; i++)
            if (flows[i].from == from)
                atomic_fetch_add(&flows[i].sent, count);
        put_all(bus, -1, messages, count, patient || rate <= 0);
    }
    return NULL;
}

static int by_age(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double rank_us(const Flow *f, double part) {
    if (f->stamps == 0)
        return 0;
    unsigned long index = (unsigned long)(part * f->stamps);
    return f->ages[index < f->stamps ? index : f->stamps - 1] / 10.0;
}

static void report(Flow *f, double took_s) {
    unsigned long sent = atomic_load(&f->sent), received = atomic_load(&f->received);
    qsort(f->ages, f->stamps, sizeof *f->ages, by_age);
    printf("{\"from\":\"%s\",\"to\":\"%s\",\"sent\":%lu,\"received\":%lu,\"lost\":%lu,\"doubled\":%lu,\"late\":%lu,"
           "\"corrupt\":%lu,\"old\":%lu,\"overflow\":%lu,\"fps\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,"
           "\"p999_us\":%.1f,\"max_us\":%.1f,\"bad\":\"%s\"}\n",
           buses[f->from].name, buses[f->to].name, sent, received, sent - received, f->doubled, f->late, f->corrupt, f->old,
           atomic_load(&buses[f->from].overflow), received / took_s, rank_us(f, 0.5), rank_us(f, 0.9), rank_us(f, 0.99),
           rank_us(f, 0.999), rank_us(f, 1), f->bad);
}

static void on_signal(int number) {
    (void)number;
    atomic_store(&stop, 1);
}

static void watch(Bus *bus) {
    char line[4 * CANFD_MTU];
    while (fgets(line, sizeof line, stdin)) {
        Message m;
        memset(&m, 0, sizeof m);
        unsigned char *bytes = (void *)&m.frame;
        for (char *at = line; at[0] > ' ' && at[1] > ' ' && m.size < (int)CANFD_MTU; at += 2) {
            char two[3] = {at[0], at[1], 0};
            bytes[m.size++] = (unsigned char)strtoul(two, NULL, 16);
        }
        put_all(bus, -1, &m, 1, 0);
    }
}

static void wait_ready(void) {
    int64_t until = now_ns() + (int64_t)(ready_s * 1e9);
    for (;;) {
        int missing = 0;
        for (int i = 0; i < flow_count; i++)
            missing += !(atomic_load(&buses[flows[i].to].probes) & 1U << flows[i].from);
        if (!missing || atomic_load(&stop))
            break;
        if (now_ns() > until) {
            fprintf(stderr, "canload: nothing came through within %g s\n", ready_s);
            exit(3);
        }
        for (int from = 0; from < bus_count; from++) {
            Message probe;
            memset(&probe, 0, sizeof probe);
            probe.frame.can_id = PROBE_ID;
            probe.frame.len = 1;
            probe.frame.data[0] = (unsigned char)from;
            probe.size = CAN_MTU;
            if (from == 0 || both)
                put_all(&buses[from], -1, &probe, 1, 0);
        }
        usleep(20000);
    }
    usleep(200000);  // probes on their way
    atomic_store(&probing, 0);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"rate", 1, 0, 'r'},  {"count", 1, 0, 'n'}, {"kind", 1, 0, 'k'},  {"both", 0, 0, 'b'},      {"burst", 1, 0, 'u'},
        {"idle-ms", 1, 0, 'i'}, {"ready-s", 1, 0, 'y'}, {"age-limit-ms", 1, 0, 'a'}, {"watch", 0, 0, 'w'},
        {"seconds", 1, 0, 's'}, {"patient", 0, 0, 'p'}, {"hold", 0, 0, 'h'}, {0, 0, 0, 0}};
    static const char *kinds[] = {"classic", "fd64", "zero", "mixed"};
    int watching = 0;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'r': rate = atof(optarg); break;
        case 'n': total = strtoul(optarg, NULL, 10); break;
        case 'k':
            for (kind = 0; kind < 4 && strcmp(kinds[kind], optarg); kind++)
                ;
            break;
        case 'b': both = 1; break;
        case 'u': burst = atoi(optarg); break;
        case 'i': idle_ms = atof(optarg); break;
        case 'y': ready_s = atof(optarg); break;
        case 'a': age_limit_ms = atof(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'p': patient = 1; break;
        case 'h': hold = 1; break;
        case 'w': watching = 1; break;
        default: return 64;
        }
    }
    if (seconds > 0 && rate > 0)
        total = (unsigned long)(seconds * rate);
    bus_count = argc - optind;
    if (kind > MIXED || burst < 1 || burst > MANY || bus_count < (watching ? 1 : 2) || bus_count > BUSES ||
        (watching && bus_count != 1) || (!watching && total == 0)) {
        fprintf(stderr, "usage: canload [--rate N] [--count N | --seconds N] [--kind classic|fd64|zero|mixed] [--both] "
                        "[--burst N] [--patient] [--hold] [--idle-ms N] [--ready-s N] [--age-limit-ms N] BUS BUS... | "
                        "--watch BUS\n");
        return 64;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    signal(SIGPIPE, SIG_IGN);
    pthread_t readers[BUSES], senders[BUSES];
    for (int i = 0; i < bus_count; i++) {
        buses[i].name = argv[optind + i];
        open_bus(&buses[i]);
    }
    for (int i = 1; i < bus_count; i++) {
        flows[flow_count++] = (Flow){.from = 0, .to = i};
        if (both)
            flows[flow_count++] = (Flow){.from = i, .to = 0};
    }
    for (int i = 0; i < flow_count; i++) {
        flows[i].ages = malloc((total + 1) * sizeof(uint32_t));
        flows[i].seen = calloc(total + 1, 1);
        if (!flows[i].ages || !flows[i].seen)
            fail("memory");
    }
    for (intptr_t i = 0; i < bus_count; i++)
        pthread_create(&readers[i], NULL, reader, (void *)i);
    printf("listening\n");
    fflush(stdout);
    if (watching) {
        watch(&buses[0]);
        return 0;
    }
    wait_ready();
    printf("ready\n");
    fflush(stdout);
    char line[16];
    if (hold && !fgets(line, sizeof line, stdin))
        return 0;
    printf("go\n");
    fflush(stdout);
    int64_t start = now_ns();
    atomic_store(&last_receipt, start);
    for (intptr_t i = 0; i < bus_count; i++)
        if (i == 0 || both)
            pthread_create(&senders[i], NULL, sender, (void *)i);
    for (int i = 0; i < bus_count; i++)
        if (i == 0 || both)
            pthread_join(senders[i], NULL);
    int64_t sent_at = now_ns();
    for (;;) {
        int all = 1;
        for (int i = 0; i < flow_count; i++)
            all &= atomic_load(&flows[i].received) >= atomic_load(&flows[i].sent);
        int64_t last = atomic_load(&last_receipt);
        if (all || atomic_load(&stop) || now_ns() - (last > sent_at ? last : sent_at) > idle_ms * 1e6)
            break;
        usleep(2000);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < bus_count; i++)
        pthread_join(readers[i], NULL);
    double took_s = (atomic_load(&last_receipt) - start) / 1e9;
    for (int i = 0; i < flow_count; i++)
        report(&flows[i], took_s > 0 ? took_s : 1);
    return 0;
}
