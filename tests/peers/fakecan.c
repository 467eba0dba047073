/* Gives programs that speak SocketCAN a bus where the kernel has no CAN: a preload library.
 *
 * Owns the translation: a raw CAN socket becomes a local sequenced-packet socket, and binding it to an interface connects
 * it to the socket $FAKECAN_DIR/INTERFACE, where the test that plays the bus listens. Frames cross it as the kernel's own
 * 16 or 72 bytes. Relies on the program being linked dynamically. Every file in that folder is an interface, up, with
 * CAN FD. Never filters: id filters, error filters and own-message options are accepted and do nothing, the bus decides
 * what it sends.
 *
 * Build: cc -O2 -shared -fPIC -o fakecan.so fakecan.c -ldl      Use: LD_PRELOAD=fakecan.so FAKECAN_DIR=... program
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/can.h>
#include <linux/can/raw.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Interfaces of the machine have small numbers; ours begin here and are the name's hash. */
#define FIRST_INDEX 0x10000u
#define DESCRIPTORS 4096

/* Descriptors that a program takes for raw CAN sockets. */
static unsigned char is_can[DESCRIPTORS];

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

static int ours(int fd)
{
    return fd >= 0 && fd < DESCRIPTORS && is_can[fd];
}

static int path_of(const char *name, char *path, size_t size)
{
    const char *folder = getenv("FAKECAN_DIR");
    if (!folder || !*name || strchr(name, '/'))
        return 0;
    return (size_t)snprintf(path, size, "%s/%s", folder, name) < size && access(path, F_OK) == 0;
}

static unsigned index_of(const char *name)
{
    char path[108];
    unsigned hash = 5381;
    if (!path_of(name, path, sizeof path))
        return 0;
    for (; *name; name++)
        hash = hash * 33 + (unsigned char)*name;
    return FIRST_INDEX + (hash & 0xFFFFFF);
}

/* The interface with this number. */
static int name_of(unsigned index, char *name)
{
    const char *folder = getenv("FAKECAN_DIR");
    DIR *list = folder ? opendir(folder) : NULL;
    struct dirent *entry;
    int found = 0;
    while (list && !found && (entry = readdir(list)))
        if (entry->d_name[0] != '.' && strlen(entry->d_name) < IFNAMSIZ && index_of(entry->d_name) == index) {
            strcpy(name, entry->d_name);
            found = 1;
        }
    if (list)
        closedir(list);
    return found;
}

int socket(int domain, int type, int protocol)
{
    int fd;
    if (domain != PF_CAN)
        return REAL(socket)(domain, type, protocol);
    fd = REAL(socket)(AF_UNIX, SOCK_SEQPACKET | (type & (SOCK_NONBLOCK | SOCK_CLOEXEC)), 0);
    if (fd >= 0 && fd < DESCRIPTORS)
        is_can[fd] = 1;
    return fd;
}

int close(int fd)
{
    if (ours(fd))
        is_can[fd] = 0;
    return REAL(close)(fd);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_un bus = {.sun_family = AF_UNIX};
    char name[IFNAMSIZ];
    if (!ours(fd))
        return REAL(bind)(fd, address, length);
    if (!name_of((unsigned)((const struct sockaddr_can *)address)->can_ifindex, name) ||
        !path_of(name, bus.sun_path, sizeof bus.sun_path)) {
        errno = ENODEV;
        return -1;
    }
    return REAL(connect)(fd, (struct sockaddr *)&bus, sizeof bus);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    if (!ours(fd))
        return REAL(getsockname)(fd, address, length);
    memset(address, 0, *length);
    address->sa_family = AF_CAN;
    *length = sizeof(struct sockaddr_can);
    return 0;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
    if (ours(fd) && level == SOL_CAN_RAW)
        return 0;
    /* Local sockets count no overflow and have no queueing priority. */
    if (ours(fd) && level == SOL_SOCKET && (option == SO_RXQ_OVFL || option == SO_PRIORITY))
        return 0;
    return REAL(setsockopt)(fd, level, option, value, length);
}

unsigned if_nametoindex(const char *name)
{
    unsigned index = index_of(name);
    return index ? index : REAL(if_nametoindex)(name);
}

char *if_indextoname(unsigned index, char name[IFNAMSIZ])
{
    return index >= FIRST_INDEX && name_of(index, name) ? name : REAL(if_indextoname)(index, name);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    struct ifreq *interface;
    char name[IFNAMSIZ + 1] = {0};
    va_start(list, request);
    interface = va_arg(list, struct ifreq *);
    va_end(list);
    switch (request) {
    case SIOCGIFNAME:
        if (name_of((unsigned)interface->ifr_ifindex, interface->ifr_name))
            return 0;
        break;
    case SIOCGIFINDEX:
    case SIOCGIFMTU:
    case SIOCGIFFLAGS:
    case SIOCGIFTXQLEN:
    case SIOCETHTOOL:
        memcpy(name, interface->ifr_name, IFNAMSIZ);
        if (!index_of(name))
            break;
        if (request == SIOCGIFINDEX)
            interface->ifr_ifindex = (int)index_of(name);
        else if (request == SIOCGIFMTU)
            interface->ifr_mtu = CANFD_MTU;
        else if (request == SIOCGIFFLAGS)
            interface->ifr_flags = IFF_UP | IFF_RUNNING;
        else if (request == SIOCGIFTXQLEN)
            interface->ifr_qlen = 10;
        else
            strcpy(((struct ethtool_drvinfo *)interface->ifr_data)->driver, "vcan");
        return 0;
    }
    return REAL(ioctl)(fd, request, interface);
}
