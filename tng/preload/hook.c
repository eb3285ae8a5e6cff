/* The calls of libc that this library stands in for.

   A connect() to a captured destination goes to the gateway's private proxy, which is told where it
   was meant to go; getpeername() tells the program what it asked for.  A bind() of a captured port is
   moved to a port of loopback, in front of which the gateway listens; getsockname() tells the old one.

   Every call here may be made from any thread, from a signal handler and after fork: after the
   mappings are read there are no locks, no allocations and no writes but atomic ones.  What is
   captured and cannot be led through the gateway fails; it never goes out directly. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mappings.h"
#include "proxy.h"

#define EXPORT __attribute__((visibility("default")))

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef MSG_FASTOPEN
#define MSG_FASTOPEN 0x20000000
#endif

static struct mappings mappings;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void refuse_to_run(const char *why)
{
    /* Without its mappings the program would speak in plain to whom it should not. */
    (void)!write(STDERR_FILENO, why, strlen(why));
    _exit(127);
}

static void prepare_once(void)
{
    int before = errno;
    if (!find_calls())
        refuse_to_run("libtng_hook: libc lacks a call that this library stands in for\n");
    if (!read_mappings(getenv("TNG_HOOK_INGRESS_MAPPINGS"), getenv("TNG_HOOK_EGRESS_MAPPINGS"),
                       &mappings))
        refuse_to_run("libtng_hook: TNG_HOOK_INGRESS_MAPPINGS or TNG_HOOK_EGRESS_MAPPINGS is not "
                      "what tng exec writes\n");
    errno = before;
}

/* Also at the head of each call: constructors of other libraries may come before ours. */
__attribute__((constructor)) static void prepare(void)
{
    pthread_once(&once, prepare_once);
}

static bool is_tcp(int fd)
{
    int type = 0, protocol = 0;
    socklen_t size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM)
        return false;
    size = sizeof protocol;
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0)
        return false;
    return protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
}

static bool is_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    return libc.getpeername(fd, (struct sockaddr *)&peer, &length) == 0;
}

/* Ask the routing table: on the way to an address of our own, that address is the source.  Where
   it cannot be asked, the address counts as remote, and is captured. */
static bool is_own_address(const struct endpoint *where)
{
    if (is_loopback(where))
        return true;
    sa_family_t family = is_ipv4(where) ? AF_INET : AF_INET6;
    int probe = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return false;
    struct sockaddr_storage address;
    socklen_t length = write_endpoint(where, family, &address);
    struct endpoint source;
    bool is_own = libc.connect(probe, (struct sockaddr *)&address, length) == 0;
    length = sizeof address;
    is_own = is_own && libc.getsockname(probe, (struct sockaddr *)&address, &length) == 0 &&
             read_endpoint((struct sockaddr *)&address, length, &source) &&
             IN6_ARE_ADDR_EQUAL(&source.address, &where->address);
    close(probe);
    return is_own;
}

static bool is_proxy(const struct endpoint *where)
{
    for (size_t i = 0; i < mappings.ingress_count; i++)
        if (where->port == mappings.ingresses[i].proxy_port && is_loopback(where))
            return true;
    return false;
}

static bool has_rule_for(const struct ingress *ingress, const struct endpoint *destination)
{
    for (size_t i = 0; i < ingress->rule_count; i++)
        if (rule_matches(&ingress->rules[i], destination))
            return true;
    return false;
}

static struct ingress *find_ingress(const struct endpoint *destination)
{
    if (is_proxy(destination))
        return NULL; /* a gateway below a gateway, or a loop */
    for (size_t i = 0; i < mappings.ingress_count; i++) {
        struct ingress *ingress = &mappings.ingresses[i];
        if (has_rule_for(ingress, destination) &&
            (ingress->captures_local || !is_own_address(destination)))
            return ingress;
    }
    return NULL;
}

/* Linux takes the unspecified address as loopback (connect to INADDR_ANY). */
static void name_loopback(struct endpoint *destination)
{
    static const unsigned char none[16];
    if (is_ipv4(destination) && memcmp(destination->address.s6_addr + 12, none, 4) == 0)
        *destination = loopback(destination->port, false);
    else if (memcmp(destination->address.s6_addr, none, sizeof none) == 0)
        *destination = loopback(destination->port, true);
}

/* The ingress that captures this connect(), if any. */
static struct ingress *captured(int fd, const struct sockaddr *address, socklen_t length,
                                struct endpoint *destination)
{
    int before = errno;
    struct ingress *found = NULL;
    if (mappings.ingress_count > 0 && read_endpoint(address, length, destination) && is_tcp(fd)) {
        name_loopback(destination);
        found = find_ingress(destination);
    }
    errno = before;
    return found;
}

static bool read_name(int fd, int (*call)(int, struct sockaddr *, socklen_t *),
                      struct endpoint *into, sa_family_t *family)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (call(fd, (struct sockaddr *)&address, &length) != 0)
        return false;
    *family = address.ss_family;
    return read_endpoint((struct sockaddr *)&address, length, into);
}

static int connect_captured(int fd, sa_family_t family, struct ingress *ingress,
                            const struct endpoint *destination)
{
    if (is_connected(fd)) {
        /* Asked again, as programs do to learn how it went: the system knows, 0 or EISCONN. */
        struct sockaddr_storage address;
        struct endpoint proxy = loopback(ingress->proxy_port, false);
        socklen_t length = write_endpoint(&proxy, family, &address);
        return libc.connect(fd, (struct sockaddr *)&address, length);
    }
    /* Who does not want to wait must not: the proxy takes the connection in silence, holds what
       comes until its verdict, and resets where the answer is no. */
    bool is_silent = ingress->may_be_silent && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
    int result = connect_through(fd, family, ingress->proxy_port, destination, is_silent);
    int after = errno;
    struct endpoint local;
    sa_family_t ignored;
    if ((result == 0 || after == EINPROGRESS) && read_name(fd, libc.getsockname, &local, &ignored))
        remember(&ingress->destinations[local.port], destination);
    errno = after;
    return result;
}

