// fakecan: gives PF_CAN programs local sockets, for machines whose kernel has no CAN. Loaded with LD_PRELOAD; the
// programs stay as they are.
//
// Owns the translation: socket(PF_CAN, SOCK_RAW, CAN_RAW) becomes a Unix SOCK_SEQPACKET socket, and bind() to interface
// NAME connects it to $FAKECAN_DIR/NAME, where canload (canload.c) is the bus. All else (recv, recvmmsg, select, poll,
// epoll) is the kernel's own. Relies on glibc's dlsym. Never changes a byte of a frame.
//
// As the kernel does: a message that is no CAN frame is refused with EINVAL. Unlike it: filters are accepted and not
// applied; a program does not hear its own frames even if it asks; SO_SNDBUF is accepted and not applied, because a
// vcan interface empties a send buffer at once and a Unix socket does not; no interface ever goes down.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/can.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SOL_CAN_RAW
#define SOL_CAN_RAW 101
#endif

enum { DESCRIPTORS = 4096, INTERFACES = 64, FIRST_INDEX = 1000 };

static char is_can[DESCRIPTORS];
static char names[INTERFACES][IFNAMSIZ];
static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;

// The next definition of a function behind this library's.
#define NEXT(result, name, ...)                                      \
    static result (*next_##name)(__VA_ARGS__);                       \
    static void find_##name(void) {                                  \
        if (!next_##name)                                            \
            next_##name = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name); \
    }

NEXT(int, socket, int, int, int)
NEXT(int, bind, int, const struct sockaddr *, socklen_t)
NEXT(int, close, int)
NEXT(int, setsockopt, int, int, int, const void *, socklen_t)
NEXT(int, getsockopt, int, int, int, void *, socklen_t *)
NEXT(int, ioctl, int, unsigned long, void *)
NEXT(unsigned, if_nametoindex, const char *)
NEXT(char *, if_indextoname, unsigned, char *)
NEXT(ssize_t, send, int, const void *, size_t, int)
NEXT(ssize_t, write, int, const void *, size_t)
NEXT(int, sendmmsg, int, struct mmsghdr *, unsigned, int)

static int is_ours(int fd) { return fd >= 0 && fd < DESCRIPTORS && is_can[fd]; }

// The socket path of an interface; 0 where there is none.
static int path_of(const char *name, char *path, size_t room) {
    const char *folder = getenv("FAKECAN_DIR");
    struct stat found;
    if (!folder || !*name || strchr(name, '/') || strnlen(name, IFNAMSIZ) >= IFNAMSIZ)
        return 0;
    return snprintf(path, room, "%s/%s", folder, name) < (int)room && stat(path, &found) == 0 &&
           S_ISSOCK(found.st_mode);
}

// Index of an interface, the same for the life of the process; 0 where there is none.
static unsigned index_of(const char *name) {
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    unsigned index = 0;
    if (!path_of(name, path, sizeof path))
        return 0;
    pthread_mutex_lock(&names_lock);
    for (int i = 0; i < INTERFACES && !index; i++) {
        if (!names[i][0])
            strcpy(names[i], name);
        if (strcmp(names[i], name) == 0)
            index = FIRST_INDEX + i;
    }
    pthread_mutex_unlock(&names_lock);
    return index;
}

static const char *name_of(unsigned index) {
    unsigned i = index - FIRST_INDEX;
    return i < INTERFACES && names[i][0] ? names[i] : NULL;
}

// What the kernel's CAN_RAW accepts: one whole frame with a possible length.
static int is_frame(const void *bytes, size_t size) {
    const unsigned char *frame = bytes;
    return (size == CAN_MTU && frame[4] <= CAN_MAX_DLEN) || (size == CANFD_MTU && frame[4] <= CANFD_MAX_DLEN);
}

int socket(int domain, int type, int protocol) {
    find_socket();
    int can = domain == PF_CAN && (type & 0xf) == SOCK_RAW && protocol == CAN_RAW && getenv("FAKECAN_DIR");
    int fd = can ? next_socket(AF_UNIX, SOCK_SEQPACKET | (type & ~0xf), 0) : next_socket(domain, type, protocol);
    if (fd >= 0 && fd < DESCRIPTORS)
        is_can[fd] = can;
    return fd;
}

int bind(int fd, const struct sockaddr *address, socklen_t size) {
    find_bind();
    if (!is_ours(fd) || address->sa_family != AF_CAN)
        return next_bind(fd, address, size);
    struct sockaddr_un bus = {.sun_family = AF_UNIX};
    const char *name = name_of(((const struct sockaddr_can *)address)->can_ifindex);
    if (!name || !path_of(name, bus.sun_path, sizeof bus.sun_path)) {
        errno = ENODEV;
        return -1;
    }
    return connect(fd, (struct sockaddr *)&bus, sizeof bus);
}

int close(int fd) {
    find_close();
    if (fd >= 0 && fd < DESCRIPTORS)
        is_can[fd] = 0;
    return next_close(fd);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t size) {
    find_setsockopt();
    if (is_ours(fd) && (level == SOL_CAN_RAW || (level == SOL_SOCKET && option == SO_SNDBUF)))
        return 0;
    return next_setsockopt(fd, level, option, value, size);
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *size) {
    find_getsockopt();
    if (is_ours(fd) && level == SOL_CAN_RAW) {
        memset(value, 0, *size);
        return 0;
    }
    return next_getsockopt(fd, level, option, value, size);
}

unsigned if_nametoindex(const char *name) {
    find_if_nametoindex();
    unsigned index = index_of(name);
    return index ? index : next_if_nametoindex(name);
}

char *if_indextoname(unsigned index, char name[IF_NAMESIZE]) {
    find_if_indextoname();
    const char *known = name_of(index);
    return known ? strcpy(name, known) : next_if_indextoname(index, name);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    find_ioctl();
    struct ifreq *ask = argument;
    if (request == SIOCGIFNAME) {
        const char *name = name_of(ask->ifr_ifindex);
        if (name) {
            strcpy(ask->ifr_name, name);
            return 0;
        }
    }
    if (request != SIOCGIFINDEX && request != SIOCGIFMTU && request != SIOCGIFFLAGS && request != SIOCGIFTXQLEN &&
        request != SIOCETHTOOL)
        return next_ioctl(fd, request, argument);
    unsigned index = index_of(ask->ifr_name);
    if (!index)
        return next_ioctl(fd, request, argument);
    if (request == SIOCGIFINDEX)
        ask->ifr_ifindex = index;
    else if (request == SIOCGIFMTU)
        ask->ifr_mtu = CANFD_MTU;
    else if (request == SIOCGIFFLAGS)
        ask->ifr_flags = IFF_UP | IFF_RUNNING;
    else if (request == SIOCGIFTXQLEN)
        ask->ifr_qlen = 10;
    else {
        struct ethtool_drvinfo *driver = (void *)ask->ifr_data;
        if (driver->cmd != ETHTOOL_GDRVINFO) {
            errno = EOPNOTSUPP;
            return -1;
        }
        strcpy(driver->driver, "vcan");
    }
    return 0;
}

ssize_t send(int fd, const void *bytes, size_t size, int flags) {
    find_send();
    if (is_ours(fd) && !is_frame(bytes, size)) {
        errno = EINVAL;
        return -1;
    }
    return next_send(fd, bytes, size, flags);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    find_write();
    if (is_ours(fd) && !is_frame(bytes, size)) {
        errno = EINVAL;
        return -1;
    }
    return next_write(fd, bytes, size);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    find_sendmmsg();
    unsigned good = 0;
    while (is_ours(fd) && good < count && messages[good].msg_hdr.msg_iovlen == 1 &&
           is_frame(messages[good].msg_hdr.msg_iov->iov_base, messages[good].msg_hdr.msg_iov->iov_len))
        good++;
    if (is_ours(fd) && good == 0 && count > 0) {
        errno = EINVAL;
        return -1;
    }
    return next_sendmmsg(fd, messages, is_ours(fd) ? good : count, flags);
}
