// delaylink: two network namespaces joined by a link with delay and loss, for kernels without netem.
//
//     delaylink [--rtt-ms N] [--loss-percent N] [--seed N]
//
// Owns both namespaces, a TUN device in each (10.77.0.1 in A, 10.77.0.2 in B, MTU 1500) and the packets on their way.
// Relies on /dev/net/tun and on namespaces; as an ordinary user it makes user namespaces too. Never touches an interface
// that it has not made. Everything is gone when stdin ends.
//
// stdout: `a PID b PID`, processes to enter the namespaces of. stdin: `cut` and `mend`, each answered with itself.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// 8,192 packets hold 40 ms of more than 200,000 packets/s.
enum { PACKETS = 8192, BYTES = 1600 };

typedef struct {
    int64_t due;
    int size;
    char bytes[BYTES];
} Packet;

typedef struct {
    int from, to;
    unsigned head, tail;
    Packet *packets;
} Way;

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void set_up(int control, const char *name, const char *address) {
    struct ifreq request = {0};
    strcpy(request.ifr_name, name);
    struct sockaddr_in *in = (void *)&request.ifr_addr;
    if (address) {
        in->sin_family = AF_INET;
        inet_pton(AF_INET, address, &in->sin_addr);
        if (ioctl(control, SIOCSIFADDR, &request))
            fail("address");
        inet_pton(AF_INET, "255.255.255.0", &in->sin_addr);
        if (ioctl(control, SIOCSIFNETMASK, &request))
            fail("netmask");
    }
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(control, SIOCSIFFLAGS, &request))
        fail("up");
}

// A process that holds a namespace; its TUN device comes back through the socket.
static pid_t namespace(const char *address, int *tun) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
        fail("socketpair");
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET))
            fail("unshare");
        int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK), any = socket(AF_INET, SOCK_DGRAM, 0);
        struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
        strcpy(request.ifr_name, "tun0");
        if (fd < 0 || any < 0 || ioctl(fd, TUNSETIFF, &request))
            fail("/dev/net/tun");
        set_up(any, "tun0", address);
        set_up(any, "lo", NULL);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        if (sendmsg(pair[1], &message, 0) < 0)
            fail("sendmsg");
        for (;;)
            pause();
    }
    close(pair[1]);
    if (recvmsg(pair[0], &message, 0) <= 0)
        exit(2);  // the child has said why
    memcpy(tun, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof *tun);
    close(pair[0]);
    return pid;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"rtt-ms", 1, 0, 'r'}, {"loss-percent", 1, 0, 'l'}, {"seed", 1, 0, 's'}, {0, 0, 0, 0}};
    double rtt_ms = 0, loss = 0;
    uint64_t random = 1;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'r': rtt_ms = atof(optarg); break;
        case 'l': loss = atof(optarg) / 100; break;
        case 's': random = strtoull(optarg, NULL, 10) | 1; break;
        default: return 64;
        }
    }
    int a, b, is_cut = 0;
    pid_t pid_a = namespace("10.77.0.1", &a), pid_b = namespace("10.77.0.2", &b);
    Way ways[2] = {{.from = a, .to = b}, {.from = b, .to = a}};
    for (int i = 0; i < 2; i++)
        if (!(ways[i].packets = malloc(PACKETS * sizeof(Packet))))
            fail("memory");
    prctl(PR_SET_TIMERSLACK, 1UL);
    printf("a %d b %d\n", pid_a, pid_b);
    fflush(stdout);
    for (;;) {
        struct pollfd fds[3] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        int64_t now = now_ns(), wait = 1000000000;
        for (int i = 0; i < 2; i++)
            if (ways[i].head != ways[i].tail && ways[i].packets[ways[i].head % PACKETS].due - now < wait)
                wait = ways[i].packets[ways[i].head % PACKETS].due - now;
        struct timespec timeout = {.tv_sec = 0, .tv_nsec = wait < 0 ? 0 : wait > 999999999 ? 999999999 : wait};
        if (ppoll(fds, 3, &timeout, NULL) < 0 && errno != EINTR)
            fail("poll");
        now = now_ns();
        for (int i = 0; i < 2; i++) {
            Way *way = &ways[i];
            while (way->tail - way->head < PACKETS) {
                Packet *packet = &way->packets[way->tail % PACKETS];
                packet->size = read(way->from, packet->bytes, BYTES);
                if (packet->size <= 0)
                    break;
                random ^= random << 13, random ^= random >> 7, random ^= random << 17;
                if (is_cut || (random >> 11) * 0x1p-53 < loss)
                    continue;
                packet->due = now + (int64_t)(rtt_ms / 2 * 1e6);
                way->tail++;
            }
            while (way->head != way->tail && way->packets[way->head % PACKETS].due <= now_ns()) {
                Packet *packet = &way->packets[way->head++ % PACKETS];
                if (!is_cut && write(way->to, packet->bytes, packet->size) < 0 && errno != EAGAIN && errno != EIO)
                    fail("write");
            }
        }
        if (fds[2].revents) {
            char line[64];
            ssize_t size = read(0, line, sizeof line - 1);
            if (size <= 0)
                break;
            line[size] = 0;
            is_cut = strncmp(line, "cut", 3) == 0;
            printf("%s\n", is_cut ? "cut" : "mend");
            fflush(stdout);
        }
    }
    kill(pid_a, SIGKILL);
    kill(pid_b, SIGKILL);
    return 0;
}