/* -- the calls ----------------------------------------------------------------------------- */

EXPORT int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    prepare();
    struct endpoint destination;
    struct ingress *ingress = captured(fd, address, length, &destination);
    if (ingress == NULL)
        return libc.connect(fd, address, length);
    return connect_captured(fd, address->sa_family, ingress, &destination);
}

/* Sending with MSG_FASTOPEN connects first (RFC 7413); false: it failed, errno says how. */
static bool connect_first(int fd, const struct sockaddr *address, struct ingress *ingress,
                          const struct endpoint *destination)
{
    int before = errno;
    if (connect_captured(fd, address->sa_family, ingress, destination) != 0 && errno != EINPROGRESS)
        return false;
    errno = before;
    return true;
}

EXPORT ssize_t sendto(int fd, const void *data, size_t size, int flags,
                      const struct sockaddr *address, socklen_t length)
{
    prepare();
    struct endpoint destination;
    struct ingress *ingress = NULL;
    if ((flags & MSG_FASTOPEN) != 0)
        ingress = captured(fd, address, length, &destination);
    if (ingress == NULL)
        return libc.sendto(fd, data, size, flags, address, length);
    if (!connect_first(fd, address, ingress, &destination))
        return -1;
    return libc.sendto(fd, data, size, flags & ~MSG_FASTOPEN, NULL, 0);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    prepare();
    struct endpoint destination;
    struct ingress *ingress = NULL;
    if ((flags & MSG_FASTOPEN) != 0 && message != NULL)
        ingress = captured(fd, message->msg_name, message->msg_namelen, &destination);
    if (ingress == NULL)
        return libc.sendmsg(fd, message, flags);
    if (!connect_first(fd, message->msg_name, ingress, &destination))
        return -1;
    struct msghdr rest = *message;
    rest.msg_name = NULL;
    rest.msg_namelen = 0;
    return libc.sendmsg(fd, &rest, flags & ~MSG_FASTOPEN);
}

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    prepare();
    int before = errno;
    struct endpoint wanted;
    struct egress *egress = NULL;
    if (mappings.egress_count > 0 && read_endpoint(address, length, &wanted) && is_tcp(fd))
        for (size_t i = 0; i < mappings.egress_count && egress == NULL; i++)
            if (mappings.egresses[i].origin_port == wanted.port)
                egress = &mappings.egresses[i];
    errno = before;
    if (egress == NULL)
        return libc.bind(fd, address, length);

    int is_ipv6_only = 0;
    socklen_t size = sizeof is_ipv6_only;
    if (address->sa_family == AF_INET6)
        getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &is_ipv6_only, &size);
    struct sockaddr_storage moved;
    struct endpoint real = loopback(egress->real_port, is_ipv6_only != 0);
    size = write_endpoint(&real, address->sa_family, &moved);
    errno = before;
    int result = libc.bind(fd, (struct sockaddr *)&moved, size);
    if (result == 0)
        remember(&egress->bound[address->sa_family == AF_INET6], &wanted);
    return result;
}

/* Hand an address to the program as the system does: cut to its room, with the whole length. */
static void tell(const struct endpoint *endpoint, sa_family_t family, struct sockaddr *into,
                 socklen_t room, socklen_t *length)
{
    struct sockaddr_storage made;
    *length = write_endpoint(endpoint, family, &made);
    memcpy(into, &made, room < *length ? room : *length);
}

EXPORT int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    prepare();
    socklen_t room = length == NULL ? 0 : *length;
    int result = libc.getsockname(fd, address, length);
    if (result != 0 || mappings.egress_count == 0)
        return result;
    int before = errno;
    struct endpoint real, told;
    sa_family_t family;
    if (read_name(fd, libc.getsockname, &real, &family) && is_loopback(&real) && is_tcp(fd))
        for (size_t i = 0; i < mappings.egress_count; i++) {
            struct egress *egress = &mappings.egresses[i];
            if (egress->real_port != real.port)
                continue;
            /* A connection has the address it came to; only the listener was bound elsewhere. */
            if (is_connected(fd) || !recall(&egress->bound[family == AF_INET6], &told)) {
                told = real;
                told.port = egress->origin_port;
            }
            tell(&told, family, address, room, length);
            break;
        }
    errno = before;
    return 0;
}

EXPORT int getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
    prepare();
    socklen_t room = length == NULL ? 0 : *length;
    int result = libc.getpeername(fd, address, length);
    if (result != 0 || mappings.ingress_count == 0)
        return result;
    int before = errno;
    struct endpoint peer, local, destination;
    sa_family_t family;
    if (read_name(fd, libc.getpeername, &peer, &family) && is_proxy(&peer) && is_tcp(fd) &&
        read_name(fd, libc.getsockname, &local, &family))
        for (size_t i = 0; i < mappings.ingress_count; i++) {
            struct ingress *ingress = &mappings.ingresses[i];
            if (ingress->proxy_port == peer.port &&
                recall(&ingress->destinations[local.port], &destination)) {
                tell(&destination, family, address, room, length);
                break;
            }
        }
    errno = before;
    return 0;
}
